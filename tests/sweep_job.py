"""Small networks that a sweep can send to other processes, and a command that sweeps many."""

import os
import pathlib
import signal

import keras
import numpy as np

import tag_keras

TASKS = ("a", "b", "c", "d", "e")
# Which of the networks misbehave, by their tasks; each time one is built it leaves a line there.
BUILDS = "SWEEP_BUILDS"


def make_data(seed=0, size=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 5)).astype("float32")
    return x, {task: x[:, i] + rng.normal(size=size) for i, task in enumerate(TASKS)}


DATA = {split: make_data(seed) for seed, split in enumerate(("train", "validation", "test"))}


def build_model(tasks, affinity=None):
    note_build(tasks)
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse", affinity=affinity)
    return model


def note_build(tasks):
    """Leaves a line for each time that a network is built; that is, trained."""
    if path := os.environ.get(BUILDS):
        with open(path, "a") as file:
            file.write("".join(tasks) + "\n")


def builds(path):
    return path.read_text().split() if path.exists() else []


def build_killed(tasks):
    """Is killed the first time, like a process that took too much memory."""
    note_build(tasks)
    if builds(pathlib.Path(os.environ[BUILDS])).count("".join(tasks)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return build_model(tasks)
