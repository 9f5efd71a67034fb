"""Encoders for images that can stand in for each other: what tasks share, and what they do not.

All are made of the same blocks, and take the same arguments before their own.
"""

from collections.abc import Mapping, Sequence

import keras

from tag_keras.adashare_layer import AdaShareEncoder
from tag_keras.checks import check, check_input_shape
from tag_keras.resnet import ResidualBlock, pooled, resnet_layers
from tag_keras.routed_encoder import RoutedEncoder
from tag_keras.routed_networks import routed_resnet
from tag_keras.task_attention import TaskAttention
from tag_keras.task_routing import Mode
from tag_keras.tasks import check_task_names

layers = keras.layers


def resnet_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
) -> keras.Model:
    """Hard sharing: one ResNet for small images (He et al. 2016, arXiv 1512.03385) for all tasks.

    Args:
        tasks: Task names, which make no difference here.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.

    Returns:
        Functional model from images (B, H, W, channels) to features (B, widths[-1]).

    Raises:
        ValueError: If there are not as many widths as stages, or if a number is not positive.

    Example:

    ```python
    encoder = tag_keras.resnet_encoder(["smiling", "young"], (64, 64, 3), widths=(16, 32, 64, 128))
    heads = {"smiling": keras.layers.Dense(1), "young": keras.layers.Dense(1)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    check_task_names(tasks)
    stem, stages = resnet_layers(depth, widths)
    images = keras.Input(check_input_shape(input_shape))
    x = layers.ReLU()(stem(images))
    for stage in stages:
        for block in stage:
            x = block(x)
    return keras.Model(images, pooled(x), name="resnet_encoder")


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


def task_routing_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    sigma: float = 0.5,
    mode: Mode = "partition",
    seed: int | None = None,
) -> keras.Model:
    """A ResNet of whose channels each task uses a part (Task Routing; Strezoski et al. 2019).

    arXiv 1903.12117. All tasks go through it at each step, as one batch that is as many times
    larger. `TaskRoutingModel` takes one task at each step instead.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        sigma: In the mode `"partition"`, the part of the channels that all tasks share, where the
            others belong to one task each; in `"reference"`, the part that each task goes without.
        mode: `"partition"` or `"reference"`.
        seed: Seed of the masks.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of features (B, widths[-1]) by
        task.

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.

    Example:

    ```python
    tasks = ["smiling", "young"]
    encoder = tag_keras.task_routing_encoder(tasks, (64, 64, 3), widths=(16, 32, 64, 128))
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    ```
    """
    names = check_task_names(tasks)
    trunk = routed_resnet(len(names), input_shape, depth, widths, sigma, mode, seed)
    images = keras.Input(check_input_shape(input_shape))
    features = RoutedEncoder(trunk, names)(images)
    return keras.Model(images, features, name="task_routing_encoder")


def adashare_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    temperature: float = 5.0,
    seed: int = 0,
) -> AdaShareEncoder:
    """A ResNet of whose blocks each task executes some (AdaShare; Sun et al. 2020).

    arXiv 1911.12423. It is the encoder of an `AdaShareModel`, which finds out which ones.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        temperature: Of the policy's samples, at the beginning.
        seed: Of the policy's samples.

    Returns:
        Encoder from images (B, H, W, channels) to a dict of features (B, widths[-1]) by task.

    Raises:
        ValueError: If there are not as many widths as stages, or if a number is out of range.

    Example:

    ```python
    tasks = ["smiling", "young"]
    encoder = tag_keras.adashare_encoder(tasks, (64, 64, 3), widths=(16, 32, 64, 128))
    model = tag_keras.AdaShareModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    ```
    """
    resnet = resnet_layers(depth, widths)
    stem = keras.Sequential(
        [keras.Input(check_input_shape(input_shape)), resnet.stem, layers.ReLU()], name="stem"
    )
    top = layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32")
    return AdaShareEncoder(stem, resnet.blocks, tasks, top, temperature, seed)
