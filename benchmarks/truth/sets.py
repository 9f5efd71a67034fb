"""The data on which every group of tasks is trained, to see which choices were right."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import sklearn.datasets

import tag_keras
from benchmarks import planted
from digits import data, network

Array = npt.NDArray[np.float32]
Split = tuple[Array, dict[str, Array]]
BATCH_SIZE, STEPS_PER_EPOCH = 25, 20


@dataclasses.dataclass(frozen=True)
class TruthSet:
    """A multi-task problem that is small enough to train many groups of its tasks.

    Args:
        tasks: Task names.
        splits: `"train"`, `"validation"` and `"test"`, few examples to train on, so that it matters
            which tasks share a network.
        build_model: Gives a compiled model for a tuple of tasks; further arguments of `compile`.
        epochs: Number of epochs of 20 steps.
        largest: All groups of so many tasks are trained, and the joint network.
        num_larger: How many of the larger groups, drawn at random.
    """

    tasks: tuple[str, ...]
    splits: Mapping[str, Split]
    build_model: Callable[..., tag_keras.MultiTaskModel]
    epochs: int
    largest: int
    num_larger: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """Data as a sweep takes them."""
        train = functools.partial(data.batches, self.splits["train"], BATCH_SIZE)
        return {**self.splits, "train": train}

    @property
    def fit(self) -> dict[str, Any]:
        """Arguments of `fit`."""
        return {"epochs": self.epochs, "steps_per_epoch": STEPS_PER_EPOCH, "verbose": 0}


def digits_of_6(epochs: int = 20) -> TruthSet:
    """Six of the digits' tasks and 300 images: all 63 groups."""
    tasks = ("is_even", "at_least_five", "has_loop", "left_heavy", "ink", "slant")
    return _digits(tasks, 300, epochs, largest=len(tasks))


def digits_of_9(epochs: int = 20) -> TruthSet:
    """The nine tasks and 100 images of `digits.train`: groups of up to three, and some others."""
    return _digits(data.TASKS, 100, epochs, largest=3, num_larger=20)


def planted_clusters(epochs: int = 20) -> TruthSet:
    """Clusters of three tasks, of two and of one, the last of labels that nothing explains."""
    tasks = ("a0", "a1", "a2", "b0", "b1", planted.RANDOM)
    x, y = planted.make_data(seed=0, size=1600, noise=0.6)
    y = {task: y[task][:, None] for task in tasks}
    splits = _split(x, y, ends=(100, 600, 1600))
    return _perceptrons(tasks, splits, epochs)


def cancer(epochs: int = 20) -> TruthSet:
    """Breast cancer: from the average nucleus of a sample to its worst, and to the diagnosis.

    Wisconsin Diagnostic Breast Cancer (Street et al. 1993; 569 samples, bundled with scikit-learn).
    The inputs are ten measures, averaged over the nuclei of the sample; the tasks are the diagnosis
    and the means of the three largest values of six measures. These are what a pathologist looks
    for and what a blurred or small image shows badly; they depend on the average ones, on each
    other (size, roughness), and on the diagnosis.
    """
    bunch = sklearn.datasets.load_breast_cancer()
    columns = dict(zip(bunch.feature_names, bunch.data.T, strict=True))
    measures = ("radius", "texture", "smoothness", "concavity", "symmetry", "fractal dimension")
    x = np.stack([_standard(columns[name]) for name in columns if name.startswith("mean ")], axis=1)
    y = {"malignant": (bunch.target == 0).astype(np.float32)[:, None]}
    for measure in measures:
        name = f"worst_{measure.replace(' ', '_')}"
        y[name] = _standard(columns[f"worst {measure}"])[:, None]
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = {task: values[order] for task, values in y.items()}
    splits = _split(x[order], shuffled, ends=(100, 300, len(x)))
    return _perceptrons(tuple(y), splits, epochs)


SETS: dict[str, Callable[..., TruthSet]] = {
    "digits6": digits_of_6,
    "digits9": digits_of_9,
    "planted": planted_clusters,
    "cancer": cancer,
}


def _digits(tasks: tuple[str, ...], num_train: int, epochs: int, **sizes: int) -> TruthSet:
    build = functools.partial(network.build_model, steps=epochs * STEPS_PER_EPOCH)
    splits = {
        split: (images, {task: labels[task] for task in tasks})
        for split, (images, labels) in data.load(num_train).items()
    }
    return TruthSet(tasks, splits, build, epochs, **sizes)


def _perceptrons(tasks: tuple[str, ...], splits: Mapping[str, Split], epochs: int) -> TruthSet:
    build = functools.partial(build_perceptron, steps=epochs * STEPS_PER_EPOCH)
    return TruthSet(tasks, splits, build, epochs, largest=len(tasks))


def build_perceptron(
    tasks: tuple[str, ...], steps: int, **options: Any
) -> tag_keras.MultiTaskModel:
    """A compiled model for rows of a table: two shared layers, and one linear head per task.

    Args:
        tasks: Task names; `"malignant"` is a class, all others are values.
        steps: Number of training steps, over which the learning rate falls to 0 along a cosine.
        **options: Further arguments of `compile`.
    """
    layers = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    model = tag_keras.MultiTaskModel(keras.Sequential(layers), network.heads(tasks))
    losses = dict.fromkeys(tasks, "mse")
    if "malignant" in losses:
        losses["malignant"] = keras.losses.BinaryCrossentropy(from_logits=True)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(
        keras.optimizers.Adam(schedule), losses, steps_per_execution=STEPS_PER_EPOCH, **options
    )
    return model


def _split(x: Array, y: Mapping[str, Array], ends: tuple[int, int, int]) -> dict[str, Split]:
    starts = (0, *ends[:-1])
    return {
        split: (
            x[start:end].astype(np.float32),
            {task: values[start:end].astype(np.float32) for task, values in y.items()},
        )
        for split, start, end in zip(("train", "validation", "test"), starts, ends, strict=True)
    }


def _standard(values: Array) -> Array:
    standard: Array = ((values - values.mean()) / values.std()).astype(np.float32)
    return standard
