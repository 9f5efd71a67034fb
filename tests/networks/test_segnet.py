"""SegNet: pooling with positions, unpooling, and the network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from parameters import count, draw_nothing

import tag_keras
from tag_keras.networks.segnet import MaxPoolingWithPositions, MaxUnpooling


def features(shape=(2, 4, 6, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_pooling_and_unpooling_equal_tensorflows_argmax_and_a_scatter(jit_compile):
    # TensorFlow numbers the places of an example, (row * width + column) * channels + channel.
    x = features()
    maxima, places = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")
    flat = np.zeros((2, 4 * 6 * 3), "float32")
    for example in range(2):
        flat[example, places[example].numpy().ravel()] = maxima[example].numpy().ravel()

    pool, unpool = MaxPoolingWithPositions(), MaxUnpooling()

    @tf.function(jit_compile=jit_compile)
    def both(x):
        pooled, positions = pool(x)
        return pooled, positions, unpool([pooled, positions])

    pooled, positions, unpooled = both(x)
    np.testing.assert_array_equal(pooled, maxima)
    np.testing.assert_array_equal(unpooled, flat.reshape(2, 4, 6, 3))
    assert positions.dtype == "int32"


def test_positions_go_along_the_rows_and_the_first_of_equal_ones_wins():
    x = np.array([[1, 2, 7, 7], [9, 4, 7, 7]], "float32")[None, :, :, None]
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        pooled, positions = MaxPoolingWithPositions()(inputs)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[9, 7]])
    np.testing.assert_array_equal(positions[0, :, :, 0], [[2, 0]])
    # The gradient goes where the value was taken from, and nowhere else.
    gradient = tape.gradient(pooled, inputs)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 0, 1, 0], [1, 0, 0, 0]])


def test_an_infinite_value_does_not_spoil_its_window():
    x = np.array([[-np.inf, 2], [3, 4]], "float32")[None, :, :, None]
    pooled, positions = MaxPoolingWithPositions()(x)
    np.testing.assert_array_equal(pooled, [[[[4]]]])
    np.testing.assert_array_equal(MaxUnpooling()([pooled, positions])[0, :, :, 0], [[0, 0], [0, 4]])


@pytest.mark.parametrize("shape", [(3, 4, 1), (4, 3, 1), (None, 4, 1)])
def test_images_that_cannot_be_halved_are_errors(shape):
    message = "Pooling with positions needs an even height and width, known in advance"
    with pytest.raises(ValueError, match=message):
        MaxPoolingWithPositions()(keras.Input(shape))


SMALL = {"input_shape": (8, 8, 3), "widths": (4, 6)}


# The numbers that the authors of MTAN print for one task each (methods with 13 classes, depth, and
# normals). By hand, with c(i, o) = 9io + o + 2o for a convolution with its bias and normalization:
# the encoder of VGG-16 has 14,723,136, the decoder 10,220,160, and the output layers
# 9 * 64 * 64 + 64 + 64n + n.
@pytest.mark.parametrize(
    ("channels", "parameters"), [(13, 24_981_069), (1, 24_980_289), (3, 24_980_419)]
)
def test_parameters_for_one_task(monkeypatch, channels, parameters):
    draw_nothing(monkeypatch)
    model = tag_keras.segnet({"task": channels}, (32, 32, 3))
    assert count(model) == parameters
    assert 14_723_136 + 10_220_160 + 36_928 + 65 * channels == parameters


def test_tasks_share_all_but_the_output_layers():
    model = tag_keras.segnet({"a": 2, "b": 3}, **SMALL)
    assert {task: one.shape for task, one in model.output.items()} == {
        "a": (None, 8, 8, 2),
        "b": (None, 8, 8, 3),
    }
    alone = tag_keras.segnet({"a": 2}, **SMALL)
    # For b: 3x3 from 4 to 4 channels, and 1x1 from 4 to 3.
    assert count(model) - count(alone) == 9 * 4 * 4 + 4 + 4 * 3 + 3


def test_the_decoder_puts_values_where_the_encoder_found_them():
    # Behind an unpooling, one of four values of each channel differs from 0.
    model = tag_keras.segnet({"a": 1}, **SMALL)
    unpoolings = [one for one in model.layers if type(one).__name__ == "MaxUnpooling"]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for layer in unpoolings:
        values = keras.Model(model.input, layer.output)(x).numpy()
        _, height, width, channels = values.shape
        windows = values.reshape(2, height // 2, 2, width // 2, 2, channels)
        assert (np.count_nonzero(windows, axis=(2, 4)) <= 1).all()
        assert np.count_nonzero(values) > 0
    assert sorted(layer.output.shape[1:] for layer in unpoolings) == [(4, 4, 6), (8, 8, 4)]


def test_outputs_are_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tag_keras.segnet({"a": 1}, **SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output["a"].dtype == "float32"
    assert {one.compute_dtype for one in model.layers if one.weights} == {"float16", "float32"}


@pytest.mark.parametrize("build", [tag_keras.segnet, tag_keras.mtan_segnet])
def test_arguments_that_do_not_fit_are_errors(build):
    message = r"`tasks` should be a dict with the number of channels by task\. Received: tasks="
    with pytest.raises(ValueError, match=message):
        build(["a", "b"])
    with pytest.raises(ValueError, match=r"`tasks` should name at least one task"):
        build({})
    with pytest.raises(ValueError, match=r"`tasks` should be at least 1\. Received: tasks=0"):
        build({"a": 0})
    with pytest.raises(ValueError, match=r"`widths` should be at least 1\. Received: widths=0"):
        build({"a": 1}, widths=(0, 1))
    with pytest.raises(ValueError, match="`widths` should be a list of at least one integer"):
        build({"a": 1}, widths=())
    message = (
        r"The height and width in `input_shape` should be divisible by 32, because the 5 blocks of "
        r"the encoder halve them\. Received: input_shape=\(64, 48, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        build({"a": 1}, (64, 48, 3))
