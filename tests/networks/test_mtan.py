"""MTAN: its attention module, its upsampling, and its network on a SegNet."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import count, draw_nothing

import tag_keras
from tag_keras.networks.mtan import BilinearUpsampling
from tag_keras.networks.resnet import ConvNorm


def features(channels, seed=0, size=(2, 4, 4)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*size, channels)).astype("float32")


# Two 1x1 convolutions with biases, from i to m to o channels, and two batch normalizations:
# i*m + m + 2m + m*o + o + 2o. With (256, 128, 128), 49,920 (MTAN's SegNet, second block).
@pytest.mark.parametrize(
    ("inputs", "width", "parameters"),
    [
        ([128, 128, 128], None, 49_920),
        ([256, 128], None, 49_920),
        ([64, 64], None, 8_576),
        ([64, 128], 32, 64 * 32 + 3 * 32 + 32 * 128 + 3 * 128),
    ],
)
def test_parameters_of_a_module(inputs, width, parameters):
    layer = tag_keras.TaskAttention(width)
    output = layer([features(channels) for channels in inputs])
    assert output.shape == (2, 4, 4, inputs[1])
    assert count(layer) == parameters


def test_a_mask_that_does_not_look_at_anything():
    # MTAN, eq. 2: a second normalization with gamma = 0 and beta = b gives sigmoid(b) * p.
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention()
    layer([u, p, previous])
    beta = np.array([-2.0, 0.0, 1.0], "float32")
    layer.second.normalization.gamma.assign(np.zeros(3))
    layer.second.normalization.beta.assign(beta)
    for training in (False, True):
        np.testing.assert_allclose(
            layer([u, p, previous], training=training), p / (1 + np.exp(-beta)), rtol=1e-6
        )


def test_the_mask_is_between_0_and_1_and_differs_by_channel_and_pixel():
    u, p = 3 * features(5), np.ones((2, 4, 4, 3), "float32")
    # Wide, so that no ReLU leaves a pixel with nothing.
    mask = np.array(tag_keras.TaskAttention(32)([u, p], training=True))
    assert (mask > 0).all()
    assert (mask < 1).all()
    assert len(np.unique(mask)) == mask.size


def test_the_mask_does_not_look_at_p():
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention()
    output = np.array(layer([u, p, previous]))
    np.testing.assert_allclose(layer([u, 2 * p, previous]), 2 * output, rtol=1e-6)
    np.testing.assert_array_equal(layer([u, 0 * p, previous]), 0 * p)
    for others in ([u + 1, p, previous], [u, p, previous + 1]):
        assert np.abs(layer(others) - output).max() > 1e-4


def test_the_mask_equals_its_formula():
    # With 1x1 convolutions, each pixel is a matrix product; with its initial statistics, 0 and 1,
    # a normalization divides by sqrt(1 + 1e-5).
    u, p, previous = features(5, 0), features(3, 1), features(4, 2)
    layer = tag_keras.TaskAttention(width=2)
    output = layer([u, p, previous])
    first, second = (one.convolution.kernel.numpy()[0, 0] for one in (layer.first, layer.second))
    hidden = np.maximum(np.concatenate([u, previous], -1) @ first / np.sqrt(1 + 1e-5), 0)
    expected = p / (1 + np.exp(-hidden @ second / np.sqrt(1 + 1e-5)))
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-6)


def test_attention_is_saved_and_loaded(tmp_path):
    inputs = [keras.Input((4, 4, channels)) for channels in (5, 3, 4)]
    model = keras.Model(inputs, tag_keras.TaskAttention(2)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = [features(5, 0), features(3, 1), features(4, 2)]
    np.testing.assert_array_equal(model(x), loaded(x))


def test_inputs_of_a_module_that_do_not_fit_are_errors():
    u = features(5)
    message = r"The inputs of `TaskAttention` should be \[u, p\] or \[u, p, previous\]"
    with pytest.raises(ValueError, match=message):
        tag_keras.TaskAttention()([u])
    with pytest.raises(ValueError, match="should have the same height and width"):
        tag_keras.TaskAttention()([u, features(3, size=(2, 4, 2))])
    with pytest.raises(ValueError, match=r"`width` should be at least 1\. Received: width=0"):
        tag_keras.TaskAttention(0)


def test_upsampling_keeps_the_corners():
    # Two pixels, 0 and 3, become four at equal distances: 0, 1, 2, 3. In the other direction, one
    # pixel is repeated.
    x = np.array([0, 3], "float32").reshape(1, 1, 2, 1)
    np.testing.assert_allclose(BilinearUpsampling()(x)[0, :, :, 0], [[0, 1, 2, 3]] * 2, atol=1e-6)
    x = np.array([[0, 3], [30, 33]], "float32").reshape(1, 2, 2, 1)
    expected = np.add.outer([0, 10, 20, 30], [0, 1, 2, 3])
    np.testing.assert_allclose(BilinearUpsampling()(x)[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_upsampling_equals_tensorflows_with_aligned_corners(jit_compile):
    x = features(4, size=(2, 3, 5))
    layer = BilinearUpsampling()
    ours = tf.function(layer, jit_compile=jit_compile)(x)
    theirs = tf.raw_ops.ResizeBilinear(images=x, size=[6, 10], align_corners=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_keras_own_upsampling_is_another():
    x = features(1, size=(1, 3, 3))
    theirs = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    assert np.abs(BilinearUpsampling()(x) - theirs).max() > 0.1


TASKS = {"b": 2, "a": 1}
SMALL = {"input_shape": (8, 8, 3), "widths": (4, 6)}


def images(size=4, seed=0):
    return np.random.default_rng(seed).normal(size=(size, 8, 8, 3)).astype("float32")


def of_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def network():
    random.seed(0)
    return tag_keras.mtan_segnet(TASKS, **SMALL)


def gradients_by_task(model):
    """For each task, the gradients of its outputs, by the id of the variable."""
    variables = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(images(), training=True)
        losses = {task: tf.reduce_mean(tf.square(one)) for task, one in outputs.items()}
    return {
        task: {
            id(variable): gradient
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True)
        }
        for task, loss in losses.items()
    }


@pytest.mark.slow
def test_parameters_of_three_tasks(monkeypatch):
    draw_nothing(monkeypatch)
    # Liu, Johns and Davison 2019, the authors' count for 13 classes, depth and normals:
    # 44,229,076 with three weights of uncertainties, which are no part of the network. That is
    # 1.77 times the network of one task.
    model = tag_keras.mtan_segnet({"semantic": 13, "depth": 1, "normal": 3}, (32, 32, 3))
    assert count(model) == 44_229_076 - 3
    assert {task: one.shape for task, one in model.output.items()} == {
        "semantic": (None, 32, 32, 13),
        "depth": (None, 32, 32, 1),
        "normal": (None, 32, 32, 3),
    }


@pytest.mark.slow
def test_masks_and_output_layers_belong_to_one_task_and_the_rest_to_all(network):
    gradients = gradients_by_task(network)
    attention = of_kind(network, tag_keras.TaskAttention)
    outputs = of_kind(network, keras.layers.Conv2D)
    # For each task: one module by block of the encoder and of the decoder, and two output layers.
    assert (len(attention), len(outputs)) == (2 * 4, 2 * 2)
    owners = []
    for layer in attention + outputs:
        reached = [
            {gradients[task][id(variable)] is not None for variable in layer.trainable_variables}
            for task in TASKS
        ]
        assert all(len(one) == 1 for one in reached)
        (first,), (second,) = reached
        assert first != second
        owners.append("b" if first else "a")
    assert owners.count("a") == owners.count("b") == 4 + 2

    # In the SegNet, 2 + 2 convolutions each way; 2 + 2 that lead from block to block.
    shared = of_kind(network, ConvNorm)
    assert len(shared) == 8 + 4
    for layer in shared:
        for task in TASKS:
            assert np.abs(gradients[task][id(layer.convolution.kernel)]).max() > 0


def test_what_the_modules_look_at():
    # Numbers of convolutions before u, before p, and on the way of the task. Two blocks of two each
    # way: u follows the first of a block of the encoder, and precedes those of the decoder, where
    # it is what the unpooling gives; p follows the last.
    model = tag_keras.mtan_segnet({"a": 1}, **SMALL)
    attention = of_kind(model, tag_keras.TaskAttention)
    before = [
        [len(of_kind(keras.Model(model.input, one), ConvNorm)) for one in layer.input]
        for layer in attention
    ]
    # What the task made of the block before has come through p of that block, and one more.
    assert before == [[1, 2], [3, 4, 2 + 1], [4, 6, 4 + 2 + 1], [6, 8, 6 + 3 + 1]]
    modules = [
        [
            len(of_kind(keras.Model(model.input, one), tag_keras.TaskAttention))
            for one in layer.input
        ]
        for layer in attention
    ]
    assert modules == [[0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_masks_of_one_give_what_the_segnet_gives():
    # With masks that are 1 the last features of a task are those of the decoder.
    model = tag_keras.mtan_segnet({"a": 1}, **SMALL)
    attention = of_kind(model, tag_keras.TaskAttention)
    for layer in attention:
        layer.second.normalization.gamma.assign(0 * layer.second.normalization.gamma)
        layer.second.normalization.beta.assign(100 + 0 * layer.second.normalization.beta)
    # Of one task, so the last module is that of the last block.
    last = attention[-1]
    trunk = keras.Model(model.input, last.input[1])
    twin = tag_keras.segnet({"a": 1}, **SMALL)
    twin_convolutions = of_kind(twin, ConvNorm)
    convolutions = of_kind(trunk, ConvNorm)
    assert len(convolutions) == len(twin_convolutions) == 8
    for one, other in zip(convolutions, twin_convolutions, strict=True):
        other.set_weights(one.get_weights())
    for one, other in zip(
        of_kind(model, keras.layers.Conv2D), of_kind(twin, keras.layers.Conv2D), strict=True
    ):
        other.set_weights(one.get_weights())
    x = images()
    np.testing.assert_allclose(model(x)["a"], twin(x)["a"], rtol=1e-4, atol=1e-6)


def test_it_trains_as_a_multi_task_model_and_is_saved(network, tmp_path):
    model = tag_keras.MultiTaskModel.from_functional(network)
    names = {variable.path for variable in model.shared_variables}
    # All of the shared convolutions: a kernel, a bias, gamma and beta each.
    assert len(names) == 4 * 12
    model.compile("sgd", "mse", run_eagerly=True)
    x, labels = images(), {"a": np.zeros((4, 8, 8, 1)), "b": np.zeros((4, 8, 8, 2))}
    before = [variable.numpy() for variable in model.shared_variables]
    model.fit(x, labels, batch_size=4, shuffle=False, verbose=0)
    assert all(
        (v.numpy() != was).any() for v, was in zip(model.shared_variables, before, strict=True)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded(x)
    for task, prediction in model(x).items():
        np.testing.assert_array_equal(again[task], prediction)
