"""Measured losses of groups: rows of results as arrays by group, seed and task."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_keras.results import Array, Row, part_names, plain_rows
from tag_keras.utils.text import joined

Group = tuple[str, ...]
# Of more than 62 tasks, Python's numbers in an array of objects.
Masks = npt.NDArray[Any]
# Squares of larger losses, and their sums, may be infinite.
_LARGEST = 1e100


@dataclasses.dataclass(frozen=True)
class MeasuredLosses:
    """Losses of trained groups of T tasks. A group is a mask: bit t is set if it has task t.

    Args:
        tasks: Task names.
        masks: Array (G,): the groups that were trained, in increasing order.
        seeds: The R seeds of all networks, in increasing order.
        losses: Array (G, R, T), NaN where a group lacks the task or was not trained with the seed.
        parts: Array (F, G, T): losses on F equal parts of the examples, means over the seeds; F is
            0 if they are not known.
    """

    tasks: tuple[str, ...]
    masks: Masks
    seeds: tuple[int, ...]
    losses: Array
    parts: Array

    @property
    def most_seeds(self) -> int:
        """The largest number of seeds that a group was trained with."""
        return int((~np.isnan(self.losses)).any(axis=2).sum(axis=1).max())


def read_measured(
    rows: Iterable[Row], split: str, parts: Sequence[str] | None = ()
) -> MeasuredLosses:
    """Reads the plainly trained networks of full size out of rows, by their tasks.

    Args:
        rows: Results.
        split: Split whose losses count.
        parts: Splits that are equal parts of it. Rows of the split itself may then be missing.
            None takes those with the names of `part_names`, if every network has them.

    Raises:
        ValueError: If the rows lack the joint network, a network of one task, or a task of a
            network; if a loss is not finite, a network has two losses of a task, or there are
            fewer than three parts.
    """
    plain = plain_rows(rows)
    if parts is None:
        parts = _parts_of(plain, split)
    by_split = {name: [row for row in plain if row.split == name] for name in (split, *parts)}
    if isinstance(parts, str) or len(parts) in (1, 2) or len({*parts}) < len(parts):
        raise ValueError(
            "`parts` should be a list of names of at least three splits, each once. Received: "
            f"parts={parts!r}."
        )
    needed = parts if parts and not by_split[split] else [split, *parts]
    if missing := [name for name in needed if not by_split[name]]:
        splits = sorted({row.split for row in plain})
        raise ValueError(
            f"`rows` should have losses of networks on the split {missing[0]!r}. Received: "
            + (f"rows of the splits {splits}." if splits else "no row of a network to serve.")
        )
    tasks = max((row.tasks for row in by_split[needed[0]]), key=len)
    arrays = {name: _losses(by_split[name], tasks) for name in needed}
    masks, seeds, losses = arrays[needed[0]]
    for name, (other_masks, other_seeds, other) in arrays.items():
        same = other_masks == masks and other_seeds == seeds
        if not same or (np.isnan(other) != np.isnan(losses)).any():
            raise ValueError(
                f"`rows` should have the same networks on the splits {needed[0]!r} and {name!r}."
            )
    by_part = np.stack([arrays[name][2] for name in parts]) if parts else losses[:0, None]
    if split not in needed:
        losses = by_part.mean(axis=0)
    known = ~np.isnan(losses)
    number = np.maximum(known.sum(axis=1), 1)
    means = np.where(known, by_part, 0.0).sum(axis=2) / number if parts else np.zeros((0, 1, 1))
    means = np.where(known.any(axis=1), means, np.nan) if parts else means
    kind = np.int64 if len(tasks) < 63 else object
    return MeasuredLosses(tasks, np.array(masks, kind), seeds, losses, means)


def _parts_of(rows: Sequence[Row], split: str) -> tuple[str, ...]:
    names = part_names(split)
    evaluated: dict[str, set[tuple[str, int, str]]] = {name: set() for name in (split, *names)}
    for row in rows:
        if row.split in evaluated:
            evaluated[row.split].add((row.network, row.seed, row.task))
    return names if all(evaluated[name] == evaluated[split] for name in names) else ()


def _losses(rows: Sequence[Row], tasks: Group) -> tuple[list[int], tuple[int, ...], Array]:
    """Masks of the G groups, R seeds, and losses (G, R, T) of rows of one split."""
    _check_tasks(rows, tasks)
    losses: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        by_task = losses.setdefault((mask_of(row.tasks, tasks), row.seed), {})
        if by_task.setdefault(row.task, row.loss) != row.loss:
            raise ValueError(
                f"`rows` should have one loss of {row.task!r} for a network of the tasks "
                f"{row.tasks} with seed {row.seed} on {row.split!r}. Received: "
                f"{by_task[row.task]!r} and {row.loss!r}. Leave one of them out."
            )
    masks = sorted({mask for mask, _ in losses})
    seeds = tuple(sorted({seed for _, seed in losses}))
    array = np.full((len(masks), len(seeds), len(tasks)), np.nan)
    for (mask, seed), by_task in losses.items():
        group = group_of(mask, tasks)
        if missing := [task for task in group if task not in by_task]:
            raise ValueError(
                f"`rows` should have a loss on {rows[0].split!r} for each task of a network. The "
                f"network of {group} with seed {seed} has none of {missing}."
            )
        for task, loss in by_task.items():
            array[masks.index(mask), seeds.index(seed), tasks.index(task)] = loss
    _check_yardsticks(masks, tasks)
    return masks, seeds, array


def group_of(mask: int, tasks: Sequence[str]) -> Group:
    """The names of the tasks in a group."""
    return tuple(task for index, task in enumerate(tasks) if mask >> index & 1)


def mask_of(group: Iterable[str], tasks: Sequence[str]) -> int:
    """The mask of a group of task names."""
    return sum(1 << tasks.index(task) for task in group)


def _check_tasks(rows: Sequence[Row], tasks: Group) -> None:
    for row in rows:
        if other := sorted({*row.tasks} - {*tasks}):
            raise ValueError(
                "`rows` should have the joint network of all tasks. Received: a network with "
                f"{other}, {row.network!r}, and as the largest network one of {tasks}."
            )
        if row.task not in row.tasks:
            raise ValueError(
                "`rows` should have losses of tasks that their networks were trained on. Received: "
                f"{row.task!r} of the network {row.network!r}, of {row.tasks}."
            )
        if not abs(row.loss) <= _LARGEST:
            raise ValueError(
                f"`rows` should have losses of at most {_LARGEST:g}. Received: a loss of "
                f"{row.loss} of {row.task!r} in the network {row.network!r} with seed {row.seed}. "
                "Leave out the rows of this network, or train it with a smaller learning rate."
            )


def _check_yardsticks(masks: Sequence[int], tasks: Group) -> None:
    """There is a joint network by construction, because `tasks` are those of the largest."""
    alone = [task for index, task in enumerate(tasks) if 1 << index not in masks]
    if alone:
        raise ValueError(
            "`rows` should have the network of each task alone, to compare with. They lack: "
            f"{joined(alone)}."
        )
