"""Losses of joint, single and grouped networks: by kind for the report, by name for the guard."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras import results
from tag_keras.results import JOINT, Array, ResultTable, Row, group_name, single_name
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.text import fixed


def serving_networks(grouping: Grouping) -> dict[str, dict[str, str]]:
    """By kind of network, the name of the network that serves each task."""
    return {
        "joint": dict.fromkeys(grouping.tasks, JOINT),
        "single": {task: single_name(task) for task in grouping.tasks},
        "grouped": {task: group_name(grouping.serves[task]) for task in grouping.tasks},
    }


def tasks_of_networks(grouping: Grouping) -> dict[str, tuple[str, ...]]:
    """By name, the tasks that a network trains: first the groups, then joint, then single ones."""
    groups = {group_name(index): group for index, group in enumerate(grouping.groups)}
    single = {single_name(task): (task,) for task in grouping.tasks}
    return {**groups, JOINT: grouping.tasks, **single}


def check_rows(grouping: Grouping, rows: Sequence[Row]) -> None:
    """Checks that rows are of networks for the groups and tasks of a grouping, losses finite."""
    if not rows:
        raise ValueError("`rows` should hold at least one result. Received: rows=[].")
    trained = {**tasks_of_networks(grouping), "affinity": grouping.tasks}
    for row in rows:
        name = f"the network {row.network!r}, seed {row.seed}"
        if row.network not in trained:
            if row.role in ("group", "single"):
                raise ValueError(
                    "`rows` should come from networks for the groups and tasks of `grouping`. "
                    f"Received: {name}. Delete its results."
                )
            continue
        if different := sorted({*trained[row.network]} ^ {*row.tasks, row.task}):
            raise ValueError(
                f"`rows` should come from networks for the tasks of `grouping`. The tasks of {name}"
                f" differ by {different}. Delete its results and train it again."
            )
        if not np.isfinite(row.loss):
            raise ValueError(
                f"`rows` should hold finite losses. Received: {row.loss} for {row.task!r} of "
                f"{name}."
            )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Test losses of each kind of network, at the seeds that all kinds have.

    Args:
        losses: Losses (T + 1, S) of T tasks and their total over S seeds, by kind (`"joint"`,
            `"single"`, `"grouped"`). A kind needs a seed with the losses of all tasks to be here.
        seeds: The S seeds, in increasing order.
        left_out: Seeds that some kinds have, but not all.
    """

    losses: Mapping[str, Array]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]

    def changes(self) -> dict[str, Array]:
        """Differences (T + 1, S) from the joint network by kind, as parts of its mean loss.

        Empty without a joint network; NaN where its mean loss is not positive.
        """
        others = dict(self.losses)
        joint = others.pop("joint", None)
        if joint is None:
            return {}
        mean = joint.mean(axis=1, keepdims=True)
        mean = np.where(mean > 0, mean, np.nan)
        return {kind: (losses - joint) / mean for kind, losses in others.items()}


def compare(grouping: Grouping, rows: Sequence[Row]) -> Comparison:
    """Compares the test losses of joint, single and grouped networks.

    Args:
        grouping: Groups of tasks, and the group that serves each task.
        rows: Results of networks named `"joint"`, `"single_<task>"` and `"group_<index>"`.

    Raises:
        ValueError: If the kinds of networks that have complete seeds have none in common.
    """
    table, serving = ResultTable(rows), serving_networks(grouping)
    complete = {kind: {*table.seeds(serves, "test")} for kind, serves in serving.items()}
    complete = {kind: seeds for kind, seeds in complete.items() if seeds}
    common = set.intersection(*complete.values()) if complete else set()
    if complete and not common:
        raise ValueError(
            "`rows` should hold a seed with the test losses of every kind of network. Received "
            f"these seeds: {complete}. Train all the kinds with the same seeds."
        )
    losses = {}
    for kind in complete:
        by_task = table.losses(serving[kind], "test", sorted(common))
        losses[kind] = np.array([*by_task.values(), results.total_error(by_task)])
    left_out = set().union(*complete.values()) - common
    return Comparison(losses, tuple(sorted(common)), tuple(sorted(left_out)))


def losses_as_text(grouping: Grouping, rows: Sequence[Row]) -> str:
    """Test losses by task and kind for the terminal, mean and deviation over the seeds."""
    comparison = compare(grouping, rows)
    if not comparison.losses:
        return 'There are no test losses: no kind of network has results on the split "test".'
    lines = [["test loss", *comparison.losses]]
    for place, label in enumerate([*grouping.tasks, "total"]):
        lines.append([label])
        for losses in comparison.losses.values():
            mean, deviation = results.mean_and_deviation(losses[place])
            after = f" +- {fixed(deviation, 4)}" if np.isfinite(deviation) else ""
            lines[-1].append(fixed(mean, 4) + after)
    return "\n".join(
        label.ljust(20) + "".join(f"  {cell:>16}" for cell in cells) for label, *cells in lines
    )


@dataclasses.dataclass(frozen=True)
class LossTable:
    """Losses of networks on one split, at the seeds that all of them have.

    Of each network, the seed with the least loss over the tasks that it serves is served. The
    methods take the name of the network that serves each task.

    Args:
        losses: By name of the network and task, the losses (S,) over S seeds.
        seeds: The S seeds, in increasing order.
    """

    losses: Mapping[str, Mapping[str, Array]]
    seeds: tuple[int, ...]

    def served_seeds(self, serves: Mapping[str, str]) -> dict[str, int]:
        """The seed that is served, by name of the network, in the order of `losses`."""
        seeds = {}
        for name, losses in self.losses.items():
            served = [losses[task] for task in serves if serves[task] == name]
            if served:
                totals = [math.fsum(at_seed) for at_seed in zip(*served, strict=True)]
                seeds[name] = self.seeds[totals.index(min(totals))]
        return seeds

    def served_losses(self, serves: Mapping[str, str]) -> dict[str, float]:
        """The loss that is served, by task."""
        seeds = self.served_seeds(serves)
        places = {name: self.seeds.index(seed) for name, seed in seeds.items()}
        return {task: float(self.losses[name][task][places[name]]) for task, name in serves.items()}

    def served_total(self, serves: Mapping[str, str]) -> float:
        """Sum of the losses that are served, whatever the order of the tasks."""
        return math.fsum(self.served_losses(serves).values())

    def are_alike(self, one: str, other: str) -> bool:
        """Whether two names have the same tasks and losses, and so are one network."""
        left, right = self.losses[one], self.losses[other]
        return {*left} == {*right} and all(np.array_equal(left[t], right[t]) for t in left)


def loss_table(grouping: Grouping, rows: Sequence[Row], split: str) -> LossTable:
    """Puts together the losses of the group networks, the joint network and the single networks.

    Args:
        grouping: Groups of tasks.
        rows: Results of networks named `"group_<index>"`, `"joint"` and `"single_<task>"`. Other
            networks are ignored.
        split: Split to read, for instance `"validation"`.

    Returns:
        Table, without joint and single networks that have no seed with losses of all their tasks.

    Raises:
        ValueError: If a group has no such seed, or if the networks have none in common.
    """
    table, networks = ResultTable(rows), tasks_of_networks(grouping)
    serves = {name: dict.fromkeys(tasks, name) for name, tasks in networks.items()}
    seeds = {name: table.seeds(serves[name], split) for name in networks}
    for index, tasks in enumerate(grouping.groups):
        name = group_name(index)
        if not seeds[name]:
            absent = [task for task in tasks if not table.seeds({task: name}, split)]
            raise ValueError(
                f"`rows` should hold the losses of {name!r} on {split!r} for all of its tasks at "
                f"one seed. Missing: {', '.join(absent or tasks)}. Evaluate the network on data "
                "with the labels of these tasks."
            )
    seeds = {name: complete for name, complete in seeds.items() if complete}
    common = sorted(set.intersection(*map(set, seeds.values())))
    if not common:
        raise ValueError(
            "`rows` should hold a seed that every network was trained with. Received these seeds "
            f"on {split!r}: {seeds}. Train all of them with the same seeds."
        )
    losses = {name: table.losses(serves[name], split, common) for name in seeds}
    return LossTable(losses, tuple(common))
