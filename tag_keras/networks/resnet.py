"""A ResNet for small images: the blocks that the other networks share, and hard sharing."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tag_keras.utils.checks import check, check_count, check_counts, check_input_shape, is_whole
from tag_keras.utils.tasks import check_task_names

layers = keras.layers

# Number of blocks by stage (He et al. 2016, arXiv 1512.03385, table 1).
_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@keras.saving.register_keras_serializable(package="tag_keras")
class ConvNorm(keras.layers.Layer):  # type: ignore[misc]
    """A convolution with the padding "same", and batch normalization as in the papers' code.

    Args:
        filters: Number of channels of the output.
        kernel_size: Height and width of the kernel.
        strides: Stride in both directions.
        use_bias: Whether the convolution has a bias, although the normalization removes it.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = check_count("filters", filters)
        self.kernel_size = check_count("kernel_size", kernel_size)
        self.strides = check_count("strides", strides)
        self.use_bias = use_bias
        # With these names the variables have the same paths in a loaded model.
        self.convolution = keras.layers.Conv2D(
            self.filters,
            self.kernel_size,
            self.strides,
            padding="same",
            data_format="channels_last",
            use_bias=use_bias,
            kernel_initializer="he_normal",
            dtype=self.dtype_policy,
            name=f"{self.name}_convolution",
        )
        self.normalization = keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype_policy,
            name=f"{self.name}_normalization",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.normalization(self.convolution(inputs), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape: tuple[int | None, ...] = self.convolution.compute_output_shape(input_shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "kernel_size", "strides", "use_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="tag_keras")
class ResidualBlock(keras.layers.Layer):  # type: ignore[misc]
    """The basic block of a ResNet (He et al. 2016, arXiv 1512.03385, section 3.3).

        relu(shortcut(x) + residual(x))

    The residual is two 3x3 convolutions with batch normalization, and a ReLU between them. The
    shortcut is the input itself, or a 1x1 convolution with batch normalization if the stride is
    not 1 or the width changes.

    Args:
        filters: Number of channels of the output.
        strides: Stride of the first convolution and of the shortcut.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    features = ResidualBlock(128, strides=2)(keras.random.normal((8, 32, 32, 64)))
    features.shape  # (8, 16, 16, 128)
    ```
    """

    def __init__(self, filters: int, strides: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = check_count("filters", filters)
        self.strides = check_count("strides", strides)
        self.first = self._part("first", 3, self.strides)
        self.second = self._part("second", 3)
        # Made by `build`, which knows the width of the input, if the block needs one.
        self.projection: ConvNorm | None = None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.first.build(input_shape)
        self.second.build(self.first.compute_output_shape(input_shape))
        if self.strides != 1 or input_shape[-1] != self.filters:
            self.projection = self._part("projection", 1, self.strides)
            self.projection.build(input_shape)

    def _part(self, name: str, kernel_size: int, strides: int = 1) -> ConvNorm:
        name = f"{self.name}_{name}"
        return ConvNorm(self.filters, kernel_size, strides, dtype=self.dtype_policy, name=name)

    def shortcut(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The shortcut: the input, or a projection of it if the shape changes.

        Args:
            inputs: Tensor (B, H, W, C).
            training: Whether the model is being trained.
        """
        self._build_for(inputs)
        return inputs if self.projection is None else self.projection(inputs, training=training)

    def residual(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The residual, which is added to the shortcut before the last ReLU.

        Args:
            inputs: Tensor (B, H, W, C).
            training: Whether the model is being trained.
        """
        self._build_for(inputs)
        return self.second(keras.ops.relu(self.first(inputs, training=training)), training=training)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return keras.ops.relu(self.shortcut(inputs, training) + self.residual(inputs, training))

    def _build_for(self, inputs: tf.Tensor) -> None:
        # Other layers call the two parts alone.
        if not self.built:
            self.build(tuple(inputs.shape))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.second.compute_output_shape(self.first.compute_output_shape(input_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


class ResNetLayers(NamedTuple):
    """The layers of a ResNet, to be called one after the other."""

    # The first convolution, to be followed by a ReLU.
    stem: ConvNorm
    # The blocks of each stage. From the second stage on, the first block has stride 2.
    stages: list[list[ResidualBlock]]

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The blocks of all stages."""
        return list(itertools.chain.from_iterable(self.stages))


def resnet_layers(
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    block: Callable[..., Any] = ResidualBlock,
) -> ResNetLayers:
    """The layers of a ResNet for small images (He et al. 2016, arXiv 1512.03385).

    The stem is a 3x3 convolution of stride 1, and no pooling precedes the blocks.

    Args:
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        block: Makes a block from its `filters`, `strides` and `name`.

    Raises:
        ValueError: If there are more or fewer widths than stages, or if a number is not positive.
    """
    stages = _STAGES.get(depth) if is_whole(depth) else depth
    check(
        isinstance(stages, list | tuple | np.ndarray) and len(stages) > 0,
        "`depth` should be 18 or 34, or the number of blocks of each stage",
        depth=depth,
    )
    counts, channels = check_counts("depth", stages), check_counts("widths", widths)
    check(
        len(channels) == len(counts),
        f"`widths` should have a width for each of the {len(counts)} stages",
        widths=widths,
        depth=depth,
    )
    stem = ConvNorm(channels[0], name="stem")
    made: list[list[Any]] = []
    for stage, (width, count) in enumerate(zip(channels, counts, strict=True), 1):
        first = block(filters=width, strides=1 if stage == 1 else 2, name=f"stage{stage}_block1")
        names = [f"stage{stage}_block{number}" for number in range(2, count + 1)]
        made.append([first, *(block(filters=width, strides=1, name=name) for name in names)])
    return ResNetLayers(stem, made)


def pooled(features: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over the pixels, (B, C), in float32, because in float16 the sum may overflow."""
    pooling = keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32")
    return pooling(features)


def resnet_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
) -> keras.Model:
    """Hard sharing: one ResNet for small images (He et al. 2016, arXiv 1512.03385) for all tasks.

    Take it by default for images, and as the yardstick of the other encoders, which have the same
    blocks and arguments.

    Args:
        tasks: Task names, which are checked and make no difference to the network.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.

    Returns:
        Functional model from images (B, H, W, channels) to features (B, widths[-1]).

    Raises:
        ValueError: If there are more or fewer widths than stages, or if a number is not positive.

    Example:

    ```python
    encoder = tag_keras.resnet_encoder(["smiling", "young"], (64, 64, 3), widths=(16, 32, 64, 128))
    heads = {"smiling": keras.layers.Dense(1), "young": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    check_task_names(tasks)
    resnet = resnet_layers(depth, widths)
    images = keras.Input(check_input_shape(input_shape))
    x = layers.ReLU()(resnet.stem(images))
    for block in resnet.blocks:
        x = block(x)
    return keras.Model(images, pooled(x), name="resnet_encoder")


def resnet_parts(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
) -> tuple[keras.Model, list[Callable[[], keras.Model]]]:
    """The stem of `resnet_encoder`, and by stage a function that builds it.

    Encoders of experts or cross-stitched parts take these. The last stage ends in the pooling.

    Raises:
        ValueError: If there are more or fewer widths than stages, or if a number is not positive.
    """

    def build_stage(number: int) -> keras.Model:
        stages = resnet_layers(depth, widths).stages
        pooling = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32")
        is_last = number == len(stages) - 1
        return keras.Sequential([*stages[number], *([pooling] if is_last else [])])

    resnet = resnet_layers(depth, widths)
    images = keras.Input(check_input_shape(input_shape))
    stem = keras.Model(images, layers.ReLU()(resnet.stem(images)), name="stem")
    return stem, [functools.partial(build_stage, number) for number in range(len(resnet.stages))]
