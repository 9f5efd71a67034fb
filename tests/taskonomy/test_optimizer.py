"""SGD of PyTorch, against its documented formula in float64, and against the step of a probe."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.backend.optimizers import lookahead_step
from taskonomy.optimizer import SGDWithPenalty


def steps_of_the_formula(value, gradients, rates, momentum, penalty):
    """torch.optim.SGD: b = mu b + g + lambda w, w = w - rate b; b is g + lambda w at first."""
    value, velocity = value.astype("float64"), 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + gradient + penalty * value
        value = value - rate * velocity
    return value


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_the_formula_also_when_the_rate_is_halved(momentum):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 2)), rng.normal(size=(6, 3, 2))
    variable = keras.Variable(start)
    optimizer = SGDWithPenalty(0.1, momentum, penalty=0.3)
    optimizer.build([variable])
    rates = [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient, "float32")], [variable])
    expected = steps_of_the_formula(start, gradients, rates, momentum, 0.3)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_excluded_variables_have_no_penalty():
    kept, excluded = keras.Variable([1.0, 2.0]), keras.Variable([1.0, 2.0])
    optimizer = SGDWithPenalty(0.1, penalty=0.5)
    optimizer.exclude_from_weight_decay([excluded])
    optimizer.build([kept, excluded])
    optimizer.apply([tf.zeros(2)] * 2, [kept, excluded])
    np.testing.assert_allclose(kept.numpy(), [0.95, 1.9])
    np.testing.assert_array_equal(excluded.numpy(), [1.0, 2.0])


def test_a_probe_looks_ahead_to_the_step_that_is_made():
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape)) for shape in [(3, 2), (2,)]]
    optimizer = SGDWithPenalty(0.1, penalty=0.2)
    optimizer.build(variables)
    for _ in range(3):
        gradients = [tf.constant(rng.normal(size=v.shape), "float32") for v in variables]
        ahead = lookahead_step(optimizer, gradients, variables)
        optimizer.apply(gradients, variables)
        for value, variable in zip(ahead, variables, strict=True):
            np.testing.assert_array_equal(value, variable.numpy())


@pytest.mark.slow
def test_affinities_are_those_of_the_steps_of_sgd():
    # Of the first step, without velocity: that of Keras' SGD on losses with the penalty added.
    def affinity(optimizer):
        keras.utils.set_random_seed(0)
        encoder = keras.layers.Dense(4)
        model = tag_keras.MultiTaskModel(encoder, {t: keras.layers.Dense(1) for t in "ab"})
        measured = tag_keras.LookaheadAffinity(every=1)
        model.compile(optimizer, "mse", affinity=measured, run_eagerly=True)
        rng = np.random.default_rng(0)
        x, a, b = rng.normal(size=(3, 8, 4)).astype("float32")
        model.fit(x, {"a": a[:, :1], "b": b[:, :1]}, batch_size=8, verbose=0)
        return model.get_affinity().mean

    without = affinity(SGDWithPenalty(0.1, penalty=0.0))
    np.testing.assert_allclose(without, affinity(keras.optimizers.SGD(0.1, 0.9)), rtol=1e-5)
    # The weight decay of AdamW's kind is the same in a first step: 0.1 * 0.5 of the weights.
    decayed = affinity(keras.optimizers.SGD(0.1, 0.9, weight_decay=0.5))
    np.testing.assert_allclose(affinity(SGDWithPenalty(0.1, penalty=0.5)), decayed, rtol=1e-4)


def test_it_works_on_two_replicas(two_replicas):
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(SGDWithPenalty(0.1, penalty=0.5), "mse")
    start = model.get_weights()[0]
    model.fit(np.zeros((4, 2), "float32"), np.zeros((4, 1), "float32"), batch_size=4, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.95 * start, rtol=1e-6)


def test_it_is_saved_and_loaded():
    optimizer = SGDWithPenalty(0.2, 0.8, 0.01, clipnorm=1.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is SGDWithPenalty
    assert again.get_config() == optimizer.get_config()
    assert (again.penalty, again.momentum, again.clipnorm) == (0.01, 0.8, 1.0)


def test_errors():
    with pytest.raises(
        ValueError, match=r"This is not Nesterov's momentum\. Received: nesterov=True"
    ):
        SGDWithPenalty(0.1, nesterov=True)
