"""Small networks that a sweep can send to other processes, and a program that sweeps some."""

import contextlib
import itertools
import os
import signal
from pathlib import Path

import keras
import numpy as np

import tag_keras
from tag_keras.sweep import job, sweep
from tag_keras.sweep import network as training

TASKS = ("a", "b", "c", "d", "e")
# Variable with the path of a file that gets a line for each network that is built: its tasks and
# the process.
BUILDS = "SWEEP_BUILDS"


def make_data(seed=0, size=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 5)).astype("float32")
    return x, {task: x[:, i] + rng.normal(size=size) for i, task in enumerate(TASKS)}


DATA = {split: make_data(seed) for seed, split in enumerate(("train", "validation", "test"))}


def build_model(tasks, affinity=None):
    if path := os.environ.get(BUILDS):
        with open(path, "a") as file:
            file.write(f"{''.join(tasks)} {os.getpid()}\n")
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    # Eagerly, because tracing takes longer than its few steps.
    model.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    return model


def read_builds(path):
    """Tasks and process of each network built so far."""
    if not Path(path).exists():
        return []
    return [tuple(line.split()) for line in Path(path).read_text().splitlines()]


def build_killed(tasks):
    """Is killed the first time, like a process that takes too much memory."""
    model = build_model(tasks)
    if [built for built, _ in read_builds(os.environ[BUILDS])].count("".join(tasks)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return model


def build_for_other_tasks(tasks):
    return build_model((*tasks, "e"))


def all_networks():
    """The pairs of four tasks, and the first one alone."""
    sets = [*itertools.combinations(TASKS[:4], 2), TASKS[:1]]
    return [training.Network("".join(tasks), tasks) for tasks in sets]


def main(folder, processes, number):
    """Sweeps so many networks, as a program that a terminal has started."""
    # Processes in the background of a shell ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fit = {"epochs": 20, "verbose": 0}
    jobs = [job.Job(network, build_model, fit) for network in all_networks()[:number]]
    with contextlib.suppress(KeyboardInterrupt):
        sweep.run_sweep(folder, jobs, DATA, processes, stack=False)
