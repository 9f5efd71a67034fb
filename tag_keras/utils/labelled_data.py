"""Checks of data with labels by task, by what is known of them before they are read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def check_data(name: str, data: Any, tasks: Sequence[str]) -> None:
    """Checks arrays or a dataset. Data that only a reading would tell something of pass.

    Args:
        name: What to call the data in messages.
        data: A dataset, `(x, y)`, `(x, y, sample_weight)`, or something else that is read later.
        tasks: Names of the tasks that need labels.

    Raises:
        ValueError: If there are no labels for a task, or, in arrays, only missing ones; if a
            dataset has single examples, or if arrays differ in their numbers of examples.
    """
    spec = getattr(data, "element_spec", None)
    if spec is not None:
        check_batched(name, data)
        parts = spec if isinstance(spec, tuple) else (spec,)
    elif isinstance(data, tuple | list):
        parts = tuple(data)
    elif isinstance(data, Mapping) or hasattr(data, "shape"):
        parts = (data,)
    else:
        return
    if len(parts) not in (2, 3):
        raise ValueError(
            f"{name} should be `(x, y)` or `(x, y, sample_weight)`, or a dataset of these, with "
            f"`y` a dict by task. Received: {type(data).__name__} of "
            f"{len(parts)} part{'' if len(parts) == 1 else 's'}."
        )
    labels, weights = parts[1], (*parts, None)[2]
    _check_labels(name, labels, tasks)
    check_weights(name, labels, weights, whole=spec is None)
    if spec is None:
        sizes = {one.shape[0] for part in parts for one in _leaves(part) if len(one.shape)} - {None}
        _check_present(name, labels, weights, tasks)
        if len(sizes) > 1:
            raise ValueError(
                f"{name} should have arrays of the same number of examples. "
                f"Received: {sorted(sizes)} examples."
            )


def check_batched(name: str, dataset: Any) -> None:
    """Raises a `ValueError` if the elements of a dataset are examples rather than batches."""
    spec = dataset.element_spec
    inputs, targets = (spec[:1], spec[1:]) if isinstance(spec, tuple) else ((spec,), ())
    shapes = _known_shapes(inputs) + _known_shapes(targets)
    sizes = {shape[0] for shape in shapes if shape} - {None}
    # A batch may have many rows of inputs for one label, as a bag of images has. Single numbers for
    # another number of labels are the features of one example.
    are_vectors = all(len(shape) < 2 for shape in _known_shapes(inputs))
    if () in _known_shapes(targets) or (are_vectors and len(sizes) > 1):
        raise ValueError(
            f"{name} should be a dataset of batches, and has single examples: add `.batch(32)`, "
            f"for instance. Received: element_spec={spec}."
        )


def check_weights(name: str, labels: Any, weights: Any, whole: bool = True) -> None:
    """Checks that a dict of sample weights has the tasks of the labels; all of them if `whole`."""
    if not isinstance(weights, Mapping):
        return
    tasks = list(labels) if isinstance(labels, Mapping) else []
    unknown = [task for task in weights if task not in tasks]
    missing = [task for task in tasks if task not in weights] if whole else []
    if unknown or missing:
        raise ValueError(
            f"{name}: `sample_weight` should be one array for all tasks, or a dict with the tasks "
            f"of the labels, {tasks}. Unknown: {unknown}. Missing: {missing}."
        )


def _check_labels(name: str, labels: Any, tasks: Sequence[str]) -> None:
    if isinstance(labels, Mapping):
        if missing := [task for task in tasks if task not in labels]:
            raise ValueError(
                f"{name} should have labels of every task. Missing: {missing}. "
                f"Received: {list(labels)}."
            )
    elif labels is None or len(tasks) > 1:
        raise ValueError(
            f"{name} should have labels in a dict by task, with {list(tasks)}. "
            f"Received: {type(labels).__name__}."
        )


def _check_present(name: str, labels: Any, weights: Any, tasks: Sequence[str]) -> None:
    """Raises a `ValueError` if all labels of a task, in arrays, are missing."""
    without = []
    for task in tasks:
        of_task = labels[task] if isinstance(labels, Mapping) else labels
        weight = weights.get(task) if isinstance(weights, Mapping) else weights
        if _is_all(of_task, np.isnan) or _is_all(weight, np.logical_not):
            without.append(task)
    if without:
        raise ValueError(
            f"{name} has no label of the tasks {without}: all are missing, as NaN or by a sample "
            "weight of 0. Give it labels of these tasks, or leave the tasks out."
        )


def _is_all(array: Any, condition: Any) -> bool:
    """Whether a condition holds for all of an array of floating-point numbers."""
    is_array = isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)
    # Most arrays are told by their first number.
    return is_array and bool(condition(array[:1]).all()) and bool(condition(array).all())


def _known_shapes(spec: Any) -> list[tuple[int | None, ...]]:
    return [tuple(one.shape) for one in _leaves(spec) if one.shape.rank is not None]


def _leaves(value: Any) -> Iterator[Any]:
    """What has a shape in tuples, lists and dicts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for one in value:
            yield from _leaves(one)
    elif hasattr(value, "shape"):
        yield value
