"""Making feature maps half as large, and twice as large again, as a SegNet does."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tag_keras.checks import check


@keras.saving.register_keras_serializable(package="tag_keras")
class MaxPoolingWithPositions(keras.layers.Layer):  # type: ignore[misc]
    """Max pooling over 2x2 pixels that tells where each maximum was, for `MaxUnpooling`.

    TensorFlow's own operation for this cannot be compiled by XLA; this one can, because windows
    that do not overlap need no scattering.

    Call arguments:
        inputs: Tensor (B, H, W, C) with even H and W.

    Returns:
        Maxima (B, H/2, W/2, C), and an int32 tensor of the same shape: the position of each in its
        window, 0 and 1 in the upper row, 2 and 3 in the lower; of equal ones, the first.

    Raises:
        ValueError: If the height or the width is odd or unknown.
    """

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, height, width, channels = inputs.shape
        check(
            bool(height and width) and height % 2 == 0 and width % 2 == 0,
            "Pooling with positions needs an even height and width, known in advance",
            shape=tuple(inputs.shape),
        )
        windows = tf.reshape(inputs, [-1, height // 2, 2, width // 2, 2, channels])
        windows = tf.transpose(windows, [0, 1, 3, 2, 4, 5])
        windows = tf.reshape(windows, [-1, height // 2, width // 2, 4, channels])
        positions = tf.argmax(windows, axis=3, output_type="int32")
        # Chosen, not the maximum: its gradient would be spread over equal values.
        maxima = tf.reduce_sum(_where_chosen(windows, positions), axis=3)
        return maxima, positions


@keras.saving.register_keras_serializable(package="tag_keras")
class MaxUnpooling(keras.layers.Layer):  # type: ignore[misc]
    """Puts values where the maxima of a pooling were, and 0 elsewhere (SegNet).

    Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561, section 3.

    Call arguments:
        inputs: Values (B, h, w, C) and positions of the same shape, as they come from
            `MaxPoolingWithPositions`.

    Returns:
        Tensor (B, 2h, 2w, C).
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        values, positions = inputs
        _, height, width, channels = values.shape
        windows = _where_chosen(tf.repeat(values[:, :, :, None], 4, axis=3), positions)
        windows = tf.reshape(windows, [-1, height, width, 2, 2, channels])
        windows = tf.transpose(windows, [0, 1, 3, 2, 4, 5])
        return tf.reshape(windows, [-1, 2 * height, 2 * width, channels])


@keras.saving.register_keras_serializable(package="tag_keras")
class BilinearUpsampling(keras.layers.Layer):  # type: ignore[misc]
    """Makes feature maps twice as large, with the corner pixels staying corner pixels.

    Pixel i of n becomes pixel i * (2n - 1) / (n - 1) of 2n, and what is between is interpolated.
    Keras' own upsampling keeps the areas of the pixels instead, and differs at every pixel.

    Call arguments:
        inputs: Tensor (B, h, w, C), with h and w known in advance.

    Returns:
        Tensor (B, 2h, 2w, C).
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        _, height, width, _ = inputs.shape
        rows = tf.constant(_interpolation(height), inputs.dtype)
        columns = tf.constant(_interpolation(width), inputs.dtype)
        return tf.einsum("ih,jw,bhwc->bijc", rows, columns, inputs)


def _where_chosen(windows: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """The values (..., 4, C) at the positions (..., C), and 0 elsewhere."""
    chosen = tf.range(4)[:, None] == positions[:, :, :, None]
    return tf.where(chosen, windows, tf.zeros_like(windows))


def _interpolation(size: int) -> NDArray[np.float64]:
    """Matrix (2 size, size) that interpolates linearly along one axis."""
    places = np.linspace(0, size - 1, 2 * size)
    # A pixel weighs 1 at its own place, and 0 at a distance of 1.
    weights: NDArray[np.float64] = 1 - np.abs(places[:, None] - np.arange(size))
    return weights.clip(min=0)
