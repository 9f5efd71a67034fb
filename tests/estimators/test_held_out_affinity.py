"""Affinities on held-out data, against closed forms and steps by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from held_out_cases import NAN, TASKS, dataset_of, make_data, make_model
from small_models import in_batches

import tag_keras
from tag_keras import LookaheadAffinity
from tag_keras.estimators.held_out import HeldOutBatches


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
    model.fit(in_batches(*centres(TRAINING), 4), shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_affinity().mean, expected, atol=1e-6)


def forward(values, x, y):
    """Losses of ((x W + b) v + c - y)^2, over the labels that are there, and their gradients."""
    kernel, bias, heads = values
    losses, gradients = [], []
    for (v, c), label in zip(heads, y.values(), strict=True):
        known = ~np.isnan(label)
        error = np.where(known, ((x @ kernel + bias) @ v + c)[:, 0] - np.nan_to_num(label), 0.0)
        number = max(known.sum(), 1)
        losses.append((error**2).sum() / number if known.any() else NAN)
        slope = 2 * error / number
        features = x @ kernel + bias
        gradients.append(
            [np.outer(x.T @ slope, v), slope.sum() * v[:, 0], features.T @ slope, slope.sum()]
        )
    return np.array(losses), gradients


@pytest.mark.slow
def test_steps_by_hand_where_labels_are_missing():
    """A linear network, trained and probed in NumPy by the formulas of its gradients."""
    x, y = make_data(24)
    held_x, held_y = make_data(18, seed=1)
    # No label of "a" in the second of the three training batches, nor of "c" in the second of two
    # held-out batches; the last two examples are no batch.
    y["a"][8:16], held_y["c"][8:16], y["b"][3], held_y["b"][4] = NAN, NAN, NAN, NAN
    batches = tf.data.Dataset.from_tensor_slices((held_x, held_y)).batch(8)
    model = make_model(LookaheadAffinity(1, on=batches))
    kernel, bias = (weight.numpy().astype("float64") for weight in model.encoder.weights)
    model(x)
    heads = [
        [one.numpy().astype("float64") for one in head.weights] for head in model.heads.values()
    ]

    found = []
    for step in range(6):
        rows, held = (
            slice(8 * (step % 3), 8 * (step % 3) + 8),
            slice(8 * (step % 2), 8 * (step % 2) + 8),
        )
        batch = x[rows], {task: label[rows] for task, label in y.items()}
        target = held_x[held], {task: label[held] for task, label in held_y.items()}
        _, gradients = forward((kernel, bias, heads), *batch)
        before, _ = forward((kernel, bias, heads), *target)
        found.append(
            [
                1
                - forward((kernel - 0.1 * one[0], bias - 0.1 * one[1], heads), *target)[0] / before
                for one in gradients
            ]
        )
        if step % 3 == 1:
            found[-1][1] = np.full(3, NAN)
        kernel = kernel - 0.1 * sum(one[0] for one in gradients)
        bias = bias - 0.1 * sum(one[1] for one in gradients)
        heads = [
            [v - 0.1 * one[2][:, None], c - 0.1 * one[3]]
            for (v, c), one in zip(heads, gradients, strict=True)
        ]

    model.fit(in_batches(x, y, 8), epochs=2, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, (~np.isnan(found)).sum(axis=0))
    # Of 6 probes "a" was a source in 4, and "c" a target in 3, of which "a" took part in 2.
    np.testing.assert_array_equal(affinity.count, [[6, 6, 3], [4, 4, 2], [6, 6, 3]])
    assert not affinity.skipped.any()
    np.testing.assert_allclose(affinity.mean, np.nanmean(found, axis=0), rtol=1e-4, atol=1e-6)


def stack():
    layers = keras.layers
    return [layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dropout(0.3)]


def trained(affinity, layers=stack, optimizer="adam", **arguments):
    """A model after three steps on the same batch."""
    x, y = make_data(16)
    model = make_model(affinity, layers, optimizer, **arguments)
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(3), shuffle=False, verbose=0)
    return model


def assert_same_state(models):
    states = []
    for model in models:
        own = {id(one) for one in model._statistics.weights}
        variables = [one for one in model.variables if id(one) not in own]
        states.append([one.numpy() for one in (*variables, *model.optimizer.variables)])
    for found in states[1:]:
        for value, expected in zip(found, states[0], strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-6)


SAME = dataset_of(*make_data(16)).batch(16)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"steps_per_execution": 2}])
def test_the_training_batch_held_out_gives_what_is_measured_without(arguments):
    found = [
        trained(LookaheadAffinity(2, baseline=True, on=on), **arguments).get_affinity()
        for on in (None, SAME)
    ]
    np.testing.assert_allclose(found[1].mean, found[0].mean, atol=1e-6)
    assert (found[0].count == 2).all() and (found[1].count == 2).all()


@pytest.mark.slow
def test_xla_gives_what_is_measured_without():
    """The weights, too. Dropout, which XLA draws in its own way, is in `test_no_trace.py`."""

    def train(on, **arguments):
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        return trained(LookaheadAffinity(2, on=on), lambda: stack()[:2], optimizer, **arguments)

    one = train(None)
    two = train(SAME, run_eagerly=False, jit_compile=True, steps_per_execution=2)
    np.testing.assert_allclose(two.get_affinity().mean, one.get_affinity().mean, atol=1e-6)
    assert (one.get_affinity().count == 2).all() and (two.get_affinity().count == 2).all()
    assert_same_state([one, two])


@pytest.mark.slow
def test_training_is_as_without_a_probe():
    arrays = make_data(20, seed=1)
    models, drawn = [], []
    for on in (None, arrays, lambda: tf.data.Dataset.from_tensors(arrays)):
        affinity = None if on is None else LookaheadAffinity(2, on=on)
        models.append(make_model(affinity, stack, optimizer="adam"))
        # Shuffled by the global seeds.
        models[-1].fit(*make_data(32), batch_size=8, verbose=0)
        drawn.append(np.random.uniform() + tf.random.uniform(()).numpy())
    assert_same_state(models)
    assert drawn == pytest.approx([drawn[0]] * 3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_may_end_where_a_probe_would_be():
    # Of unknown size, so that only the end of the data shows the end of an epoch.
    data = dataset_of(*make_data(8)).batch(4).filter(lambda x, y: True)
    losses = []
    for at_once in (None, 1, 2):
        affinity = at_once and LookaheadAffinity(1, on=make_data(4, seed=1))
        model = make_model(affinity, steps_per_execution=at_once or 1)
        losses.append(model.fit(data, epochs=2, shuffle=False, verbose=0).history["loss"])
        assert affinity is None or (model.get_affinity().count == 4).all()
    assert losses[1] == pytest.approx(losses[0], abs=1e-6) and len(losses[1]) == 2
    assert losses[2] == pytest.approx(losses[0], abs=1e-6) and len(losses[2]) == 2


def in_precision(dtype):
    return [keras.layers.Dense(8, "tanh", dtype=dtype), keras.layers.Dense(4, dtype=dtype)]


@pytest.mark.slow
def test_mixed_precision():
    means = []
    for dtype in ("float32", "mixed_bfloat16"):
        layers = functools.partial(in_precision, dtype)
        model = make_model(LookaheadAffinity(10**6, on=make_data(16, seed=1)), layers)
        model.fit(*make_data(16), batch_size=16, shuffle=False, verbose=0)
        means.append(model.get_affinity().mean)
    # Only the gradients are rounded to 8 bits.
    np.testing.assert_allclose(means[1], means[0], atol=0.02 * np.abs(means[0]).max())


@pytest.mark.slow
def test_batches_grow_with_those_of_the_training(monkeypatch):
    sizes = []
    original = HeldOutBatches.batch

    def batch(self, *arguments):
        found = original(self, *arguments)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(HeldOutBatches, "batch", batch)
    model = make_model(LookaheadAffinity(1, on=make_data(48, seed=1)))
    model.fit(in_batches(*make_data(12), 8), shuffle=False, verbose=0)
    model.fit(in_batches(*make_data(32), 16), shuffle=False, verbose=0)
    # The remainder of 4 changes nothing. That batches are larger is known after the first of them.
    assert sizes == [8, 8, 8, 16]
