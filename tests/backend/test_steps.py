"""Steps one at a time, and steps in a loop on the device against single ones."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.backend.steps import on_device, steps_of


def test_steps_one_at_a_time_end_with_the_data():
    model = types.SimpleNamespace(steps_per_execution=1, _make_function=lambda step: step)
    steps = steps_of(model, lambda iterator: f"logs of {next(iterator)}")
    batches = iter("ab")
    assert steps(batches, 1) == ("logs of a", 1)
    assert steps(batches, 1) == ("logs of b", 1)
    with pytest.raises(StopIteration):
        steps(batches, 1)


def make_model(run_eagerly=False, jit_compile=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "tanh")])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def make_batches(number=10, unknown=False):
    x, y = np.random.default_rng(0).normal(size=(2, 4 * number, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, y[:, :2])).batch(4)
    return data.filter(lambda x, y: True) if unknown else data


@pytest.mark.slow_cases
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(
    ("run_eagerly", "jit_compile"), [(True, False), (False, False), (False, True)]
)
def test_steps_on_the_device_equal_single_ones(run_eagerly, jit_compile, unknown):
    alone, together = (make_model(run_eagerly, jit_compile) for _ in range(2))
    for batch in make_batches():
        alone.train_step(batch)
    steps, batches = on_device(together, together.train_step), iter(make_batches(unknown=unknown))
    numbers, logs = zip(*(steps(batches, number)[::-1] for number in (1, 3, 4, 5, 5)), strict=True)
    # Of the last but one only two are left, and none of the last.
    assert numbers == (1, 3, 4, 2, 0)
    for one, other in zip(alone.variables, together.variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)
    assert int(together.optimizer.iterations) == 10
    assert float(logs[-1]["loss"]) == pytest.approx(float(alone.get_metrics_result()["loss"]))


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_steps_with_batches_of_a_python_iterator(run_eagerly):
    # As `train_on_batch` gives it.
    alone, together = make_model(), make_model(run_eagerly)
    for batch in make_batches(3):
        alone.train_step(batch)
    steps, batches = on_device(together, together.train_step), (batch for batch in make_batches(3))
    assert [steps(batches, number)[1] for number in (2, 2, 2)] == [2, 1, 0]
    for one, other in zip(alone.variables, together.variables, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)


def test_the_number_of_steps_does_not_trace_anew():
    model, traced = make_model(), []

    def step(batch):
        traced.append(1)
        return model.train_step(batch)

    steps, batches = on_device(model, step), iter(make_batches())
    for number in (1, 2, 3):
        steps(batches, number)
    assert len(traced) == 1
