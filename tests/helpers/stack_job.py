"""A command that sweeps seven small networks in stacks of two.

python tests/helpers/stack_job.py FOLDER
"""

import sys

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
    fit = {"epochs": 3, "verbose": 0}
    run_sweep(folder, [Job(one, build_model, fit) for one in all_networks()], DATA, processes=0)


if __name__ == "__main__":
    jobs.most_networks = lambda *_: 2
    main(sys.argv[1])
