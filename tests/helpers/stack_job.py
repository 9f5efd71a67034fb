"""A sweep of seven small networks in stacks of two, for processes that are killed."""

import keras
from sweep_job import DATA, all_networks

import tag_keras
from tag_keras.sweep import Job, run_sweep
from tag_keras.sweep.stack import jobs


def build_model(tasks):
    encoder = keras.Sequential([keras.layers.Dense(4, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    return model


def main(folder):
    jobs.most_networks = lambda *_: 2
    fit = {"epochs": 3, "verbose": 0}
    run_sweep(folder, [Job(one, build_model, fit) for one in all_networks()], DATA, processes=0)
