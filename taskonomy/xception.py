"""Xception as Standley et al. 2020 (arXiv 1905.07553) made it for dense predictions.

From tstandley/taskgrouping, model_definitions/xception_taskonomy_new.py, with TAG's changes.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.utils.checks import check
from taskonomy.published import WIDTHS

layers = keras.layers

# Channels of the four steps of a decoder: TAG's, and those of Standley's current code.
DECODERS = {"small": (128, 64, 48, 32), "large": (256, 128, 96, 64)}
FEATURES = 512
# The encoder makes images smaller by this factor, and the decoders make them as large again.
FACTOR = 16
_NORM: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5}


def xception_encoder(
    image_size: int = 256,
    widths: Sequence[int] = WIDTHS["full"],
    gradient_scale: float = 1.0,
    num_blocks: int = 11,
) -> keras.Model:
    """The shared encoder: two convolutions, residual blocks, and a convolution to 512 channels.

    Args:
        image_size: Height and width of the images, divisible by 16.
        widths: Channels of the two first convolutions and of the first three blocks.
        gradient_scale: Factor of the gradients that come back from the decoders.
        num_blocks: Number of residual blocks, of which the first three halve the image.

    Returns:
        Functional model from images (B, H, W, 3) to features (B, H/16, W/16, 512).

    Raises:
        ValueError: If the size is not divisible by 16, or if there are not five widths.
    """
    images, x = stem(image_size, widths)
    for block in range(1, num_blocks + 1):
        x = xception_block(x, block, widths)
    x = shared_top()(layers.ReLU()(x))
    if gradient_scale != 1.0:
        x = GradientScale(gradient_scale)(x)
    return keras.Model(images, x, name="encoder")


def xception_decoder(
    channels: int, name: str, image_size: int = 256, widths: Sequence[int] = DECODERS["small"]
) -> keras.Model:
    """The decoder of one task: four steps that double the size, each with a convolution.

    Args:
        channels: Number of channels of the output.
        name: Name of the model.
        image_size: Height and width of the output, in pixels.
        widths: Channels of the four steps.

    Returns:
        Functional model from features (B, H/16, W/16, 512) to outputs (B, H, W, channels).
    """
    features = keras.Input((image_size // FACTOR, image_size // FACTOR, FEATURES))
    x = features
    for number, width in enumerate(widths):
        # Uniform between plus and minus 1 / sqrt(4 * width), PyTorch's default.
        start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        x = layers.Conv2DTranspose(width, 2, 2, kernel_initializer=start)(x)
        x = layers.ReLU()(layers.BatchNormalization(**_NORM)(x))
        if number + 1 < len(widths):
            x = _convolution(x, width, 3, use_bias=True)
            x = layers.ReLU()(layers.BatchNormalization(**_NORM)(x))
    # In float32 under mixed precision, as Keras advises for the inputs of a loss.
    outputs = _convolution(x, channels, 3, use_bias=True, dtype="float32")
    return keras.Model(features, outputs, name=name)


def stem(image_size: int, widths: Sequence[int]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The images, and the features after two convolutions; the first one halves the image."""
    check(
        image_size > 0 and image_size % FACTOR == 0,
        f"`image_size` should be divisible by {FACTOR}, because the encoder makes images as much "
        "smaller",
        image_size=image_size,
    )
    check(len(widths) == 5, "`widths` should be five numbers of channels", widths=widths)
    images = keras.Input((image_size, image_size, 3))
    # Padded on both sides; Keras would pad only one side.
    x = _convolution(layers.ZeroPadding2D(1)(images), widths[0], 3, strides=2, padding="valid")
    x = layers.ReLU()(layers.BatchNormalization(**_NORM)(x))
    x = _convolution(x, widths[1], 3)
    return images, layers.ReLU()(layers.BatchNormalization(**_NORM)(x))


def xception_block(x: keras.KerasTensor, number: int, widths: Sequence[int]) -> keras.KerasTensor:
    """A residual block. The blocks are counted from 1, and the first three halve the image."""
    halves = number <= 3
    width = widths[min(number + 1, 4)]
    shortcut = x
    if halves:
        # A 1x1 convolution with stride 2, in two steps: the pooling takes every other pixel. On
        # CPUs, the gradient of a convolution with a stride, 6 channels and 8 filters writes where
        # it should not (TensorFlow 2.21, oneDNN).
        shortcut = _convolution(layers.MaxPooling2D(1, strides=2)(x), width, 1)
        shortcut = layers.BatchNormalization(**_NORM)(shortcut)
    for repetition in range(2 if halves else 3):
        # The input of the first block has been through a ReLU already.
        if number > 1 or repetition > 0:
            x = layers.ReLU()(x)
        x = layers.BatchNormalization(**_NORM)(_separable(width)(x))
    if halves:
        x = _convolution(x, width, 2, strides=2, use_bias=True)
    return layers.Add(name=f"block{number}")([x, shortcut])


def shared_top() -> keras.Sequential:
    """The last layers that tasks share: to 512 channels, without an activation."""
    return keras.Sequential(
        [_separable(FEATURES, name="top_convolution"), layers.BatchNormalization(**_NORM)],
        name="top",
    )


@keras.saving.register_keras_serializable(package="taskonomy")
class GradientScale(keras.layers.Layer):  # type: ignore[misc]
    """Passes on its inputs, and multiplies their gradients by a factor.

    The code of Standley et al. and of TAG divides the gradients that the encoder gets by the square
    root of the number of decoders.

    Args:
        scale: Factor of the gradients.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        scale = tf.cast(self.scale, inputs.dtype)
        return tf.stop_gradient((1 - scale) * inputs) + scale * inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


def _convolution(
    x: keras.KerasTensor, width: int, size: int, use_bias: bool = False, **options: Any
) -> keras.KerasTensor:
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    options = {"padding": "same", "use_bias": use_bias, "kernel_initializer": start, **options}
    return layers.Conv2D(width, size, **options)(x)


def _separable(width: int, **options: Any) -> keras.layers.Layer:
    # Keras' fan in of a depthwise kernel (3, 3, C, 1) is 9 C, which is PyTorch's fan out.
    scaling = keras.initializers.VarianceScaling
    return layers.SeparableConv2D(
        width,
        3,
        padding="same",
        use_bias=False,
        depthwise_initializer=scaling(2.0, "fan_in", "untruncated_normal"),
        pointwise_initializer=scaling(2.0, "fan_out", "untruncated_normal"),
        **options,
    )
