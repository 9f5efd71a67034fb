"""Small convolutional networks for the digits."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

import tag_keras
from digits import data
from tag_keras.multitask.task_model import TaskModel


def conv_encoder(tasks: Sequence[str]) -> keras.Model:
    """Three layers, from images (B, 8, 8, 1) to features (B, 64), the same for all `tasks`."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
        ],
        name="encoder",
    )


def build_model(
    tasks: Sequence[str],
    learning_rate: float = 1e-3,
    steps: int = 400,
    build_encoder: Callable[[Sequence[str]], keras.layers.Layer] = conv_encoder,
    **options: Any,
) -> tag_keras.MultiTaskModel:
    """Builds a compiled model: an encoder, and one linear head per task.

    Args:
        tasks: Some of `data.TASKS`.
        learning_rate: Learning rate of Adam at the start; it falls to 0 along a cosine.
        steps: Number of training steps.
        build_encoder: Returns the encoder for the tasks.
        **options: Further arguments of `compile`, such as `affinity`.

    Returns:
        Model from images (B, 8, 8, 1) to logits or values (B, 1) by task.
    """
    model = tag_keras.MultiTaskModel(build_encoder(tasks), heads(tasks))
    compile_model(model, learning_rate, steps, **options)
    return model


def heads(tasks: Sequence[str]) -> dict[str, keras.layers.Layer]:
    """One linear layer per task."""
    return {task: keras.layers.Dense(1, name=f"{task}_head") for task in tasks}


def compile_model(model: TaskModel, learning_rate: float, steps: int, **options: Any) -> None:
    """Compiles a model for some of the digits' tasks; the other arguments as in `build_model`."""
    classified = [task for task in model.tasks if task in data.CLASSIFICATION]
    losses = dict.fromkeys(model.tasks, "mse")
    losses |= {task: keras.losses.BinaryCrossentropy(from_logits=True) for task in classified}
    metrics = {
        task: [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)] for task in classified
    }
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = keras.optimizers.Adam(schedule)
    model.compile(optimizer, losses, metrics=metrics, steps_per_execution=20, **options)
