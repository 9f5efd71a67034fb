"""A truth table of four tasks, whose losses are drawn at random, for the tests."""

import itertools

import numpy as np

import tag_keras
from benchmarks.truth.table import Truth
from tag_keras.results import Row

TASKS = ("a", "b", "c", "d")
GROUPS = [group for size in range(1, 5) for group in itertools.combinations(TASKS, size)]


def make_rows(seeds=(0, 1, 2), noise=0.1, generator_seed=0):
    random = np.random.default_rng(generator_seed)
    base = {(group, task): random.uniform(0.5, 1.5) for group in GROUPS for task in group}
    return [
        Row("_".join(group), group, seed, task, split, loss + noise * random.normal(), {}, 1.0)
        for seed in seeds
        for split in ("validation", "test")
        for (group, task), loss in base.items()
    ]


def make_truth(**options):
    return Truth.from_rows(make_rows(**options), TASKS, GROUPS)


def make_affinity(generator_seed=0):
    mean = np.random.default_rng(generator_seed).normal(size=(4, 4))
    return tag_keras.Affinity(TASKS, mean)
