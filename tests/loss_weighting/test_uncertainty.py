"""Uncertainty weighting, against the optima of its three variants and a published example."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.loss_weighting.uncertainty import uncertainty_terms

layers = keras.layers


def joint(log_noise, loss, variant):
    weight, penalty = uncertainty_terms(tf.constant([log_noise]), variant)
    return float((weight * loss + penalty)[0])


@pytest.mark.parametrize("loss", [2.0, 0.7, 30.0])
@pytest.mark.parametrize(
    # The derivatives are 0 at: V1 exp(-s) L = 1; V2 the same; V3 2 exp(-2 s) L = 1.
    ("variant", "optimum", "value"),
    [
        ("V1", math.log, lambda loss: 1 + math.log(loss)),
        ("V2", math.log, lambda loss: 0.5 * (1 + math.log(loss))),
        ("V3", lambda loss: 0.5 * math.log(2 * loss), lambda loss: 0.5 + 0.5 * math.log(2 * loss)),
    ],
)
def test_optima(variant, optimum, value, loss):
    best = optimum(loss)
    assert joint(best, loss, variant) == pytest.approx(value(loss), rel=1e-6)
    assert all(joint(best + d, loss, variant) > value(loss) for d in (-0.1, 0.1))


def test_values_of_the_specification():
    # A loss of 2: the optima are .6931472 in all three variants.
    assert joint(0.6931472, 2.0, "V2") == pytest.approx(0.8465736, abs=1e-6)
    assert joint(0.6931472, 2.0, "V3") == pytest.approx(1.1931472, abs=1e-6)


def test_v3_trains_nothing_outside_of_its_interval():
    noise = tf.Variable([-0.5, 0.5, 11.0])
    with tf.GradientTape() as tape:
        weights, penalties = uncertainty_terms(noise, "V3")
        total = tf.reduce_sum(weights * 3.0 + penalties)
    np.testing.assert_allclose(weights, np.exp([-0.02, -1.0, -20.0]), rtol=1e-6)
    # -2 exp(-1) 3 + 1 inside.
    np.testing.assert_allclose(tape.gradient(total, noise), [0, 1 - 6 * math.exp(-1), 0], rtol=1e-6)


@pytest.mark.parametrize(("variant", "start"), [("V1", 0.0), ("V2", -0.5), ("V3", 1.0)])
def test_where_the_variants_start(variant, start):
    weighting = tag_keras.UncertaintyWeighting(variant)
    weighting.start(2)
    np.testing.assert_array_equal(weighting.log_noise, [start, start])
    assert tag_keras.UncertaintyWeighting().variant == "V2"


@pytest.mark.slow
def test_the_noise_of_the_example_of_the_authors():
    # yaringal/multi-task-learning-example: 100 points, y1 = 2 x + 8 + 10 e, y2 = 3 x + 3 + e. A
    # linear model must end at the residuals of ordinary least squares: 10.2819 and .94924.
    np.random.seed(0)
    x, e, f = (np.random.randn(100, 1) for _ in range(3))
    y = {"first": 2 * x + 8 + 10 * e, "second": 3 * x + 3 + f}
    heads = {task: layers.Dense(1) for task in y}
    model = tag_keras.MultiTaskModel(keras.Sequential([layers.Identity()]), heads)
    model.compile(
        keras.optimizers.Adam(0.2),
        "mse",
        loss_weighting=tag_keras.UncertaintyWeighting("V1"),
        steps_per_execution=50,
        jit_compile=False,
    )
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    model.fit(data, epochs=1, steps_per_epoch=2000, shuffle=False, verbose=0)
    sigma = np.exp(np.array(model.loss_weighting.log_noise) / 2)
    np.testing.assert_allclose(sigma, [10.2819, 0.94924], rtol=1e-4)


def test_a_task_without_labels_gets_no_penalty():
    weighting = tag_keras.UncertaintyWeighting()
    weighting.start(3)
    weighting.log_noise.assign([1.0, 10.0, 3.0])
    assert float(weighting.penalty(tf.constant([True, False, True]))) == 2.0


def compiled(optimizer):
    model = tag_keras.MultiTaskModel(
        layers.Dense(2, use_bias=False), {"a": layers.Dense(1), "b": layers.Dense(1)}
    )
    model.compile(
        optimizer, "mse", loss_weighting=tag_keras.UncertaintyWeighting(), run_eagerly=True
    )
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_no_weight_decay(policy):
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.5)
    # What the user excludes stays excluded, too.
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(optimizer)
    finally:
        keras.config.set_dtype_policy("float32")
    decays = optimizer._use_weight_decay
    assert not decays(model.loss_weighting.log_noise)
    model(np.ones((1, 3)))
    assert decays(model.encoder.kernel)
    assert not decays(model.heads["a"].bias)


def test_it_is_no_shared_variable():
    model = compiled("sgd")
    model(np.ones((1, 3)))
    noise = model.loss_weighting.log_noise
    assert any(one is noise for one in model.trainable_variables)
    assert not any(one is noise for one in model.shared_variables)


@pytest.mark.parametrize("variant", ["V4", "v1", None])
def test_unknown_variant(variant):
    with pytest.raises(ValueError, match=r'should be "V1", "V2" or "V3". Received: variant='):
        tag_keras.UncertaintyWeighting(variant)


@pytest.mark.parametrize("variant", ["V1", "V2", "V3"])
def test_losses_that_are_0_give_no_nan(variant):
    # The scalars fall with every step, and after two of these exp(-s) would overflow.
    heads = {task: layers.Dense(1) for task in ("a", "b")}
    model = tag_keras.MultiTaskModel(layers.Dense(2), heads)
    weighting = tag_keras.UncertaintyWeighting(variant)
    optimizer = keras.optimizers.SGD(200.0)
    model.compile(optimizer, "mse", loss_weighting=weighting, run_eagerly=True)
    zeros = np.zeros((4, 3), "float32")
    labels = dict.fromkeys(heads, zeros[:, 0])
    logs = model.fit(zeros, labels, epochs=4, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert (model.loss_weighting.log_noise.numpy() == -20).all()
