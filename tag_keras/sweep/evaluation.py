"""Evaluates a network: a row of results.json for each task and split."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras.model import MultiTaskModel
from tag_keras.results import Row, is_part
from tag_keras.sweep.network import IF_NOT_FINITE, Network


def evaluate_network(
    model: MultiTaskModel,
    network: Network,
    splits: Mapping[str, Mapping[str, Any]],
    seconds: float,
    stacked: bool = False,
) -> list[Row]:
    """Evaluates a network: a row of results.json for each task and split.

    A metric with one value per class, such as `F1Score()`, becomes a metric for each class:
    `f1_score_0` and so on; parts of a split have losses only. `splits` has the arguments of
    `evaluate` for each split.

    Raises:
        ValueError: If a task has no label in a split, or if a loss or metric is not finite.
    """
    rows = []
    for split, parts in splits.items():
        with warnings.catch_warnings():
            # An error follows.
            warnings.filterwarnings("ignore", "The evaluation data have no label")
            logs = model.evaluate(**parts, return_dict=True, verbose=0)
        # A model of another class than `MultiTaskModel` may not know.
        without: list[str] = getattr(model, "tasks_without_labels", list)()
        rows += rows_of(network, split, logs, without, seconds, stacked)
    return rows


def rows_of(
    network: Network,
    split: str,
    logs: Mapping[str, Any],
    without: Sequence[str],
    seconds: float,
    stacked: bool = False,
) -> list[Row]:
    """The rows of a network on a split, from what `evaluate` logs.

    Raises:
        ValueError: If there are tasks `without` labels, or if a loss or metric is not finite.
    """
    if without:
        raise ValueError(
            f"The split {split!r} has no label of the tasks {without}: all are NaN or have the "
            "sample weight 0. Give it labels of these tasks, or leave the tasks out."
        )
    metrics: dict[str, dict[str, float]] = {task: {} for task in network.tasks}
    for name, value in _numbers(logs):
        owner = task_of(name, network.tasks)
        key = name.removeprefix(f"{owner}_")
        if is_part(split) and key != "loss":
            # Of a few examples, some metrics are not defined.
            continue
        if not math.isfinite(value):
            raise ValueError(
                f"{name} of the network {network.name!r}, seed {network.seed}, is {value} on the "
                f"split {split!r}. {IF_NOT_FINITE}"
            )
        if owner is not None:
            metrics[owner][key] = value
    return [
        network.row(task, split, values.pop("loss"), values, seconds, stacked)
        for task, values in metrics.items()
    ]


def task_of(name: str, tasks: Sequence[str]) -> str | None:
    """The task that a name in the logs belongs to: the longest, as one may begin another's."""
    return max((task for task in tasks if name.startswith(f"{task}_")), key=len, default=None)


def _numbers(logs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers by name; of several entries under one name, each with its index behind the name."""
    for name, value in logs.items():
        array = np.asarray(value, float)
        for index, number in np.ndenumerate(array):
            place = "".join(f"_{axis}" for axis in index) if array.size > 1 else ""
            yield f"{name}{place}", float(number)
