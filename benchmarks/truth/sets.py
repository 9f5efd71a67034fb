"""The problems of the truth tables: small enough to train every group of their tasks."""

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
        splits: Data of `"train"`, `"validation"` and `"test"`. There are few examples to train on,
            so that it matters which tasks share a network.
        build_model: Function that gives a compiled model for a tuple of tasks, and takes further
            arguments of `compile`.
        epochs: Number of epochs of 20 steps.
        largest: Number of tasks up to which all groups are trained.
        num_larger: Number of larger groups to train, drawn at random.
    """

    tasks: tuple[str, ...]
    splits: Mapping[str, Split]
    build_model: Callable[..., tag_keras.MultiTaskModel]
    epochs: int
    largest: int
    num_larger: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """Data of a sweep: by split, arrays or a function that gives a dataset."""
        train = functools.partial(data.batches, self.splits["train"], BATCH_SIZE)
        return {**self.splits, "train": train}

    @property
    def fit(self) -> dict[str, Any]:
        """Arguments of `fit`."""
        return {"epochs": self.epochs, "steps_per_epoch": STEPS_PER_EPOCH, "verbose": 0}


def digits_of_6(epochs: int = 20) -> TruthSet:
    """Six tasks of the digits and 300 images: all 63 groups."""
    tasks = ("is_even", "at_least_five", "has_loop", "left_heavy", "ink", "slant")
    return _digits(tasks, 300, epochs, largest=len(tasks))


def digits_of_9(epochs: int = 20) -> TruthSet:
    """The nine tasks and 100 images of `digits.train`: groups of up to three, and 20 others."""
    return _digits(data.TASKS, 100, epochs, largest=3, num_larger=20)


def planted_clusters(epochs: int = 20) -> TruthSet:
    """Clusters of three tasks and of two, and one task whose labels nothing explains."""
    tasks = ("a0", "a1", "a2", "b0", "b1", planted.RANDOM)
    x, y = planted.make_data(seed=0, size=1600, noise=0.6)
    y = {task: y[task][:, None] for task in tasks}
    splits = _split(x, y, ends=(100, 600, 1600))
    return _perceptrons(tasks, splits, epochs)


def cancer(epochs: int = 20) -> TruthSet:
    """Breast cancer: the diagnosis and the worst nuclei of a sample, from its average nucleus.

    Wisconsin Diagnostic Breast Cancer (Street et al. 1993; 569 samples, bundled with scikit-learn).
    The inputs are ten measures, averaged over the nuclei of the sample. The tasks are the diagnosis
    and, for six measures, the mean of the three largest values. A pathologist looks for these, and
    a blurred or small image shows them badly. They depend on the averages, on each other (size,
    roughness), and on the diagnosis.
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
    """Builds a compiled model for tabular data: two shared layers, and a linear head per task.

    Args:
        tasks: Task names. `"malignant"` is a binary class; all others are numbers.
        steps: Number of training steps, in which the learning rate falls to 0 along a cosine.
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
