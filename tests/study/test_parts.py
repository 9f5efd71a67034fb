"""Parts of the validation data."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tag_keras.results import is_part, part_names
from tag_keras.study.parts import with_parts

X, Y = np.arange(24.0).reshape(12, 2), {"a": np.arange(12.0), "b": np.ones((12, 3))}
TRAIN = (X, Y)


def parts_of(*validation):
    data = with_parts({"train": TRAIN, "validation": validation}, ("a", "b"), "validation")
    assert data["train"] is TRAIN and data["validation"] is validation
    assert list(data) == ["train", "validation", *part_names("validation")][: len(data)]
    return [data[name] for name in list(data)[2:]]


@pytest.mark.parametrize(
    "weights", [(), (None,), (np.arange(1.0, 13),), ({"a": np.ones(12), "b": None},)], ids=str
)
def test_put_together_the_parts_are_the_whole(weights):
    inputs = {"left": X, "right": [X + 1, tf.constant(X + 2)]}
    parts = parts_of(inputs, Y, *weights)
    sizes = [len(part[1]["a"]) for part in parts]
    assert len(parts) == 5 and sum(sizes) == 12 and max(sizes) - min(sizes) <= 1
    together = keras.tree.map_structure(
        lambda *arrays: None if arrays[0] is None else np.concatenate(arrays), *parts
    )
    keras.tree.map_structure(np.testing.assert_array_equal, together, (inputs, Y, *weights))


def test_a_part_without_a_label_of_a_task():
    part = slice(*(np.array([3, 4]) * 12 / 5).round().astype(int))
    missing, weight = Y["a"].copy(), np.ones(12)
    missing[part], weight[part] = np.nan, 0
    assert not parts_of(X, {**Y, "a": missing})
    assert not parts_of(X, Y, {"a": weight})
    missing[part.start] = weight[part.start] = 1
    assert len(parts_of(X, {**Y, "a": missing}, {"a": weight})) == 5
    # Too few for five parts.
    assert not parts_of(X[:4], {task: labels[:4] for task, labels in Y.items()})


@pytest.mark.parametrize(
    "validation",
    [tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), lambda: (X, Y), (X, [1.0] * 12)],
    ids=["dataset", "function", "labels of no task"],
)
def test_what_is_not_divided(validation):
    data = {"train": TRAIN, "validation": validation}
    assert with_parts(data, ("a", "b"), "validation") == data


def test_arrays_that_cannot_be_sliced():
    assert not parts_of(tf.sparse.from_dense(X), Y)
    assert not parts_of(scipy.sparse.coo_matrix(X), Y)
    assert not parts_of(X, {**Y, "a": [1.0] * 12})
    assert not parts_of(X, {**Y, "a": list(Y["a"])})


def test_the_names_of_parts():
    assert part_names("test") == ("test 1/5", "test 2/5", "test 3/5", "test 4/5", "test 5/5")
    assert all(map(is_part, part_names("of a split 1/5")))
    assert not any(map(is_part, ("test", "test 0/5", "test 6/5", "test 1/4", "1/5x", "")))
