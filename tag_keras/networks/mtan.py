"""MTAN with the network of its paper: SegNet and attention at every block."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.networks.resnet import ConvNorm, ResidualBlock, pooled, resnet_layers
from tag_keras.networks.segnet import (
    BilinearUpsampling,
    Block,
    check_tasks_and_shape,
    decoder_widths,
    outputs_by_task,
    segnet_blocks,
)
from tag_keras.utils.checks import check, check_count, check_input_shape
from tag_keras.utils.tasks import check_task_names


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskAttention(keras.layers.Layer):  # type: ignore[misc]
    """Attention module of MTAN (Liu, Johns and Davison 2019, arXiv 1803.10704, eq. 1 and 2).

        mask = sigmoid(BN(conv1x1(relu(BN(conv1x1(concat[u, previous]))))))
        output = mask * p

    Here u are the features of a shared block after its first convolution, p those after its last,
    and `previous` is what this task made of the block before. Each task has a module of its own
    for each block. The mask is between 0 and 1 for each channel and each pixel.

    Args:
        width: Number of channels between the two convolutions; by default those of p.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[u, p]`, or `[u, p, previous]`: tensors (B, H, W, ...), whose numbers of channels
            may differ.
        training: As in Keras.

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
        channels = input_shape[1][-1] or 0
        self.first = ConvNorm(
            self.width or channels, 1, use_bias=True, dtype=self.dtype_policy, name="first"
        )
        self.second = ConvNorm(channels, 1, use_bias=True, dtype=self.dtype_policy, name="second")
        seen = sum(shape[-1] or 0 for i, shape in enumerate(input_shape) if i != 1)
        shape = (*input_shape[1][:-1], seen)
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


def mtan_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
) -> keras.Model:
    """A ResNet with an attention module per task and stage (MTAN; Liu et al. 2019).

    arXiv 1803.10704. At each stage, a task sees the input of the last block and weighs its output,
    through a `TaskAttention` a quarter as wide. A residual block that all tasks share leads to the
    next stage, where pooling keeps pace with the strides of the ResNet.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage, at least 2.
        widths: Number of channels of each stage.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of features (B, widths[-1]) by
        task.

    Raises:
        ValueError: If there are not as many widths as stages, or if a number is too small.

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


def _to_next_stage(
    features: Mapping[str, keras.KerasTensor], width: int
) -> dict[str, list[keras.KerasTensor]]:
    """One residual block for the features of every task, each of which is then pooled."""
    block = ResidualBlock(width)
    pooling = layers.MaxPooling2D(2, padding="same", data_format="channels_last")
    return {task: [pooling(block(x))] for task, x in features.items()}


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
