"""MTAN: each task looks at a shared ResNet or SegNet through attention modules of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tag_keras.networks.resnet import ConvNorm, ResidualBlock, pooled, resnet_layers
from tag_keras.networks.segnet import (
    check_tasks_and_shape,
    decoder_widths,
    outputs_by_task,
    segnet_blocks,
)
from tag_keras.utils.checks import check, check_count, check_input_shape
from tag_keras.utils.tasks import check_task_names

layers = keras.layers


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskAttention(keras.layers.Layer):  # type: ignore[misc]
    """Attention module of MTAN (Liu, Johns and Davison 2019, arXiv 1803.10704, eq. 1 and 2).

        mask = sigmoid(BN(conv1x1(relu(BN(conv1x1(concat[u, previous]))))))
        output = mask * p

    Here u are the features of a shared block after its first convolution, p its features after the
    last one, and `previous` the features of this task from the block before. Each task has one
    module for each block. The mask is between 0 and 1 for each channel and pixel.

    Args:
        width: Number of channels between the two convolutions. Defaults to the channels of p.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[u, p]` or `[u, p, previous]`: tensors (B, H, W, ...), whose numbers of channels
            may differ.
        training: Whether the model is being trained.

    Returns:
        Tensor with the shape of p.

    Raises:
        ValueError: If there are not two or three inputs, or if their heights or widths differ.

    Example:

    ```python
    u, p = keras.random.normal((8, 16, 16, 64)), keras.random.normal((8, 16, 16, 128))
    seen_by_this_task = TaskAttention()([u, p])  # (8, 16, 16, 128)
    ```
    """

    def __init__(self, width: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = None if width is None else check_count("width", width)

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        check(
            len(input_shape) in (2, 3),
            "The inputs of `TaskAttention` should be [u, p] or [u, p, previous]",
            shapes=input_shape,
        )
        check(
            len({tuple(shape[1:3]) for shape in input_shape}) == 1,
            "The inputs of `TaskAttention` should have the same height and width",
            shapes=input_shape,
        )
        u, p, *previous = input_shape
        channels = p[-1] or 0
        self.first = ConvNorm(
            self.width or channels, 1, use_bias=True, dtype=self.dtype_policy, name="first"
        )
        self.second = ConvNorm(channels, 1, use_bias=True, dtype=self.dtype_policy, name="second")
        shape = (*p[:-1], sum(one[-1] or 0 for one in (u, *previous)))
        self.first.build(shape)
        self.second.build(self.first.compute_output_shape(shape))

    def call(self, inputs: Sequence[tf.Tensor], training: bool | None = None) -> tf.Tensor:
        u, p, *previous = inputs
        x = tf.nn.relu(self.first(tf.concat([u, *previous], axis=-1), training=training))
        return tf.sigmoid(self.second(x, training=training)) * p

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        return input_shape[1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="tag_keras")
class BilinearUpsampling(keras.layers.Layer):  # type: ignore[misc]
    """Bilinear upsampling to twice the size, in which corner pixels stay corner pixels.

    Pixel i of n becomes pixel i * (2n - 1) / (n - 1) of 2n, and the pixels between are
    interpolated. Keras' own upsampling keeps the areas of pixels, and differs at every pixel.

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


def _interpolation(size: int) -> NDArray[np.float64]:
    """Matrix (2 size, size) that interpolates linearly along one axis."""
    places = np.linspace(0, size - 1, 2 * size)
    # A pixel weighs 1 at its own place, and 0 at a distance of 1.
    weights: NDArray[np.float64] = 1 - np.abs(places[:, None] - np.arange(size))
    return weights.clip(min=0)


def mtan_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
) -> keras.Model:
    """MTAN on a ResNet: an attention module for each task and stage (Liu et al. 2019).

    arXiv 1803.10704. At each stage, a task looks at the input of the last block and weighs its
    output, through a `TaskAttention` that is a quarter as wide. A residual block that all tasks
    share leads to the next stage, and a pooling follows the strides of the ResNet.

    Each task makes a pass of its own through parts of the network: a step costs about 7 plain steps
    for nine tasks, and much memory. Take it for a few tasks that look at the same images in
    different ways.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage, at least 2.
        widths: Number of channels of each stage.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of features (B, widths[-1]) by
        task.

    Raises:
        ValueError: If there are more or fewer widths than stages, or if a number is too small.

    Example:

    ```python
    encoder = tag_keras.mtan_encoder(["smiling", "young"], (64, 64, 3), widths=(16, 32, 64, 128))
    heads = {"smiling": keras.layers.Dense(1), "young": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    names = check_task_names(tasks)
    stem, stages = resnet_layers(depth, widths)
    check(
        all(len(stage) > 1 for stage in stages),
        "`depth` should give each stage at least two blocks, because attention looks between them",
        depth=depth,
    )
    images = keras.Input(check_input_shape(input_shape))
    x = layers.ReLU()(stem(images))
    previous: Mapping[str, list[keras.KerasTensor]] = {task: [] for task in names}
    for number, stage in enumerate(stages):
        for block in stage[:-1]:
            x = block(x)
        u, x = x, stage[-1](x)
        width = max(stage[-1].filters // 4, 1)
        seen = {task: TaskAttention(width)([u, x, *previous[task]]) for task in names}
        if number + 1 < len(stages):
            previous = _to_next_stage(seen, widths[number + 1])
    return keras.Model(images, {task: pooled(seen[task]) for task in names}, name="mtan_encoder")


def mtan_segnet(
    tasks: Mapping[str, int],
    input_shape: tuple[int, int, int] = (288, 384, 3),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
) -> keras.Model:
    """MTAN on a SegNet, as in its paper (Liu, Johns and Davison 2019, arXiv 1803.10704).

    Section 3. Each task looks at every block of one SegNet through a `TaskAttention` of its own.
    From one block to the next, the features of all tasks go through the same convolution, and
    through pooling or bilinear upsampling.

    Take it for a few tasks of dense prediction: one value for each pixel.

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
    network = tag_keras.mtan_segnet({"semantic": 13, "depth": 1, "normal": 3})
    model = tag_keras.MultiTaskModel.from_functional(network)
    ```
    """
    check_tasks_and_shape(tasks, input_shape, widths)
    images = keras.Input(input_shape)
    encoder, decoder = segnet_blocks(images, widths)
    previous: dict[str, list[keras.KerasTensor]] = {task: [] for task in tasks}
    pooling = layers.MaxPooling2D(2, data_format="channels_last")
    for block, width in zip(encoder, [*widths[1:], widths[-1]], strict=True):
        seen = {task: TaskAttention()([*block, *previous[task]]) for task in tasks}
        previous = {task: [pooling(x)] for task, x in _same_convolution(seen, width).items()}
    features = {task: x[0] for task, x in previous.items()}
    for block, width in zip(decoder, decoder_widths(widths), strict=True):
        larger = {task: BilinearUpsampling()(x) for task, x in features.items()}
        shared = _same_convolution(larger, width)
        features = {task: TaskAttention()([*block, x]) for task, x in shared.items()}
    return keras.Model(images, outputs_by_task(features, tasks), name="mtan")


def _to_next_stage(
    features: Mapping[str, keras.KerasTensor], width: int
) -> dict[str, list[keras.KerasTensor]]:
    """Takes the features of every task through the same residual block, and pools them."""
    block = ResidualBlock(width)
    pooling = layers.MaxPooling2D(2, padding="same", data_format="channels_last")
    return {task: [pooling(block(x))] for task, x in features.items()}


def _same_convolution(
    features: Mapping[str, keras.KerasTensor], width: int
) -> dict[str, keras.KerasTensor]:
    """Takes the features of every task through the same convolution, normalization and ReLU."""
    convolution = ConvNorm(width, use_bias=True)
    return {task: layers.ReLU()(convolution(x)) for task, x in features.items()}
