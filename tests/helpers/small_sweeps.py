"""Sweeps of six small networks, which can be trained together or not."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.sweep import Job, Network, run_sweep
from tag_keras.sweep.stack.jobs import StackedJobs, StackOptions
from tag_keras.sweep.stack.refusals import NotStackedError
from tag_keras.utils.progress import Progress

L = keras.layers
TASKS = ("a", "b")
NETWORKS = [
    Network(name, tasks, seed)
    for seed in (0, 1)
    for name, tasks in (("joint", TASKS), ("a", ("a",)), ("b", ("b",)))
]


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype("float32")
    y = {task: rng.normal(size=(20, 1)).astype("float32") for task in TASKS}
    return {"train": (x, y), "test": (x, y)}


def build_model(tasks, make=tag_keras.MultiTaskModel, rate=0.01, layers=(), **options):
    encoder = keras.Sequential([L.Dense(2), *(layer() for layer in layers)])
    model = make(encoder, {task: L.Dense(1) for task in tasks})
    model.compile(**{"optimizer": keras.optimizers.SGD(rate), "loss": "mse", **options})
    return model


def sweep(folder, build_model, networks=NETWORKS, data=None, processes=0, **fit):
    listed = [Job(network, build_model, {"epochs": 1, **fit}) for network in networks]
    return run_sweep(folder, listed, data or make_data(), processes=processes)


def stacked(rows):
    return {(row.network, row.seed) for row in rows if row.stacked}


@keras.saving.register_keras_serializable()
class Counts(L.Layer):
    """Changes a variable that Keras knows, one that it does not know, or draws numbers."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        if kind == "weight":
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        elif kind == "variable":
            self.count = tf.Variable(0.0)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}

    def call(self, x):
        if self.kind == "random":
            return x + tf.random.normal(tf.shape(x))
        self.count.assign(self.count + 1.0)
        return x


def tasks_wide(tasks):
    encoder = keras.Sequential([L.Dense(len(tasks))])
    model = tag_keras.MultiTaskModel(encoder, {task: L.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def check_reason(folder, build, reason, networks=NETWORKS, **fit):
    listed = [Job(network, build, {"epochs": 1, **fit}) for network in networks]
    shown = Progress("", 6, "", sys.stderr)
    with pytest.raises(NotStackedError, match=reason):
        for _ in StackedJobs(folder, listed, make_data(), shown, StackOptions()).train():
            pass
