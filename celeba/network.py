"""The network of TAG's CelebA experiments (Fifty et al. 2021, arXiv 2109.04617)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

import tag_keras
from tag_keras.utils.tasks import check_task_names

layers = keras.layers

# The last convolution that all tasks share. GradNorm looks at its kernel, as in the original.
LAST_CONVOLUTION = "last_convolution"
# Channels between the two convolutions of an attention module: a quarter of the block's channels.
_ATTENTION_WIDTH = 16


def build_encoder(image_size: int = 64) -> keras.Model:
    """The shared encoder: one residual block between two poolings.

    Args:
        image_size: Height and width of the images, in pixels.

    Returns:
        Model from images (B, 64, 64, 3) in [0, 1] to features (B, 14400), with 75,840 trainable
        parameters.
    """
    images, _, block = _residual_block(image_size)
    return keras.Model(images, _features(block), name="encoder")


def build_mtan_encoder(tasks: Sequence[str], image_size: int = 64) -> keras.Model:
    """The encoder with an attention module per task (MTAN; Liu et al. 2019, arXiv 1803.10704).

    As in the paper, each task has a mask in (0, 1) over the channels and pixels of a shared block,
    which `TaskAttention` makes from earlier features. The paper has no network as small as this
    one. The rest follows its authors' variant for ResNets: the mask of the residual block is made
    from the block's input, with a quarter of the block's channels between the two convolutions.
    There is only one block, so no feature of a task leads to a further block. Poolings and heads
    are the same as in the original.

    Args:
        tasks: Task names.
        image_size: Height and width of the images, in pixels.

    Returns:
        Model from images (B, 64, 64, 3) in [0, 1] to a dict of features (B, 14400) by task, with
        75,840 trainable parameters and 2,288 more for each task.
    """
    images, entry, block = _residual_block(image_size)
    seen = {
        task: tag_keras.TaskAttention(_ATTENTION_WIDTH)([entry, block])
        for task in check_task_names(list(tasks))
    }
    features = {task: _features(one) for task, one in seen.items()}
    return keras.Model(images, features, name="mtan_encoder")


def build_head(name: str) -> keras.layers.Layer:
    """The head of one attribute: two logits, 28,802 parameters behind the encoder."""
    return layers.Dense(2, kernel_initializer="glorot_uniform", name=f"{name}_head")


def build_model(
    tasks: Sequence[str],
    learning_rate: float = 5e-4,
    build_encoder: Callable[[Sequence[str]], keras.Model] | None = None,
    affinity: Any = None,
    image_size: int = 64,
    **options: Any,
) -> tag_keras.MultiTaskModel:
    """A compiled model for `tasks`, as the original trains it.

    The loss of a task is the softmax cross-entropy of its two logits, and the joint loss is the sum
    over the tasks. The optimizer is SGD with momentum 0.9.

    Args:
        tasks: Some of CelebA's attributes.
        learning_rate: Learning rate of the optimizer.
        build_encoder: Function from the tasks to an encoder. Defaults to the original encoder.
        affinity: Affinity estimator, to measure during training. Defaults to none.
        image_size: Height and width of the images of the original encoder, in pixels.
        **options: Further arguments of `compile`.

    Returns:
        Model from images (B, S, S, 3) to logits (B, 2) by task, for labels (B,) in {0, 1}.

    Example:

    ```python
    model = build_model(["Smiling", "Young"], affinity=tag_keras.LookaheadAffinity(every=10))
    ```
    """
    encoder = _original_encoder(image_size) if build_encoder is None else build_encoder(tasks)
    model = tag_keras.MultiTaskModel(encoder, {task: build_head(task) for task in tasks})
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9),
        {task: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for task in tasks},
        metrics={
            task: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for task in tasks
        },
        affinity=affinity,
        **options,
    )
    return model


# A second name, because an argument of `build_model` hides the first.
_original_encoder = build_encoder


def _residual_block(
    image_size: int,
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """The images, the input of the block, and its output."""
    images = keras.Input((image_size, image_size, 3))
    x = layers.ReLU()(_convolution(images))
    x = layers.MaxPooling2D(3, strides=2, padding="valid")(x)
    y = _convolution(layers.ReLU()(_convolution(x)), name=LAST_CONVOLUTION)
    return images, x, layers.ReLU()(layers.Add()([x, y]))


def _features(block: keras.KerasTensor) -> keras.KerasTensor:
    """Features (B, F) of the output of the block."""
    return layers.Flatten()(layers.AveragePooling2D(2)(block))


def _convolution(x: keras.KerasTensor, name: str | None = None) -> keras.KerasTensor:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "glorot_uniform"}
    x = layers.Conv2D(64, 3, name=name, **options)(x)
    return layers.BatchNormalization(epsilon=1e-3)(x)
