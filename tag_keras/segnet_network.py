"""SegNet, the network of the dense predictions of MTAN."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras

from tag_keras.checks import check, check_count, check_counts, check_input_shape
from tag_keras.resnet import ConvNorm
from tag_keras.tasks import check_task_names
from tag_keras.unpooling import MaxPoolingWithPositions, MaxUnpooling

layers = keras.layers


class Block(NamedTuple):
    """Features of one block of a SegNet, as symbolic tensors.

    Args:
        first: In the encoder, those after the first convolution; in the decoder, those before it.
        last: Those after the last convolution.
    """

    first: keras.KerasTensor
    last: keras.KerasTensor


def segnet(
    tasks: Mapping[str, int],
    input_shape: tuple[int, int, int] = (288, 384, 3),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
) -> keras.Model:
    """SegNet with an output layer per task: hard sharing, and one task alone.

    Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561; the output layers are those of MTAN
    (Liu, Johns and Davison 2019, arXiv 1803.10704).

    Args:
        tasks: Number of channels of the output, by task.
        input_shape: Height, width and channels of the images. The first two have to be divisible
            by 2 once for each width.
        widths: Number of channels of each block of the encoder.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of linear outputs (B, H, W, n)
        by task. Log-softmax, or a unit length, belongs into the loss, or into a layer behind it.

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
    """Checks the arguments of `segnet`.

    Raises:
        ValueError: If they do not fit each other.
    """
    valid = isinstance(tasks, Mapping)
    check(valid, "`tasks` should be a dict with the number of channels by task", tasks=tasks)
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
    """The blocks of the encoder and of the decoder, which have new layers.

    The encoder is that of VGG-16: two convolutions in each of the first two blocks, then three.
    """
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
    """Number of channels of each block of the decoder: those of the block of the encoder below."""
    return [*reversed(widths[:-1]), widths[0]]


def outputs_by_task(
    features: Mapping[str, keras.KerasTensor], tasks: Mapping[str, int]
) -> dict[str, keras.KerasTensor]:
    """Two convolutions per task, the second 1x1, without anything between or behind."""
    outputs = {}
    for task, channels in tasks.items():
        x = features[task]
        x = layers.Conv2D(x.shape[-1], 3, padding="same", data_format="channels_last")(x)
        # In float32 under mixed precision, as Keras advises for what a loss is computed from.
        last = layers.Conv2D(channels, 1, data_format="channels_last", dtype="float32")
        outputs[task] = last(x)
    return outputs


def _convolutions(x: keras.KerasTensor, filters: int, count: int) -> keras.KerasTensor:
    """3x3 convolutions with batch normalization, and ReLU."""
    for _ in range(count):
        x = layers.ReLU()(ConvNorm(filters, use_bias=True)(x))
    return x
