import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.networks.mtan import BilinearUpsampling
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
    x = features((2, 3, 5, 4))
    layer = BilinearUpsampling()
    ours = tf.function(layer, jit_compile=jit_compile)(x)
    theirs = tf.raw_ops.ResizeBilinear(images=x, size=[6, 10], align_corners=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_keras_own_upsampling_is_another():
    x = features((1, 3, 3, 1))
    theirs = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    assert np.abs(BilinearUpsampling()(x) - theirs).max() > 0.1


@pytest.mark.parametrize("shape", [(3, 4, 1), (4, 3, 1), (None, 4, 1)])
def test_images_that_cannot_be_halved_are_errors(shape):
    message = "Pooling with positions needs an even height and width, known in advance"
    with pytest.raises(ValueError, match=message):
        MaxPoolingWithPositions()(keras.Input(shape))
