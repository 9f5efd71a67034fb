"""Affinities on held-out data, against closed forms and steps by hand; what the data may be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras import LookaheadAffinity

TASKS = ("b", "a", "c")


class Point(keras.layers.Layer):
    """A shared vector theta (2,), the same for every example."""

    def build(self, shape):
        self.theta = self.add_weight(shape=(2,), initializer="zeros")

    def call(self, x):
        return self.theta + 0 * x


def half_square(y_true, y_pred):
    return 0.5 * tf.reduce_sum((y_pred - y_true) ** 2, axis=-1)


TRAINING = np.array([[1, 0], [0, 1], [-1, 0]], "float32")
HELD_OUT = np.array([[2, 0], [1, 1], [0, -1]], "float32")


def centres(points, size=4):
    """Labels of so many examples, the same for all of them."""
    y = {task: np.tile(point, (size, 1)) for task, point in zip(TASKS, points, strict=True)}
    return np.zeros((size, 2), "float32"), y


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_quadratic_losses_with_other_centres_have_a_closed_form(momentum, baseline):
    # L_j(theta) = |theta - c_j|^2 / 2 on the training batch, and the same with e_j on the held-out
    # batch. At theta = 0 the step for i is d_i = 0.1 c_i + momentum v, where v is the slot, and
    # Z[i, j] = 1 - |d_i - e_j|^2 / |e_j|^2 = (2 d_i.e_j - |d_i|^2) / |e_j|^2.
    slot = np.array([0.2, 0.0])
    steps = 0.1 * TRAINING + momentum * slot
    squares = (HELD_OUT**2).sum(axis=1)
    expected = (2 * steps @ HELD_OUT.T - (steps**2).sum(axis=1)[:, None]) / squares
    if baseline:
        zero = momentum * slot
        expected = expected - (2 * HELD_OUT @ zero - zero @ zero) / squares

    heads = {task: keras.layers.Identity() for task in TASKS}
    model = tag_keras.MultiTaskModel(Point(), heads)
    options = LookaheadAffinity(1, baseline=baseline, on=centres(HELD_OUT))
    optimizer = keras.optimizers.SGD(0.1, momentum=momentum)
    model.compile(optimizer, half_square, affinity=options, run_eagerly=True)
    model(np.zeros((1, 2), "float32"))
    optimizer.build(model.trainable_variables)
    if momentum:
        optimizer.momentums[0].assign(slot)
    model.fit(*centres(TRAINING), verbose=0)
    np.testing.assert_allclose(model.get_affinity().mean, expected, atol=1e-6)
