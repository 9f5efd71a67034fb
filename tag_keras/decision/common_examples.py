"""Examples that tasks have in common: without them, affinities between tasks are noise."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tag_keras.results import Array
from tag_keras.utils.checks import check
from tag_keras.utils.text import joined, percent

# With a smaller share, affinities were noise in one study (arXiv 2604.07848).
FEW = 1 / 3
_MOST_PAIRS = 3


def share_of_common_examples(
    labels: Mapping[str, npt.ArrayLike],
    sample_weight: Mapping[str, npt.ArrayLike] | npt.ArrayLike | None = None,
) -> Array:
    """Share of the examples with a label of one task that have a label of another, too.

    A label is missing if it is NaN, in all elements if it is a vector, or if its weight is 0. Tasks
    that have few examples in common can hardly tell how they help each other: below about a third,
    affinities by gradients were noise in one study (arXiv 2604.07848).

    Args:
        labels: Arrays (N, ...) by task.
        sample_weight: Weights (N,) of all tasks, or by task. Tasks without one have all examples.

    Returns:
        Array (T, T) [source, target], in the order of `labels`: of the examples with a label of the
        target, the share that has one of the source. NaN for a target without labels.

    Raises:
        ValueError: If arrays differ in their numbers of examples.

    Example:

    ```python
    labels = {"a": [0.1, 0.2, math.nan, math.nan], "b": [1.0, math.nan, 2.0, 3.0]}
    tag_keras.share_of_common_examples(labels)  # b has a's in 1/3: [[1, 1/3], [1/2, 1]]
    ```
    """
    check(
        isinstance(labels, Mapping) and len(labels) > 0,
        "`labels` should be a dict of arrays by task",
        type=type(labels),
    )
    present = {task: _present(values) for task, values in labels.items()}
    for task in present:
        weight = sample_weight.get(task) if isinstance(sample_weight, Mapping) else sample_weight
        if weight is not None:
            weights = np.asarray(weight)
            _check_sizes(task, len(weights), len(present[task]))
            present[task] &= weights.reshape(len(weights), -1).any(axis=1)
    first = next(iter(present))
    for task, values in present.items():
        _check_sizes(task, len(values), len(present[first]))
    members = np.array(list(present.values()), np.float64)
    number = members.sum(axis=1)
    shares: Array = members @ members.T / np.where(number, number, np.nan)
    return shares


def few_common_examples(tasks: list[str], shares: Array) -> str:
    """A sentence on the pairs of tasks that have few examples in common; empty if there are none.

    Args:
        tasks: T names.
        shares: Array (T, T), from `share_of_common_examples`.
    """
    # The larger of the two shares: a task with few labels may have all of them in common.
    both = np.fmax(shares, shares.T)
    pairs = [(both[i, j], i, j) for i in range(len(tasks)) for j in range(i) if both[i, j] < FEW]
    if not pairs:
        return ""
    shown = [
        f"{tasks[j]} and {tasks[i]} ({percent(share)})"
        for share, i, j in sorted(pairs)[:_MOST_PAIRS]
    ]
    more = f", and {len(pairs) - _MOST_PAIRS} more pairs" if len(pairs) > _MOST_PAIRS else ""
    return (
        f"Few examples have labels of both {joined(shown)}{more}: how such tasks affect each other "
        "is hardly told by affinities. Believe the trained networks."
    )


def _present(values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.floating):
        return np.ones(len(array), dtype=bool)
    present: npt.NDArray[np.bool_] = ~np.isnan(array).reshape(len(array), -1).all(axis=1)
    return present


def _check_sizes(task: str, number: int, wanted: int) -> None:
    if number != wanted:
        raise ValueError(
            f"Labels and weights should be of the same number of examples. Received: {number} of "
            f"the task {task!r}, and {wanted} of others."
        )
