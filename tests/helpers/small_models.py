"""Data and models of three tasks, small enough to be traced in no time."""

import random

import keras
import numpy as np
import tensorflow as tf

import tag_keras

layers = keras.layers
TASKS = ("b", "a", "c")


def make_data(size=96, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 5)).astype("float32")
    noise = rng.normal(size=(4, size)).astype("float32")
    return x, {task: x[:, i] + noise[i] for i, task in enumerate(("a", "b", "c", "unused"))}


def in_batches(x, y, size):
    """A dataset: Keras would make one of the arrays, too, by functions that it traces each time."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def make_model(tasks=TASKS, regularizer=None):
    """A network that is traced in no time."""
    random.seed(0)
    encoder = keras.Sequential([layers.Dense(8, "tanh", kernel_regularizer=regularizer)])
    return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})


def make_deep_model(dropout=0.3, regularizer=None, tasks=TASKS):
    """A network with layers that keep a state."""
    random.seed(0)
    encoder = keras.Sequential(
        [
            # No bias: before BatchNorm its gradient is 0 but for rounding, which Adam amplifies.
            layers.Dense(8, use_bias=False, kernel_regularizer=regularizer),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(dropout),
            layers.Dense(6, activation="relu"),
        ]
    )
    return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})


class Kill(keras.callbacks.Callback):
    """Ends the training after so many batches, whatever the epochs."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
