"""Dynamic weight average, against the values of the specification and losses by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.loss_weighting.dynamic_average import dynamic_weights

layers = keras.layers
NAN = float("nan")


def weights(last, before, temperature=2.0):
    return dynamic_weights(tf.constant(last), tf.constant(before), temperature).numpy()


def test_values_of_the_specification():
    # Losses (1, 1, .8) -> (.9, .5, .8).
    last, before = [0.9, 0.5, 0.8], [1.0, 1.0, 0.8]
    np.testing.assert_allclose(
        weights(last, before), [1.04529549, 0.85581557, 1.09888894], rtol=1e-6
    )
    np.testing.assert_allclose(
        weights(last, before, 1.0), [1.08088985, 0.72454213, 1.19456802], rtol=1e-6
    )


def test_properties():
    last, before = np.random.default_rng(0).uniform(0.1, 3, size=(2, 5)).astype("float32")
    found = weights(last, before)
    assert found.sum() == pytest.approx(5)
    # The scale of a task's loss does not matter, and equal rates give equal weights.
    scale = np.array([1, 1e-4, 7, 1, 3], "float32")
    np.testing.assert_allclose(weights(scale * last, scale * before), found, rtol=1e-5)
    np.testing.assert_allclose(weights(0.3 * before, before), np.ones(5), rtol=1e-6)
    np.testing.assert_allclose(weights(last, before, 1e6), np.ones(5), atol=1e-4)


@pytest.mark.parametrize(
    ("last", "before"),
    [
        ([NAN, NAN], [NAN, NAN]),
        ([0.5, 0.2], [NAN, NAN]),
        ([0.3, 1.0], [0.0, 1.0]),
        ([0.0, 0.0],) * 2,
    ],
)
def test_what_is_not_known_counts_as_a_loss_that_has_not_changed(last, before):
    np.testing.assert_array_equal(weights(last, before), [1.0, 1.0])


def test_one_task():
    np.testing.assert_array_equal(weights([3.0], [1.0]), [1.0])


@pytest.mark.slow
def test_the_weights_of_an_epoch_come_from_the_losses_of_the_two_before():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 3)).astype("float32")
    y = {task: rng.normal(size=22).astype("float32") for task in ("b", "a")}
    y["a"][:9] = np.nan
    keras.utils.set_random_seed(0)
    model = tag_keras.MultiTaskModel(layers.Dense(2), {task: layers.Dense(1) for task in y})
    model.compile(
        keras.optimizers.SGD(0.1),
        "mse",
        loss_weights={"b": 3.0},
        loss_weighting=tag_keras.DynamicWeightAverage(temperature=0.5),
        run_eagerly=True,
    )
    history = model.fit(
        x, y, 11, epochs=5, verbose=0, validation_data=(x, y), validation_batch_size=22
    ).history
    # The logs hold the means over all labels of an epoch.
    losses = np.array([history[f"{task}_loss"] for task in ("b", "a")])
    ratios = np.exp(losses[:, 1:] / losses[:, :-1] / 0.5)
    expected = 2 * ratios / ratios.sum(axis=0)
    found = np.array([history[f"{task}_weight"] for task in ("b", "a")])
    np.testing.assert_array_equal(found[:, :2], 1.0)
    np.testing.assert_allclose(found[:, 2:], expected[:, :-1], rtol=1e-5)
    assert np.abs(found - 1).max() > 0.01
    assert "val_a_weight" not in history and "val_a_loss" in history
    # What comes next, as a model that goes on would have it.
    np.testing.assert_allclose(model.loss_weighting.task_weights(), expected[:, -1], rtol=1e-5)


def test_a_task_without_labels_in_an_epoch():
    weighting = tag_keras.DynamicWeightAverage()
    weighting.start(2)
    for loss in (4.0, 2.0, 1.0):
        weighting.update([tf.constant(loss), tf.constant(0.0)], tf.constant([3.0, 0.0]))
        weighting.end_epoch()
    # Ratios of 1 / 2 and of nothing known, 1.
    expected = 2 * np.exp([0.25, 0.5]) / np.exp([0.25, 0.5]).sum()
    np.testing.assert_allclose(weighting.task_weights(), expected, rtol=1e-6)


def test_an_epoch_that_was_interrupted_counts_nothing_in_the_next_training():
    weighting = tag_keras.DynamicWeightAverage()
    weighting.start(1)
    weighting.update([tf.constant(100.0)], tf.constant([3.0]))
    weighting.start_epoch()
    weighting.update([tf.constant(2.0)], tf.constant([3.0]))
    weighting.end_epoch()
    np.testing.assert_array_equal(weighting._last, [2.0])


@pytest.mark.parametrize("temperature", [0, -1.0, NAN, float("inf")])
def test_bad_temperature(temperature):
    with pytest.raises(ValueError, match=r"`temperature` should be a positive number, such as 2.0"):
        tag_keras.DynamicWeightAverage(temperature)
