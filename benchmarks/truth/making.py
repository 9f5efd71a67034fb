"""Makes the table of a problem: trains every group of its tasks in one regime."""

import dataclasses
import functools
import importlib.metadata
import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tag_keras
from benchmarks.truth.problems.problem import FOLDS, Examples, Problem
from benchmarks.truth.tables import NUM_SEEDS, Floats, Table
from tag_keras.affinity import Affinity
from tag_keras.study.networks import plain_network
from tag_keras.sweep.job import Job, JobFiles
from tag_keras.sweep.network import Network, load_network
from tag_keras.sweep.sweep import run_sweep
from tag_keras.utils.checks import check

# No network of a table has been trained with the seeds of the joint trainings that measure.
FIRST_MEASURING_SEED = 100
# The short training of ESA (Standley et al. 2020) is the first epoch.
EPOCHS = 5
LEARNING_RATE = 3e-3
_EVALUATION_BATCH = 500
# Of these depend the losses in a table.
_LIBRARIES = ("tag_keras", "keras", "tensorflow", "numpy")


@dataclasses.dataclass(frozen=True)
class Regime:
    """What networks of a problem are trained with.

    Args:
        width: Units of each of the two shared layers.
        size: Number of training examples, or None for all.
        steps: Number of training steps, in which the learning rate falls to 0 along a cosine.
        batch_size: Number of examples of a step.
    """

    width: int
    size: int | None
    steps: int
    batch_size: int

    def file_name(self, problem: str) -> str:
        """Name of the file of the table of a problem."""
        return f"{problem}-w{self.width}-n{self.size or 'all'}.npz"


def regime(width: int, size: int | None) -> Regime:
    """The regime of a width and a number of training examples.

    With all examples, there are more and larger steps. Wide networks then take only half of these,
    because one of their tables would take a third of an hour.
    """
    if size is not None:
        return Regime(width, size, steps=400, batch_size=25)
    return Regime(width, size, steps=800 if width < 128 else 400, batch_size=64)


def estimators() -> dict[str, Any]:
    """The estimators of affinities, by their name in a table."""
    return {
        "lookahead": tag_keras.LookaheadAffinity(every=10),
        "lookahead_sgd": tag_keras.LookaheadAffinity(2, "sgd"),
        "first_order": tag_keras.FirstOrderAffinity(2),
        "cosine": tag_keras.CosineAffinity(2),
        "features": tag_keras.FeatureAffinity(1),
    }


def make_table(
    name: str, problem: Problem, regime: Regime, folder: Path, num_seeds: int = NUM_SEEDS
) -> Table:
    """Trains all networks of a table; those that the folder has already are read.

    Args:
        name: Name of the problem.
        problem: The problem.
        regime: What its networks are trained with.
        folder: Folder for the results of the networks.
        num_seeds: Number of seeds.

    Raises:
        ValueError: If the problem has fewer training examples than the regime.
    """
    start = time.process_time()
    number = _number(problem, regime)
    wanted = f"the problem {name} has too few training examples"
    check(number <= len(problem.train[0]), wanted, size=number, examples=len(problem.train[0]))
    check(
        regime.steps % EPOCHS == 0, f"`steps` should be divisible by {EPOCHS}", steps=regime.steps
    )
    data, seeds = _data(problem, number, regime.batch_size), tuple(range(num_seeds))
    validation, test, folds = _measured(problem, regime, data, folder / "groups", seeds)
    data.pop("test")
    early, _, _ = _measured(problem, regime, data, folder / "early", seeds, early=True)
    affinities = measure_affinities(problem, regime, folder, num_seeds)
    about = {
        "problem": name,
        **dataclasses.asdict(regime),
        "examples": {**problem.sizes(), "train": number},
        "classes": sorted(problem.classes),
        "cpu_seconds": round(time.process_time() - start, 1),
        "versions": {one: importlib.metadata.version(one) for one in _LIBRARIES},
    }
    groups = np.arange(1, 2 ** len(problem.tasks))
    folds = folds.mean(axis=0)
    return Table(problem.tasks, groups, seeds, validation, test, early, folds, affinities, about)


def measure_affinities(
    problem: Problem, regime: Regime, folder: Path, num_seeds: int, known: Collection[str] = ()
) -> dict[str, Floats]:
    """Affinities (S, T, T) of joint trainings, by the estimators that are not known yet."""
    data = _data(problem, _number(problem, regime), regime.batch_size)
    data.pop("test")
    return {
        kind: _affinities(problem, regime, data, folder / kind, estimator, num_seeds)
        for kind, estimator in estimators().items()
        if kind not in known
    }


def train_joint(
    problem: Problem, regime: Regime, folder: Path, seeds: Sequence[int]
) -> list[tag_keras.MultiTaskModel]:
    """Trains joint networks with some seeds, as those of a table are; saved ones are loaded."""
    data = _data(problem, _number(problem, regime), regime.batch_size)
    build = functools.partial(build_model, problem.classes, regime)
    networks = [Network("joint", problem.tasks, seed) for seed in seeds]
    jobs = [Job(network, build, _fit(regime, EPOCHS)) for network in networks]
    run_sweep(folder, jobs, {split: data[split] for split in ("train", _fold(0))}, processes=0)
    return [load_network(JobFiles(folder, network).model) for network in networks]


def _number(problem: Problem, regime: Regime) -> int:
    """Number of training examples."""
    return len(problem.train[0]) if regime.size is None else regime.size


def _data(problem: Problem, number: int, batch_size: int) -> dict[str, Any]:
    """Data of a sweep. The validation split comes in parts of equal size."""
    x, y = problem.train
    train = x[:number], {task: values[:number] for task, values in y.items()}
    data: dict[str, Any] = {"train": functools.partial(batches, train, batch_size)}
    x, y = problem.validation
    for fold, part in enumerate(np.split(np.arange(len(x)), FOLDS)):
        examples = x[part], {task: values[part] for task, values in y.items()}
        data[_fold(fold)] = functools.partial(whole, examples)
    return {**data, "test": functools.partial(whole, problem.test)}


def _fold(index: int) -> str:
    return f"validation_{index}"


def batches(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Shuffled batches of examples, without end."""
    tensors = tf.nest.map_structure(tf.constant, examples)
    # To shuffle numbers is much faster than to shuffle examples.
    order = tf.data.Dataset.range(len(examples[0])).shuffle(len(examples[0])).repeat()

    def gathered(indices: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda values: tf.gather(values, indices), tensors)

    return order.batch(batch_size, drop_remainder=True).map(gathered)


def whole(examples: Examples) -> tf.data.Dataset:
    """Large batches of examples, in their order."""
    return tf.data.Dataset.from_tensor_slices(examples).batch(_EVALUATION_BATCH)


def _measured(
    problem: Problem,
    regime: Regime,
    data: Mapping[str, Any],
    folder: Path,
    seeds: Sequence[int],
    early: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Trains all groups. Returns losses on validation and test data, and on the parts of the first.

    They have the shapes (S, M, T), (S, M, T) and (S, F, M, T), NaN where there is no loss.
    """
    tasks = problem.tasks
    masks = range(1, 2 ** len(tasks))
    groups = [tuple(task for t, task in enumerate(tasks) if mask >> t & 1) for mask in masks]
    build = functools.partial(build_model, problem.classes, regime)
    fit = _fit(regime, 1 if early else EPOCHS)
    jobs = [
        Job(dataclasses.replace(plain_network(group, tasks), seed=seed), build, fit, saves=False)
        for seed, group in itertools.product(seeds, groups)
    ]
    rows = run_sweep(folder, jobs, data, processes=0)
    row_of = {group: row for row, group in enumerate(groups)}
    shape = len(seeds), len(groups), len(tasks)
    by_split = {split: np.full(shape, np.nan) for split in (*map(_fold, range(FOLDS)), "test")}
    for row in rows:
        place = seeds.index(row.seed), row_of[row.tasks], tasks.index(row.task)
        by_split[row.split][place] = row.loss
    folds = np.stack([by_split[_fold(fold)] for fold in range(FOLDS)], axis=1)
    return folds.mean(axis=1), by_split["test"], folds


def _affinities(
    problem: Problem,
    regime: Regime,
    data: Mapping[str, Any],
    folder: Path,
    estimator: Any,
    num_seeds: int,
) -> Floats:
    """Affinities (S, T, T) of joint trainings."""
    build = functools.partial(build_model, problem.classes, regime, affinity=estimator)
    seeds = range(FIRST_MEASURING_SEED, FIRST_MEASURING_SEED + num_seeds)
    networks = [Network("joint", problem.tasks, seed) for seed in seeds]
    fit = _fit(regime, EPOCHS)
    jobs = [Job(one, build, fit, saves=False, measures=True) for one in networks]
    # One part of the validation data is enough: only the affinities are read.
    few = {split: data[split] for split in ("train", _fold(0))}
    run_sweep(folder, jobs, few, processes=0)
    return np.stack([Affinity.load(JobFiles(folder, one).affinity).mean for one in networks])


def _fit(regime: Regime, epochs: int) -> dict[str, Any]:
    return {"epochs": epochs, "steps_per_epoch": regime.steps // EPOCHS, "verbose": 0}


def build_model(
    classes: frozenset[str], regime: Regime, tasks: tuple[str, ...], **options: Any
) -> tag_keras.MultiTaskModel:
    """Builds a compiled model: two shared layers, and a linear head per task.

    Args:
        classes: Tasks with labels 0 or 1. All others are numbers.
        regime: Width of the layers, and number of steps.
        tasks: Task names.
        **options: Further arguments of `compile`.
    """
    layers = [keras.layers.Dense(regime.width, activation="relu") for _ in range(2)]
    heads = {task: keras.layers.Dense(1, name=f"{task}_head") for task in tasks}
    model = tag_keras.MultiTaskModel(keras.Sequential(layers), heads)
    losses = {
        task: keras.losses.BinaryCrossentropy(from_logits=True) if task in classes else "mse"
        for task in tasks
    }
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, regime.steps)
    model.compile(keras.optimizers.Adam(schedule), losses, **options)
    return model
