"""A layer before a recurrent one: gradients that come through its loop do not know their shapes.

It is so in traced steps on arrays, whose batches may have any size.
"""

import keras
import numpy as np
import pytest

import tag_keras

TASKS = ("a", "b")


def train(eager, **options):
    """A model after two epochs of three steps, each with a smaller batch at its end."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3, 1)).astype("float32")
    y = {task: rng.normal(size=(20, 1)).astype("float32") for task in TASKS}
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Dense(2), keras.layers.SimpleRNN(2)])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=eager, **options)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return model


def assert_same_weights(one, other):
    for value, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("update", ["sgd", "optimizer"])
def test_affinities(update):
    affinity = tag_keras.LookaheadAffinity(every=1, update=update)
    model, expected = (train(eager, affinity=affinity) for eager in (False, True))
    measured, wanted = model.get_affinity().mean, expected.get_affinity().mean
    np.testing.assert_allclose(measured, wanted, rtol=1e-3, atol=1e-6)
    assert_same_weights(model, expected)


def test_updates_by_groups_of_tasks():
    one, other = (
        train(eager, gradient_method=tag_keras.SelectiveTaskGroupUpdates(seed=0))
        for eager in (False, True)
    )
    assert_same_weights(one, other)
