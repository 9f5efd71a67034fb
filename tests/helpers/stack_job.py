"""A sweep of seven small networks in stacks of two, for processes that are killed."""

import itertools

import keras
from sweep_job import TASKS, make_data

import tag_keras
from tag_keras.sweep import Job, Network, run_sweep
from tag_keras.sweep.stack import jobs

# Of three tasks, all sets.
SETS = [one for size in (3, 2, 1) for one in itertools.combinations(TASKS[:3], size)]
NETWORKS = [Network("".join(tasks), tasks) for tasks in SETS]
# All batches of training have one size, and all of the evaluation: each is traced once.
DATA = {split: make_data(seed, 32) for seed, split in enumerate(("train", "validation", "test"))}


def build_model(tasks):
    encoder = keras.Sequential([keras.layers.Dense(4, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def main(folder):
    jobs.most_networks = lambda *_: 2
    fit = {"epochs": 3, "batch_size": 16, "verbose": 0}
    run_sweep(folder, [Job(one, build_model, fit) for one in NETWORKS], DATA, processes=0)
