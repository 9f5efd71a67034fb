"""Networks with Task Routing behind every convolution."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.networks.resnet import ConvNorm, ResidualBlock, pooled, resnet_layers
from tag_keras.networks.task_routing.layer import Mode, TaskRouting, check_routing, mask_seed
from tag_keras.utils.checks import check, check_counts, check_input_shape

layers = keras.layers


@keras.saving.register_keras_serializable(package="tag_keras")
class RoutedBlock(keras.layers.Layer):  # type: ignore[misc]
    """A `ResidualBlock` with a `TaskRouting` behind each of its convolutions.

    A shortcut without a convolution needs no routing: its input was routed before. With `sigma=1`
    and `mode="partition"` the block is the plain one.

    Args:
        filters: Number of channels of the output.
        strides: Stride of the first convolution and of the shortcut.
        num_tasks: Number of tasks, T.
        sigma: Share of channels that all tasks use (`"partition"`) or each lacks (`"reference"`).
        mode: `"partition"` or `"reference"`.
        seed: Seed of the masks, drawn by default.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor (B, H, W, C).
        task_ids: Indices of tasks, from 0 to T - 1: one for all examples, or (B,), one for each.
        training: Whether the model is being trained.
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        *,
        num_tasks: int,
        sigma: float = 0.5,
        mode: Mode = "partition",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Its layers have the same names as in a ResNet, also in a model that is loaded.
        self.block = ResidualBlock(filters, strides, dtype=self.dtype_policy, name=self.name)
        check_routing(num_tasks, sigma, mode)
        self.num_tasks, self.sigma, self.mode = int(num_tasks), float(sigma), mode
        self.seed = mask_seed(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.block.build(input_shape)
        options = _options(self.num_tasks, self.sigma, self.mode, self.seed)
        number = 2 if self.block.projection is None else 3
        self.routes = [
            TaskRouting(**one, data_format="channels_last", dtype=self.dtype_policy)
            for one in itertools.islice(options, number)
        ]
        for route in self.routes:
            route.build(self.compute_output_shape(input_shape))

    def call(self, inputs: tf.Tensor, task_ids: Any, training: bool | None = None) -> tf.Tensor:
        shortcut = self.block.shortcut(inputs, training)
        if self.block.projection is not None:
            shortcut = self.routes[2](shortcut, task_ids)
        x = tf.nn.relu(self.routes[0](self.block.first(inputs, training=training), task_ids))
        residual = self.routes[1](self.block.second(x, training=training), task_ids)
        return tf.nn.relu(shortcut + residual)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], *args: Any
    ) -> tuple[int | None, ...]:
        return self.block.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        names = ("num_tasks", "sigma", "mode", "seed")
        sizes = {"filters": self.block.filters, "strides": self.block.strides}
        return {**super().get_config(), **sizes, **{name: getattr(self, name) for name in names}}


def routed_resnet(
    num_tasks: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    sigma: float = 0.5,
    mode: Mode = "partition",
    seed: int | None = None,
) -> keras.Model:
    """A ResNet for small images with Task Routing (Strezoski et al. 2019, arXiv 1903.12117).

    Args:
        num_tasks: Number of tasks, T.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        sigma: Share of channels that all tasks use (`"partition"`) or each lacks (`"reference"`).
        mode: `"partition"` as the authors explain it, or `"reference"` as they compute it.
        seed: Seed of the masks, drawn by default; they differ from layer to layer.

    Returns:
        Functional model from `[images (B, H, W, channels), task ids (B,)]` to features
        (B, widths[-1]).

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.

    Example:

    ```python
    trunk = tag_keras.routed_resnet(num_tasks=3, widths=(16, 32, 64, 128))
    features = trunk([images, np.array([0, 2])])  # two images: one for task 0, one for task 2
    ```
    """
    options = _options(num_tasks, sigma, mode, seed)
    resnet = resnet_layers(depth, widths, lambda **kwargs: RoutedBlock(**next(options), **kwargs))
    images, task_ids = keras.Input(check_input_shape(input_shape)), keras.Input((), dtype="int32")
    x = _routed(resnet.stem(images), task_ids, **next(options))
    for block in resnet.blocks:
        x = block(x, task_ids)
    return keras.Model([images, task_ids], pooled(x), name="routed_resnet")


def routed_vgg11(
    num_tasks: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    widths: Sequence[int] = (64, 128, 256, 256, 512, 512, 512, 512),
    sigma: float = 0.5,
    mode: Mode = "partition",
    seed: int | None = None,
) -> keras.Model:
    """VGG-11 with Task Routing, as in its paper (Strezoski et al. 2019, arXiv 1903.12117).

    VGG-11 (Simonyan and Zisserman 2015, arXiv 1409.1556, table 1, column A) has poolings after the
    layers 1, 2, 4, 6 and 8. The network leaves out the hidden layers behind the convolutions.

    Args:
        num_tasks: Number of tasks, T.
        input_shape: Height, width and channels of the images.
        widths: Number of channels of each of the eight layers.
        sigma: Share of channels that all tasks use (`"partition"`) or each lacks (`"reference"`).
        mode: `"partition"` as the authors explain it, or `"reference"` as they compute it.
        seed: Seed of the masks, drawn by default; they differ from layer to layer.

    Returns:
        Functional model from `[images (B, H, W, channels), task ids (B,)]` to features
        (B, widths[-1]).

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.
    """
    options = _options(num_tasks, sigma, mode, seed)
    channels = check_counts("widths", widths)
    check(len(channels) == 8, "`widths` should have eight widths", widths=widths)
    images, task_ids = keras.Input(check_input_shape(input_shape)), keras.Input((), dtype="int32")
    x = images
    for number, width in enumerate(channels, 1):
        x = _routed(ConvNorm(width)(x), task_ids, **next(options))
        if number in (1, 2, 4, 6, 8):
            x = layers.MaxPooling2D(2, padding="same", data_format="channels_last")(x)
    return keras.Model([images, task_ids], pooled(x), name="routed_vgg11")


def _options(
    num_tasks: int, sigma: float, mode: Mode, seed: int | None
) -> Iterator[dict[str, Any]]:
    """Checked options of one routing layer after the other, each with a seed of its own."""
    check_routing(num_tasks, sigma, mode)
    routing = {"num_tasks": num_tasks, "sigma": sigma, "mode": mode}
    seeds = np.random.default_rng(mask_seed(seed))
    return ({**routing, "seed": int(seeds.integers(2**31))} for _ in itertools.count())


def _routed(x: keras.KerasTensor, task_ids: keras.KerasTensor, **routing: Any) -> keras.KerasTensor:
    """A `TaskRouting` and a ReLU."""
    return layers.ReLU()(TaskRouting(data_format="channels_last", **routing)(x, task_ids))
