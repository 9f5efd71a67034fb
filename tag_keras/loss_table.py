"""Losses of the trained networks by task and seed, and which seed's networks would be served."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras.comparison import tasks_of_networks
from tag_keras.grouping import Grouping
from tag_keras.results import Array, Row


@dataclasses.dataclass(frozen=True)
class LossTable:
    """Losses of networks on one split, at the seeds that all of them have.

    Only one seed's network is served under a name: the one with the least loss over the tasks that
    it serves. So what is served follows from `serves`, the name of the network of each task.

    Args:
        losses: Array (S,) of losses over S seeds, by task, by name of the network.
        seeds: The S seeds, in increasing order.
    """

    losses: Mapping[str, Mapping[str, Array]]
    seeds: tuple[int, ...]

    def served_seeds(self, serves: Mapping[str, str]) -> dict[str, int]:
        """Seed of its network that is served, by name, in the order of `losses`."""
        return {name: self.seeds[place] for name, place in self._places(serves).items()}

    def served_losses(self, serves: Mapping[str, str]) -> dict[str, float]:
        """Loss of the network that serves it, by task."""
        places = self._places(serves)
        return {task: float(self.losses[name][task][places[name]]) for task, name in serves.items()}

    def served_total(self, serves: Mapping[str, str]) -> float:
        """Sum of the losses that are served; it does not depend on the order of the tasks."""
        return math.fsum(self.served_losses(serves).values())

    def are_alike(self, one: str, other: str) -> bool:
        """Whether two names have the same tasks and losses, as those of one network."""
        left, right = self.losses[one], self.losses[other]
        return {*left} == {*right} and all(np.array_equal(left[t], right[t]) for t in left)

    def _places(self, serves: Mapping[str, str]) -> dict[str, int]:
        places = {}
        for name, losses in self.losses.items():
            served = [losses[task] for task in serves if serves[task] == name]
            if served:
                totals = [math.fsum(at_seed) for at_seed in zip(*served, strict=True)]
                places[name] = totals.index(min(totals))
        return places


def loss_table(grouping: Grouping, rows: Sequence[Row], split: str) -> LossTable:
    """Puts together the losses of the networks for groups, of the joint and of the single ones.

    Args:
        grouping: Groups of tasks.
        rows: Results of networks named `"group_<index>"`, `"joint"` and `"single_<task>"`; others
            are not looked at.
        split: Split to read.

    Returns:
        Table, without the networks that have no seed with the losses of all their tasks.

    Raises:
        ValueError: If a group has no such seed, or if the networks have none in common.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        if row.split == split:
            found.setdefault(row.network, {}).setdefault(row.seed, {})[row.task] = row.loss
    networks, seeds = tasks_of_networks(grouping), {}
    for name, tasks in networks.items():
        complete = [seed for seed, losses in found.get(name, {}).items() if {*tasks} <= {*losses}]
        if complete:
            seeds[name] = sorted(complete)
        elif name.startswith("group_"):
            _raise_missing(name, tasks, found.get(name, {}), split)
    common = sorted(set.intersection(*map(set, seeds.values())))
    if not common:
        raise ValueError(
            "`rows` should hold a seed that every network was trained with. Received these seeds "
            f"on {split!r}: {seeds}. Train all of them with the same seeds."
        )
    losses = {
        name: {
            task: np.array([found[name][seed][task] for seed in common]) for task in networks[name]
        }
        for name in seeds
    }
    return LossTable(losses, tuple(common))


def _raise_missing(
    name: str, tasks: Sequence[str], found: Mapping[int, Mapping[str, float]], split: str
) -> None:
    absent = [task for task in tasks if all(task not in losses for losses in found.values())]
    raise ValueError(
        f"`rows` should hold the losses of {name!r} on {split!r} for all of its tasks at one seed. "
        f"Missing: {', '.join(absent or tasks)}. Evaluate the network on data with the labels of "
        "these tasks."
    )
