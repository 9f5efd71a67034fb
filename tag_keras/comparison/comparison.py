"""Test losses of joint, single and grouped networks side by side."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.results import JOINT, Array, ResultTable, Row, group_name, single_name
from tag_keras.selection.grouping import Grouping


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Test losses of each kind of network, over the seeds that all of the kinds have.

    Args:
        losses: Array (T + 1, S) by kind (`"joint"`, `"single"`, `"grouped"`): the T tasks, and
            below them their total, over S seeds. A kind without a complete seed is left out.
        seeds: The S seeds, in increasing order.
        left_out: Seeds that some of the kinds have, but not all.
    """

    losses: Mapping[str, Array]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]

    def changes(self) -> dict[str, Array]:
        """Differences from the joint network, relative to its mean: array (T + 1, S) by kind.

        Empty without a joint network; NaN where its mean loss is not positive.
        """
        if "joint" not in self.losses:
            return {}
        joint = self.losses["joint"]
        mean = joint.mean(axis=1, keepdims=True)
        mean = np.where(mean > 0, mean, np.nan)
        kinds = [kind for kind in self.losses if kind != "joint"]
        return {kind: (self.losses[kind] - joint) / mean for kind in kinds}


def serving_networks(grouping: Grouping) -> dict[str, dict[str, str]]:
    """Name of the network that serves it, by kind of network and task."""
    return {
        "joint": dict.fromkeys(grouping.tasks, JOINT),
        "single": {task: single_name(task) for task in grouping.tasks},
        "grouped": {task: group_name(grouping.serves[task]) for task in grouping.tasks},
    }


def tasks_of_networks(grouping: Grouping) -> dict[str, tuple[str, ...]]:
    """Tasks that it trains, by name of the network: the groups, then joint, then single ones."""
    groups = {group_name(index): group for index, group in enumerate(grouping.groups)}
    single = {single_name(task): (task,) for task in grouping.tasks}
    return {**groups, JOINT: grouping.tasks, **single}


def compare(grouping: Grouping, rows: Sequence[Row]) -> Comparison:
    """Puts the test losses of joint, single and grouped networks side by side.

    Args:
        grouping: Groups, and which of them serves each task.
        rows: Results of networks named `"joint"`, `"single_<task>"` and `"group_<index>"`.

    Returns:
        Comparison.

    Raises:
        ValueError: If kinds of networks have complete seeds, but none in common.
    """
    table, serving = ResultTable(rows), serving_networks(grouping)
    complete = {kind: {*table.seeds(serving[kind], "test")} for kind in serving}
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
    """Test losses by task and kind, mean and deviation over the seeds, for the terminal."""
    comparison = compare(grouping, rows)
    lines = ["test loss".ljust(20) + "".join(kind.rjust(18) for kind in comparison.losses)]
    for place, label in enumerate([*grouping.tasks, "total"]):
        cells = [results.mean_and_deviation(values[place]) for values in comparison.losses.values()]
        text = [
            f"{mean:.4f}" + (f" +- {deviation:.4f}" if np.isfinite(deviation) else "")
            for mean, deviation in cells
        ]
        lines.append(label.ljust(20) + "".join(cell.rjust(18) for cell in text))
    return "\n".join(lines)


def check_results(affinity: Affinity, grouping: Grouping, rows: Sequence[Row]) -> None:
    """Checks that the three speak of the same tasks and groups.

    Raises:
        ValueError: If they do not, if there are no rows, or if a loss is not finite.
    """
    if different := sorted(set(affinity.tasks).symmetric_difference(grouping.tasks)):
        raise ValueError(
            "`affinity` and `grouping` should have the same tasks. Only one of them has: "
            f"{different}."
        )
    check_rows(grouping, rows)


def check_rows(grouping: Grouping, rows: Sequence[Row]) -> None:
    """Checks that results are of networks for the groups and tasks of a grouping.

    Raises:
        ValueError: If they are not, if there are none, or if a loss is not finite.
    """
    if not rows:
        raise ValueError("`rows` should hold at least one result. Received: rows=[].")
    trained = {name: set(tasks) for name, tasks in tasks_of_networks(grouping).items()}
    trained["affinity"] = trained["joint"]
    for row in rows:
        _check_row(row, trained)


def _check_row(row: Row, trained: Mapping[str, set[str]]) -> None:
    name = f"the network {row.network!r}, seed {row.seed}"
    if row.network not in trained:
        if row.role in ("group", "single"):
            raise ValueError(
                "`rows` should come from networks for the groups and tasks of `grouping`. "
                f"Received: {name}. Delete its results."
            )
        return
    if different := sorted(trained[row.network] ^ {*row.tasks, row.task}):
        raise ValueError(
            f"`rows` should come from networks for the tasks of `grouping`. The tasks of {name} "
            f"differ by {different}. Delete its results and train it again."
        )
    if not np.isfinite(row.loss):
        raise ValueError(
            f"`rows` should hold finite losses. Received: {row.loss} for {row.task!r} of {name}."
        )


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
    table, seeds = ResultTable(rows), {}
    serves = {
        name: dict.fromkeys(tasks, name) for name, tasks in tasks_of_networks(grouping).items()
    }
    groups = {*map(group_name, range(len(grouping.groups)))}
    for name in serves:
        if complete := table.seeds(serves[name], split):
            seeds[name] = complete
        elif name in groups:
            _raise_missing(name, serves[name], table, split)
    common = sorted(set.intersection(*map(set, seeds.values())))
    if not common:
        raise ValueError(
            "`rows` should hold a seed that every network was trained with. Received these seeds "
            f"on {split!r}: {seeds}. Train all of them with the same seeds."
        )
    losses = {name: table.losses(serves[name], split, common) for name in seeds}
    return LossTable(losses, tuple(common))


def _raise_missing(name: str, tasks: Iterable[str], table: ResultTable, split: str) -> None:
    absent = [task for task in tasks if not table.seeds({task: name}, split)]
    raise ValueError(
        f"`rows` should hold the losses of {name!r} on {split!r} for all of its tasks at one seed. "
        f"Missing: {', '.join(absent or tasks)}. Evaluate the network on data with the labels of "
        "these tasks."
    )
