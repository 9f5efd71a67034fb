"""Shares of common examples, counted by hand."""

import math
import re

import numpy as np
import pytest

import tag_keras
from tag_keras.decision.common_examples import few_common_examples

NAN = math.nan


def test_shares_by_hand():
    labels = {"a": [0.1, 0.2, NAN, NAN], "b": [1.0, NAN, 2.0, 3.0], "c": [1, 0, 1, 1]}
    # Of a's 2 examples one has b's; of b's 3 one has a's; c has all 4, of which a has 2 and b 3.
    expected = [[1, 1 / 3, 1 / 2], [1 / 2, 1, 3 / 4], [1, 1, 1]]
    np.testing.assert_allclose(tag_keras.share_of_common_examples(labels), expected)


def test_a_weight_of_0_and_a_vector_of_nan_are_missing():
    labels = {"a": np.ones((4, 2)), "b": np.array([[1, NAN], [NAN, NAN], [2, 2], [NAN, NAN]])}
    shares = tag_keras.share_of_common_examples(labels, {"a": [1, 1, 0, 0.5]})
    # a has examples 0, 1 and 3, b has 0 and 2.
    np.testing.assert_allclose(shares, [[1, 1 / 2], [1 / 3, 1]])
    both = tag_keras.share_of_common_examples(labels, np.array([0.0, 1, 1, 1]))
    np.testing.assert_allclose(both, [[1, 1], [1 / 3, 1]])


def test_a_task_without_labels_is_unknown():
    shares = tag_keras.share_of_common_examples({"a": [NAN, NAN], "b": [1.0, 2.0]})
    np.testing.assert_array_equal(shares, [[NAN, 0], [NAN, 1]])


def test_the_sentence_names_the_worst_pairs():
    assert few_common_examples(["a", "b"], np.ones((2, 2))) == ""
    # A task whose few labels are all in common with the other's is well told.
    assert few_common_examples(["a", "b"], np.array([[1, 0.01], [1, 1]])) == ""
    shares = np.full((4, 4), 0.1)
    shares[0, 1] = 0.32
    shares[2, 3] = shares[3, 2] = 0.02
    text = few_common_examples(["a", "b", "c", "d"], shares)
    assert text.startswith("Few examples have labels of both c and d (2 %), a and c (10 %) and ")
    assert ", and 3 more pairs: how such tasks" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0],), "`labels` should be a dict of arrays by task. Received: type=<class 'list'>"),
        (({},), "`labels` should be a dict of arrays by task."),
        (({"a": [1.0], "b": [1.0, 2.0]},), "Received: 2 of the task 'b', and 1 of others."),
        (({"a": [1.0]}, [1.0, 2.0]), "Received: 2 of the task 'a', and 1 of others."),
    ],
)
def test_arrays_that_differ(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tag_keras.share_of_common_examples(*arguments)
