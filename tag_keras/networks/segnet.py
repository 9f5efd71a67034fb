"""SegNet: an encoder and a decoder for dense predictions, with the output layers of MTAN."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from tag_keras.networks.resnet import ConvNorm
from tag_keras.utils.checks import check, check_count, check_counts, check_input_shape
from tag_keras.utils.tasks import check_task_names

layers = keras.layers


@keras.saving.register_keras_serializable(package="tag_keras")
class MaxPoolingWithPositions(keras.layers.Layer):  # type: ignore[misc]
    """Max pooling over 2x2 pixels that also gives the position of each maximum.

    XLA can compile this layer, but not TensorFlow's own operation: windows that do not overlap need
    no scattering.

    Call arguments:
        inputs: Tensor (B, H, W, C) with even H and W.

    Returns:
        Maxima (B, H/2, W/2, C), and an int32 tensor of the same shape: the position of each maximum
        in its window, 0 and 1 in the upper row, 2 and 3 in the lower. Of equal values, the first.

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
        # Not `reduce_max`, which would spread the gradient over equal values.
        maxima = tf.reduce_sum(_where_chosen(windows, positions), axis=3)
        return maxima, positions


@keras.saving.register_keras_serializable(package="tag_keras")
class MaxUnpooling(keras.layers.Layer):  # type: ignore[misc]
    """Unpooling of SegNet: puts values where a pooling had its maxima, and 0 elsewhere.

    Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561, section 3.

    Call arguments:
        inputs: Values, and the positions of `MaxPoolingWithPositions`, both (B, h, w, C).

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


def _where_chosen(windows: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """The values (..., 4, C) at the positions (..., C), and 0 elsewhere."""
    chosen = tf.range(4)[:, None] == positions[:, :, :, None]
    return tf.where(chosen, windows, tf.zeros_like(windows))


class Block(NamedTuple):
    """Features of one block of a SegNet, as symbolic tensors."""

    # After the first convolution in the encoder, before it in the decoder.
    first: keras.KerasTensor
    # After the last convolution.
    last: keras.KerasTensor


def segnet(
    tasks: Mapping[str, int],
    input_shape: tuple[int, int, int] = (288, 384, 3),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
) -> keras.Model:
    """SegNet with output layers for each task: hard sharing, or the network of one task.

    Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561, with the output layers of MTAN (Liu,
    Johns and Davison 2019, arXiv 1803.10704).

    Take it for tasks of dense prediction, one value for each pixel, and as the yardstick of
    `mtan_segnet`.

    Args:
        tasks: Number n of channels of the output, by task.
        input_shape: Height and width of the images, divisible by 2 ** len(widths), and channels.
        widths: Number of channels of each block of the encoder.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of linear outputs (B, H, W, n)
        by task. Put a log-softmax, or a scaling to unit length, in the loss or in a further layer.

    Raises:
        ValueError: If there is no task, or if the images cannot be halved as often as needed.

    Example:

    ```python
    network = tag_keras.segnet({"semantic": 13, "depth": 1, "normal": 3})
    model = tag_keras.MultiTaskModel.from_functional(network)
    ```
    """
    check_tasks_and_shape(tasks, input_shape, widths)
    images = keras.Input(input_shape)
    _, decoder = segnet_blocks(images, widths)
    features = dict.fromkeys(tasks, decoder[-1].last)
    return keras.Model(images, outputs_by_task(features, tasks), name="segnet")


def check_tasks_and_shape(
    tasks: Mapping[str, int], input_shape: tuple[int, int, int], widths: Sequence[int]
) -> None:
    """Raises a `ValueError` if `segnet` and `mtan_segnet` cannot take these arguments."""
    check(
        isinstance(tasks, Mapping),
        "`tasks` should be a dict with the number of channels by task",
        tasks=tasks,
    )
    check_task_names(list(tasks))
    for channels in tasks.values():
        check_count("tasks", channels)
    check_counts("widths", widths)
    check_input_shape(input_shape)
    factor = 2 ** len(widths)
    check(
        all(size and size % factor == 0 for size in input_shape[:2]),
        f"The height and width in `input_shape` should be divisible by {factor}, because the "
        f"{len(widths)} blocks of the encoder halve them",
        input_shape=input_shape,
    )


def segnet_blocks(
    images: keras.KerasTensor, widths: Sequence[int]
) -> tuple[list[Block], list[Block]]:
    """The blocks of a new encoder, VGG-16 without its dense layers, and of a new decoder."""
    # The first two blocks have two convolutions each, the others three.
    counts = [2 if block < 2 else 3 for block in range(len(widths))]
    encoder, decoder, positions = [], [], []
    x = images
    for width, count in zip(widths, counts, strict=True):
        first = _convolutions(x, width, 1)
        last = _convolutions(first, width, count - 1)
        x, where = MaxPoolingWithPositions()(last)
        encoder.append(Block(first, last))
        positions.append(where)
    for where, width, count in zip(
        reversed(positions), decoder_widths(widths), reversed(counts), strict=True
    ):
        unpooled = MaxUnpooling()([x, where])
        x = _convolutions(unpooled, width, count)
        decoder.append(Block(unpooled, x))
    return encoder, decoder


def decoder_widths(widths: Sequence[int]) -> list[int]:
    """Channels of each block of the decoder: as many as one block further out in the encoder."""
    return [*reversed(widths[:-1]), widths[0]]


def outputs_by_task(
    features: Mapping[str, keras.KerasTensor], tasks: Mapping[str, int]
) -> dict[str, keras.KerasTensor]:
    """Output layers of each task: a 3x3 and a 1x1 convolution, both linear."""
    outputs = {}
    for task, channels in tasks.items():
        x = features[task]
        x = layers.Conv2D(x.shape[-1], 3, padding="same", data_format="channels_last")(x)
        # In float32 under mixed precision, as Keras advises for the inputs of a loss.
        last = layers.Conv2D(channels, 1, data_format="channels_last", dtype="float32")
        outputs[task] = last(x)
    return outputs


def _convolutions(x: keras.KerasTensor, filters: int, count: int) -> keras.KerasTensor:
    """3x3 convolutions with batch normalization, and ReLU."""
    for _ in range(count):
        x = layers.ReLU()(ConvNorm(filters, use_bias=True)(x))
    return x
