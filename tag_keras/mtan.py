"""MTAN with the network of its paper: SegNet and attention at every block."""

from collections.abc import Mapping, Sequence

import keras

from tag_keras.resnet import ConvNorm
from tag_keras.segnet_network import (
    Block,
    check_tasks_and_shape,
    decoder_widths,
    outputs_by_task,
    segnet_blocks,
)
from tag_keras.task_attention import TaskAttention
from tag_keras.unpooling import BilinearUpsampling

layers = keras.layers


def mtan_segnet(
    tasks: Mapping[str, int],
    input_shape: tuple[int, int, int] = (288, 384, 3),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
) -> keras.Model:
    """Multi-Task Attention Network on a SegNet (MTAN; Liu, Johns and Davison 2019).

    arXiv 1803.10704, section 3. One SegNet is shared. Each task looks at every block of it through
    a `TaskAttention` of its own. What leads from one of these to the next is shared by all tasks:
    a convolution, and pooling or bilinear upsampling.

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
    network = tag_keras.mtan_segnet({"semantic": 13, "depth": 1, "normal": 3})
    model = tag_keras.MultiTaskModel.from_functional(network)
    ```
    """
    check_tasks_and_shape(tasks, input_shape, widths)
    images = keras.Input(input_shape)
    encoder, decoder = segnet_blocks(images, widths)
    features = _attend_encoder(encoder, list(tasks), [*widths[1:], widths[-1]])
    features = _attend_decoder(decoder, features, decoder_widths(widths))
    return keras.Model(images, outputs_by_task(features, tasks), name="mtan")


def _attend_encoder(
    blocks: Sequence[Block], tasks: Sequence[str], widths: Sequence[int]
) -> dict[str, keras.KerasTensor]:
    """What each task makes of the encoder; `widths` are those of the next block."""
    previous: dict[str, list[keras.KerasTensor]] = {task: [] for task in tasks}
    pooling = layers.MaxPooling2D(2, data_format="channels_last")
    for block, width in zip(blocks, widths, strict=True):
        seen = {task: TaskAttention()([*block, *previous[task]]) for task in tasks}
        shared = _same_convolution(seen, width)
        previous = {task: [pooling(shared[task])] for task in tasks}
    return {task: previous[task][0] for task in tasks}


def _attend_decoder(
    blocks: Sequence[Block], features: Mapping[str, keras.KerasTensor], widths: Sequence[int]
) -> dict[str, keras.KerasTensor]:
    """What each task makes of the decoder, after what it made of the encoder."""
    for block, width in zip(blocks, widths, strict=True):
        larger = {task: BilinearUpsampling()(x) for task, x in features.items()}
        shared = _same_convolution(larger, width)
        features = {task: TaskAttention()([*block, x]) for task, x in shared.items()}
    return dict(features)


def _same_convolution(
    features: Mapping[str, keras.KerasTensor], width: int
) -> dict[str, keras.KerasTensor]:
    """One convolution with batch normalization and ReLU, on the features of every task."""
    convolution = ConvNorm(width, use_bias=True)
    return {task: layers.ReLU()(convolution(x)) for task, x in features.items()}
