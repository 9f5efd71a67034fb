"""A small convolutional network for the digits."""

from collections.abc import Sequence

import keras

import tag_keras
from digits import data
from tag_keras.estimators import AffinityEstimator


def build_model(
    tasks: Sequence[str],
    learning_rate: float = 1e-3,
    steps: int = 400,
    affinity: AffinityEstimator | None = None,
) -> tag_keras.MultiTaskModel:
    """A compiled model for `tasks`: three shared layers, and one linear head per task.

    Args:
        tasks: Some of `data.TASKS`.
        learning_rate: Learning rate of Adam at the start; it falls to 0 along a cosine.
        steps: Number of training steps.
        affinity: What to measure during training.

    Returns:
        Model from images (B, 8, 8, 1) to logits or values (B, 1) by task.
    """
    layers = keras.layers
    encoder = keras.Sequential(
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
    heads = {task: layers.Dense(1, name=f"{task}_head") for task in tasks}
    losses = dict.fromkeys(tasks, "mse")
    losses |= {
        task: keras.losses.BinaryCrossentropy(from_logits=True)
        for task in tasks
        if task in data.CLASSIFICATION
    }
    metrics = {
        task: [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
        for task in tasks
        if task in data.CLASSIFICATION
    }
    model = tag_keras.MultiTaskModel(encoder, heads)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        losses,
        metrics=metrics,
        affinity=affinity,
        steps_per_execution=20,
    )
    return model
