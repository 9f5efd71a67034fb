"""Small data and a small model, to measure affinities on held-out data."""

import keras
import numpy as np
import tensorflow as tf

import tag_keras

TASKS = ("b", "a", "c")
NAN = float("nan")


def make_data(size=48, seed=0):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(size, 5)), rng.normal(size=(3, size))
    y = {task: (x[:, i] + labels[i]).astype("float32") for i, task in enumerate(TASKS)}
    return x.astype("float32"), y


def dataset_of(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


def linear():
    return [keras.layers.Dense(4)]


def make_model(affinity, stack=linear, optimizer=None, **compile_arguments):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((5,)), *stack()])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    # Eagerly, because tracing a function takes longer than a few steps.
    arguments = {"run_eagerly": True, **compile_arguments}
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", affinity=affinity, **arguments)
    return model
