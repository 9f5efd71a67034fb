"""Task names: checks of names, and values by task in the order of the user's tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def check_task_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns `tasks` as a tuple.

    Raises:
        ValueError: If there is no name, or if one is repeated, empty, no string or not UTF-8.
    """
    names = tasks if isinstance(tasks, list | tuple) else [None]
    if not all(isinstance(task, str) and task for task in names):
        raise ValueError(f"`tasks` should be a list of names. Received: tasks={tasks!r}.")
    if not tasks:
        raise ValueError("`tasks` should name at least one task. Received: tasks=[].")
    if broken := [task for task in tasks if any("\ud800" <= one <= "\udfff" for one in task)]:
        raise ValueError(
            "`tasks` should be names that can be written as UTF-8, without a half of a surrogate "
            f"pair. Received: {broken}."
        )
    if repeated := sorted({task for task in tasks if list(tasks).count(task) > 1}):
        raise ValueError(f"`tasks` should be unique. Repeated: {repeated}.")
    return tuple(tasks)


def check_agreement(
    tasks: Sequence[str], complete: Mapping[str, Any], partial: Mapping[str, Any]
) -> None:
    """Checks the tasks of the dicts that `compile` received. Values other than dicts pass.

    Args:
        tasks: Task names of the heads.
        complete: Arguments by name; a dict among them should have every task.
        partial: Arguments by name; a dict among them may lack tasks.

    Raises:
        ValueError: If a dict has unknown tasks or lacks some; the message lists them all.
    """
    differences = []
    for name, value in {**complete, **partial}.items():
        if not isinstance(value, Mapping):
            continue
        if unknown := [task for task in value if task not in tasks]:
            differences.append(f"`{name}` has the unknown tasks {unknown}")
        if name in complete and (missing := [task for task in tasks if task not in value]):
            differences.append(f"`{name}` lacks the tasks {missing}")
    if differences:
        raise ValueError(
            f"Task names should agree with the heads {list(tasks)}, but {'; '.join(differences)}."
        )


def select_labels(labels: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """Selects the labels of `tasks`, in this order, from a batch that may hold more.

    For one task, the labels need no dict.

    Raises:
        ValueError: If labels are missing, or if a task has several arrays.
    """
    if not isinstance(labels, Mapping):
        if len(tasks) > 1 or labels is None:
            raise ValueError(
                f"Labels should be a dict with the tasks {list(tasks)}. "
                f"Received: {type(labels).__name__}."
            )
        # Keras, too, takes a list of one array for its only output.
        labels = {tasks[0]: labels[0] if _has_arrays(labels) and len(labels) == 1 else labels}
    if missing := [task for task in tasks if task not in labels]:
        raise ValueError(
            f"Labels should hold every task of the model. Missing: {missing}. "
            f"Received: {sorted(labels)}."
        )
    for task in tasks:
        # TensorFlow would make one tensor of several, and broadcast it against the predictions.
        if isinstance(labels[task], Mapping) or _has_arrays(labels[task]):
            raise ValueError(
                f"The labels of the task {task!r} should be one array. "
                f"Received: {type(labels[task]).__name__}."
            )
    return {task: labels[task] for task in tasks}


def _has_arrays(value: Any) -> bool:
    """Whether it is a list of arrays, rather than of numbers."""
    is_list = isinstance(value, list | tuple)
    return is_list and any(hasattr(one, "shape") and not np.isscalar(one) for one in value)


def select_weights(sample_weight: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """The sample weights by task, from a dict or one value for all tasks; `None` where absent."""
    if isinstance(sample_weight, Mapping):
        return {task: sample_weight.get(task) for task in tasks}
    return dict.fromkeys(tasks, sample_weight)


def metrics_by_task(name: str, metrics: Any, tasks: Sequence[str]) -> Mapping[str, Any] | None:
    """The metrics by task: a dict by task stays as it is, a name or names count for every task.

    Raises:
        ValueError: If `metrics`, the argument `name` of `compile`, is something else. A metric
            object holds the state of one task, so it cannot serve several.
    """
    if metrics is None or isinstance(metrics, Mapping):
        return metrics
    names = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        raise ValueError(
            f"`{name}` should be a dict of metrics by task, or a list of names for all tasks. "
            f"Received: {name}={metrics!r}."
        )
    return {task: list(names) for task in tasks}
