"""Trains the networks of a truth table, and measures affinities by each estimator."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tag_keras
from benchmarks.truth.sets import TruthSet
from tag_keras.affinity import Affinity
from tag_keras.results import Row
from tag_keras.study.networks import Group, plain_network
from tag_keras.sweep.job import Job, JobFiles
from tag_keras.sweep.network import Network
from tag_keras.sweep.sweep import run_sweep

# The short training of ESA (Standley et al. 2020) is the first fifth of the whole one.
EARLY = 5
# No network of a truth table has been trained with the seeds of the joint trainings that measure.
FIRST_MEASURING_SEED = 100


def groups_to_train(truth_set: TruthSet) -> list[Group]:
    """All groups of up to `largest` tasks, some larger ones, and the group of all tasks."""
    tasks = truth_set.tasks
    sizes = range(1, truth_set.largest + 1)
    groups = [group for size in sizes for group in itertools.combinations(tasks, size)]
    larger = range(truth_set.largest + 1, len(tasks))
    others = [group for size in larger for group in itertools.combinations(tasks, size)]
    drawn = np.random.default_rng(0).permutation(len(others))[: truth_set.num_larger]
    groups += [others[index] for index in sorted(drawn)]
    return groups if tasks in groups else [*groups, tasks]


def train_groups_of(
    truth_set: TruthSet, folder: Path, seeds: Sequence[int]
) -> tuple[list[Row], list[Row]]:
    """Trains all groups with all seeds, except those that the folder has already.

    Returns:
        Rows of the trained networks, and validation rows of the short trainings.
    """
    short = {**truth_set.fit, "epochs": math.ceil(truth_set.epochs / EARLY)}
    jobs = []
    for early, fit in ((False, truth_set.fit), (True, short)):
        for seed, group in itertools.product(seeds, groups_to_train(truth_set)):
            network = plain_network(group, truth_set.tasks, early=early)
            network = dataclasses.replace(network, seed=seed)
            jobs.append(Job(network, truth_set.build_model, fit, saves=False))
    rows = run_sweep(folder, jobs, truth_set.data, processes=0)
    # The folder may hold other seeds from a run that was stopped.
    rows = [row for row in rows if row.seed in seeds]
    early_rows = [row for row in rows if row.early and row.split == "validation"]
    return [row for row in rows if not row.early], early_rows


def estimators(truth_set: TruthSet) -> dict[str, Mapping[str, Any]]:
    """Arguments of `compile` for a joint training that measures, by name of the estimator."""
    lookahead = tag_keras.LookaheadAffinity
    held_out = functools.partial(lookahead, on=truth_set.splits["validation"])
    return {
        "lookahead, every 10": {"affinity": lookahead(10)},
        "lookahead": {"affinity": lookahead(2)},
        "lookahead - baseline": {"affinity": lookahead(2, baseline=True)},
        "lookahead, plain step": {"affinity": lookahead(2, "sgd")},
        "held-out": {"affinity": held_out(2)},
        "held-out - baseline": {"affinity": held_out(2, baseline=True)},
        "held-out, plain step": {"affinity": held_out(2, "sgd")},
        "first order": {"affinity": tag_keras.FirstOrderAffinity(2)},
        "first order, plain step": {"affinity": tag_keras.FirstOrderAffinity(2, "sgd")},
        "cosine": {"affinity": tag_keras.CosineAffinity(2)},
        # The authors' decay averages over more batches than there are here.
        "proximal": {"gradient_method": tag_keras.SelectiveTaskGroupUpdates(decay=0.01)},
    }


def measure(truth_set: TruthSet, folder: Path, num_runs: int) -> dict[str, list[Affinity]]:
    """Affinities of `num_runs` joint trainings by each estimator; those in the folder are read."""
    measured = {}
    for name, options in estimators(truth_set).items():
        build = functools.partial(truth_set.build_model, **options)
        own = folder / "affinities" / name.replace(",", "").replace(" ", "_")
        seeds = range(FIRST_MEASURING_SEED, FIRST_MEASURING_SEED + num_runs)
        networks = [Network("joint", truth_set.tasks, seed) for seed in seeds]
        jobs = [Job(one, build, truth_set.fit, saves=False, measures=True) for one in networks]
        run_sweep(own, jobs, truth_set.data, processes=0)
        measured[name] = [Affinity.load(JobFiles(own, network).affinity) for network in networks]
    return measured
