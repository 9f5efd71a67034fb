"""Selective updates in mixed precision, and on several devices."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from selective_training import GRAPH, assert_same, compiled, fit, method_state, state
from small_models import TASKS, make_data, make_model

import tag_keras

layers = keras.layers


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_mixed_precision():
    results = {}
    for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            optimizer = keras.optimizers.Adam()
            if policy == "mixed_float16":
                # From the usual 32768 on, the first updates would overflow.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 1024.0)
            model = compiled(make_model(), optimizer, groups=[0, 1, 0], decay=0.5)
            fit(model, 2)
        finally:
            keras.config.set_dtype_policy("float32")
        results[policy] = model.gradient_method.affinity.numpy()
        assert int(model.optimizer.iterations) == 2
    exact = results.pop("float32")
    for found in results.values():
        np.testing.assert_allclose(found, exact, atol=0.05 * np.abs(exact).max())


def test_updates_whose_gradients_overflow_are_left_out(mixed_float16):
    model = compiled(make_model())
    x, y = make_data(16)
    # A gradient of 1e5, and times 32768, is beyond float16; those of the others are not.
    y["a"] *= 1e5
    model(x)
    before = {one.path: one.numpy() for one in model.trainable_variables}
    model.train_on_batch(x, y)
    for variable in model.heads["a"].trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    for variable in [*model.heads["b"].trainable_variables, *model.encoder.trainable_variables]:
        assert np.isfinite(variable.numpy()).all()
        assert np.abs(variable.numpy() - before[variable.path]).max() > 0
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    assert int(model.optimizer.iterations) == 1
    count = model.gradient_method.count.numpy()
    assert not count[1].any() and count[0, 2] == count[2, 0] == 1


def test_the_loss_scale_grows_once_in_so_many_batches(mixed_float16):
    inner = keras.optimizers.SGD(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, 4.0, dynamic_growth_steps=2)
    fit(compiled(make_model(("b", "a")), optimizer), 3)
    # 3 batches, of two updates each.
    assert float(optimizer.dynamic_scale) == 8.0 and int(optimizer.step_counter) == 1


def missing_data():
    """Of batches of 15, one replica has 8 examples and the other 7."""
    x, y = make_data(60)
    rng = np.random.default_rng(0)
    for values in y.values():
        values[rng.uniform(size=60) < 0.4] = np.nan
    # No label for one of the replicas in the first batch, none at all in the second.
    y["a"][:8] = y["a"][15:30] = np.nan
    return x, y


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "optimizer", "options"),
    [
        (("b", "a"), "adam", {"warmup": 2, "decay": 0.1}),
        # The row of an empty group comes last, and is not measured.
        (TASKS, "sgd", {"groups": [0, 1, 0], "measure_last": False}),
    ],
    ids=str,
)
def test_two_replicas_are_one(two_replicas, tasks, optimizer, options):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            arguments = {"run_eagerly": strategy is not two_replicas}
            model = make_model(tasks, regularizer="l2")
            compiled(model, optimizer, compiled_with=arguments, **options)
        results.append((model, fit(model, data=missing_data(), batch_size=15, epochs=1)))
    (model, logs), (other, history) = results
    assert_same(state(other), state(model), atol=2e-6)
    assert_same(method_state(other), method_state(model), atol=2e-6)
    assert list(logs) == list(history)
    for name in logs:
        np.testing.assert_allclose(history[name], logs[name], rtol=1e-5)
    for variable in other.trainable_variables:
        one, two = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_two_replicas_with_synchronized_batchnorm(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        random.seed(0)
        with strategy.scope():
            stack = [layers.Dense(8, use_bias=False), layers.BatchNormalization(synchronized=True)]
            encoder = keras.Sequential([keras.Input((5,)), *stack, layers.ReLU()])
            heads = {task: layers.Dense(1) for task in TASKS[:2]}
            model = tag_keras.MultiTaskModel(encoder, heads)
            # The slots of momentum have the fewest operations.
            optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
            arguments = GRAPH if strategy is two_replicas else None
            compiled(model, optimizer, groups=[0, 1], compiled_with=arguments)
        fit(model, 3)
        results.append(model)
    assert_same(*map(state, results), atol=2e-6)
    affinities = [one.gradient_method.affinity.numpy() for one in results]
    np.testing.assert_allclose(*affinities, atol=2e-6)
