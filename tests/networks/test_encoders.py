"""Encoders for images that can stand in for one another, in the same multi-task model."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.resnet import ResidualBlock

TASKS = ("b", "a", "c")
SMALL = {"input_shape": (6, 6, 1), "depth": (2, 2), "widths": (8, 16)}
ENCODERS = [tag_keras.resnet_encoder, tag_keras.mtan_encoder, tag_keras.task_routing_encoder]


def images(size=4, seed=0):
    return np.random.default_rng(seed).normal(size=(size, 6, 6, 1)).astype("float32")


def labels(size=4):
    rng = np.random.default_rng(1)
    return {task: rng.normal(size=size).astype("float32") for task in TASKS}


def make_model(build, tasks=TASKS, sizes=SMALL):
    random.seed(0)
    heads = {task: keras.layers.Dense(1, dtype="float32") for task in tasks}
    return tag_keras.MultiTaskModel(build(tasks, **sizes), heads)


def make_smaller_model(build, tasks=TASKS[:2]):
    """As few blocks as show each kind: at its own width and at another; MTAN looks between two."""
    depth = (2, 2) if build is tag_keras.mtan_encoder else (1, 1)
    return make_model(build, tasks, {**SMALL, "depth": depth})


@pytest.fixture(scope="module")
def models():
    """One model with each encoder, for tests that hold whatever its weights are."""
    return {build: make_model(build) for build in ENCODERS}


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.slow
@pytest.mark.parametrize("build", ENCODERS)
def test_it_trains_in_a_multi_task_model_and_is_saved(models, build, tmp_path):
    model = models[build]
    model.compile("sgd", "mse", run_eagerly=True)
    logs = model.fit(images(), labels(), batch_size=4, shuffle=False, verbose=0).history
    assert set(logs) == {"loss", "a_loss", "b_loss", "c_loss"}
    assert np.isfinite(logs["loss"]).all()
    predictions = model(images())
    assert {task: one.shape for task, one in predictions.items()} == dict.fromkeys(TASKS, (4, 1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, again in loaded(images()).items():
        np.testing.assert_array_equal(again, predictions[task])
    assert len(loaded.shared_variables) == len(model.shared_variables)


@pytest.mark.slow
@pytest.mark.parametrize("build", ENCODERS)
def test_affinities_are_measured_under_mixed_precision(build):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_smaller_model(build)
    finally:
        keras.config.set_dtype_policy("float32")
    # With the scale that Keras begins with, a first gradient may overflow.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=16.0)
    # Eager steps are made sooner than a graph; one encoder shows that there is one.
    eager = build is not tag_keras.resnet_encoder
    model.compile(optimizer, "mse", affinity=tag_keras.LookaheadAffinity(1), run_eagerly=eager)
    model.fit(images(), labels(), batch_size=4, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    assert np.isfinite(affinity.mean).all()
    assert not affinity.skipped.any()


@pytest.mark.slow
# All blocks of the ResNet are in MTAN.
@pytest.mark.parametrize("build", ENCODERS[1:])
def test_xla_compiles_it(build):
    # The modules of one task of MTAN are like those of another.
    tasks = TASKS[:1] if build is tag_keras.mtan_encoder else TASKS[:2]
    model = make_smaller_model(build, tasks)
    model.compile("sgd", "mse", jit_compile=True)
    # The loss of the first batch is that before its step.
    outputs = model(images(), training=True)
    losses = [np.mean((labels()[task] - outputs[task][:, 0]) ** 2) for task in tasks]
    compiled = model.fit(images(), labels(), batch_size=4, shuffle=False, verbose=0).history
    np.testing.assert_allclose(compiled["loss"], [sum(losses)], rtol=1e-4)


def test_all_weights_of_the_trunk_are_shared(models):
    for model in models.values():
        model(keras.KerasTensor((None, 6, 6, 1)))
    resnet, mtan, task_routing = models.values()
    trunk = count(resnet.encoder.trainable_variables)
    assert count(resnet.shared_variables) == trunk
    # Masks are no weights that are trained.
    assert count(task_routing.shared_variables) == trunk
    # And the residual block that leads to the second stage of MTAN, from 8 to 16 channels: three
    # convolutions, each with gamma and beta.
    way = (9 * 8 * 16 + 32) + (9 * 16 * 16 + 32) + (8 * 16 + 32)
    assert count(mtan.shared_variables) == trunk + way
    # A task's own modules: from i to m to o channels, i*m + 3m + m*o + 3o; a quarter as wide.
    own = (8 * 2 + 6 + 2 * 8 + 24) + (32 * 4 + 12 + 4 * 16 + 48)
    assert count(mtan.encoder.trainable_variables) == trunk + way + 3 * own


@pytest.mark.slow
def test_masks_of_mtan_get_gradients_of_their_task_and_the_way_between_of_all(models):
    encoder = models[tag_keras.mtan_encoder].encoder
    attention = [one for one in encoder.layers if isinstance(one, tag_keras.TaskAttention)]
    blocks = [one for one in encoder.layers if isinstance(one, ResidualBlock)]
    assert (len(attention), len(blocks)) == (2 * 3, 4 + 1)
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(tf.square(one)) for one in encoder(images()).values()]
    for layer in attention:
        kernel = layer.first.convolution.kernel.value
        reached = [tape.gradient(loss, kernel) is not None for loss in losses]
        assert sum(reached) == 1
    (between,) = (one for one in blocks if not one.name.startswith("stage"))
    for loss in losses:
        gradient = tape.gradient(loss, between.first.convolution.kernel.value)
        assert np.abs(gradient).max() > 0


def test_what_the_modules_of_mtan_look_at():
    # Numbers of residual blocks before the input of the last block of a stage, before its output,
    # and on the way of the task: two of the stage before, and the one between.
    encoder = tag_keras.mtan_encoder(["a"], **SMALL)
    attention = [one for one in encoder.layers if isinstance(one, tag_keras.TaskAttention)]
    before = [
        [
            sum(isinstance(one, ResidualBlock) for one in keras.Model(encoder.input, x).layers)
            for x in layer.input
        ]
        for layer in attention
    ]
    assert before == [[1, 2], [3, 4, 2 + 1]]


def test_tasks_see_different_features_of_mtan_and_task_routing_alone(models):
    x = images()
    for build in ENCODERS[1:]:
        features = models[build].encoder(x)
        assert list(features) == list(TASKS)
        assert all(one.shape == (4, 16) for one in features.values())
        assert np.abs(features["a"] - features["b"]).max() > 1e-4
    assert models[tag_keras.resnet_encoder].encoder(x).shape == (4, 16)


def test_task_routing_takes_its_options():
    encoder = tag_keras.task_routing_encoder(TASKS, **SMALL, sigma=1.0)
    features = encoder(images())
    np.testing.assert_allclose(features["a"], features["b"], rtol=1e-5)
    np.testing.assert_allclose(features["a"], features["c"], rtol=1e-5)
    with pytest.raises(ValueError, match="`sigma` should be below 1 in the mode"):
        tag_keras.task_routing_encoder(TASKS, **SMALL, sigma=1.0, mode="reference")


@pytest.mark.parametrize("build", ENCODERS)
def test_arguments_that_do_not_fit_are_errors(build):
    with pytest.raises(ValueError, match=r"`tasks` should be unique\. Repeated: \['a'\]"):
        build(["a", "a"])
    with pytest.raises(ValueError, match="`widths` should have a width for each of the 4 stages"):
        build(TASKS, widths=(8, 16))
    with pytest.raises(ValueError, match="`depth` should be 18 or 34, or the number of blocks of"):
        build(TASKS, depth=50)


def test_mtan_needs_two_blocks_in_a_stage():
    message = "`depth` should give each stage at least two blocks, because attention looks between"
    with pytest.raises(ValueError, match=message):
        tag_keras.mtan_encoder(TASKS, depth=(2, 1), widths=(8, 16))


@pytest.mark.slow
def test_the_adashare_encoder_is_the_resnet_plus_a_policy(tmp_path):
    random.seed(0)
    tasks, sizes = TASKS[:2], {**SMALL, "depth": (1, 1)}
    encoder = tag_keras.adashare_encoder(tasks, **sizes)
    plain = tag_keras.resnet_encoder(tasks, **sizes)
    model = tag_keras.AdaShareModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    search = tag_keras.AdaShareSearch(warm_up=1)
    model.compile("sgd", "mse", search=search, run_eagerly=True)
    model.fit(images(), labels(), batch_size=4, shuffle=False, verbose=0)
    # Two tasks, two blocks, two logits each.
    assert count(encoder.trainable_variables) == count(plain.trainable_variables) + 2 * 2 * 2
    # Before its training, the policy is undecided, and then a block is executed.
    by_path = {variable.path.split("/", 1)[1]: variable for variable in encoder.variables}
    for variable in plain.variables:
        (path,) = [one for one in by_path if one.endswith(variable.path.split("/", 1)[1])]
        variable.assign(by_path[path])
    expected = plain(images())
    for features in encoder(images()).values():
        np.testing.assert_allclose(features, expected, atol=1e-6)
    predictions = model(images())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, again in loaded(images()).items():
        np.testing.assert_array_equal(again, predictions[task])
