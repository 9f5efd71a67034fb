"""The schedule of a search against one written out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.adashare.options import Phase


def test_the_phases_written_out():
    search = tag_keras.AdaShareSearch(
        warm_up=2, weight_steps=2, policy_steps=1, temperature=4.0, temperature_decay=0.5,
        curriculum_speed=2,
    )  # fmt: skip
    phases = [search.phase(step, num_blocks=2) for step in range(15)]
    assert phases == [
        Phase(False, 0, 4.0, 2),
        Phase(False, 0, 4.0, 1),
        *(Phase(False, 1, 4.0, 2), Phase(False, 1, 4.0, 1), Phase(True, 1, 4.0, 1)),
        *(Phase(False, 1, 2.0, 2), Phase(False, 1, 2.0, 1), Phase(True, 1, 2.0, 1)),
        *(Phase(False, 2, 1.0, 2), Phase(False, 2, 1.0, 1), Phase(True, 2, 1.0, 1)),
        *(Phase(False, 2, 0.5, 2), Phase(False, 2, 0.5, 1), Phase(True, 2, 0.5, 1)),
        Phase(False, 2, 0.25, 2),
    ]


def test_the_defaults_and_no_warm_up():
    search = tag_keras.AdaShareSearch()
    assert search.phase(3999, 8) == Phase(False, 0, 5.0, 1)
    assert search.phase(4000, 8) == Phase(False, 1, 5.0, 400)
    assert search.phase(4400, 8) == Phase(True, 1, 5.0, 100)
    # METHODS: ResNet-18's eight blocks are all active from cycle 21 on.
    assert [search.phase(4000 + 500 * cycle, 8).active for cycle in (20, 21)] == [7, 8]
    assert search.phase(4000 + 500 * 10, 8).temperature == pytest.approx(3.501411, abs=5e-7)
    assert tag_keras.AdaShareSearch(warm_up=0).phase(0, 8).active == 1


def test_the_losses_are_weighted():
    logits = np.zeros((2, 4, 2), "float32")
    logits[0, :, 0] = 1
    options = {"sparsity": 2.0, "sharing": 10.0, "sharing_weight": "bottom"}
    search = tag_keras.AdaShareSearch(**options, policy_decay=0.0)
    # The first task: -log(1 / (1 + e)) at each block. The second one: ln 2. And 1.5 of METHODS.
    expected = 2 * (np.log(1 + np.e) + np.log(2)) + 10 * 1.5
    assert search.policy_loss(tf.constant(logits), 4).numpy() == pytest.approx(expected)


def test_the_decay_is_that_of_the_authors_optimizer():
    """Adam of PyTorch adds `weight_decay` times the variable to its gradient."""
    search, logits = tag_keras.AdaShareSearch(), tf.Variable(np.ones((2, 4, 2), "float32") / 8)
    assert search.policy_decay == 5e-4
    gradients = []
    for one in (search, tag_keras.AdaShareSearch(policy_decay=0.0)):
        with tf.GradientTape() as tape:
            loss = one.policy_loss(logits, 4)
        gradients.append(tape.gradient(loss, logits).numpy())
    np.testing.assert_allclose(gradients[0] - gradients[1], 5e-4 / 8, rtol=1e-4)


def test_the_blocks_that_are_to_be_sparse_can_be_chosen():
    logits = np.zeros((2, 4, 2), "float32")
    options = {"sparsity": 3.0, "sharing": 0.0, "policy_decay": 0.0}
    search = tag_keras.AdaShareSearch(**options, sparsity_weight="top")
    # Of the last two blocks, 2 * 3 / 4 and 2 * 4 / 4.
    expected = 3 * 2 * np.log(2) * (1.5 + 2) / 2
    assert search.policy_loss(tf.constant(logits), 2).numpy() == pytest.approx(expected)


def test_a_search_of_version_0_1_goes_on_without_decay():
    config = tag_keras.AdaShareSearch(warm_up=3).get_config()
    del config["policy_decay"], config["sparsity_weight"]
    assert tag_keras.AdaShareSearch.from_config(config).policy_decay == 0


def test_a_search_round_trips():
    search = tag_keras.AdaShareSearch(warm_up=3, sharing_weight="bottom")
    config = keras.saving.serialize_keras_object(search)
    assert keras.saving.deserialize_keras_object(config) == search


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_up": -1}, "`warm_up` should be an integer from 0 on. Received: warm_up=-1."),
        ({"weight_steps": 0}, "`weight_steps` should be at least 1. Received: weight_steps=0."),
        ({"policy_steps": 0}, "`policy_steps` should be at least 1. Received: policy_steps=0."),
        ({"policy_steps": 1.5}, "`policy_steps` should be an integer. Received: policy_steps=1.5."),
        ({"curriculum_speed": 0}, "`curriculum_speed` should be at least 1"),
        (
            {"sparsity": -0.1},
            "`sparsity` should be a number of at least 0. Received: sparsity=-0.1",
        ),
        (
            {"sharing": float("nan")},
            "`sharing` should be a number of at least 0. Received: sharing=nan.",
        ),
        (
            {"sharing_weight": "middle"},
            '`sharing_weight` should be "top", "bottom" or "uniform"',
        ),
        ({"temperature": 0}, "`temperature` should be a positive number. Received: temperature=0."),
        ({"temperature_decay": 1.1}, "`temperature_decay` should be above 0, and at most 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.AdaShareSearch(**options)
