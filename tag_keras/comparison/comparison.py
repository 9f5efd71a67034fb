"""Losses of joint, single and grouped networks, by kind, and the best seed of each."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tag_keras import results
from tag_keras.comparison.serving import Serving
from tag_keras.decision.measured import Group
from tag_keras.results import (
    JOINT,
    Array,
    ResultTable,
    Row,
    group_name,
    plain_rows,
    single_name,
)
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.text import fixed


def serving_networks(
    grouping: Grouping, serving: Serving | None = None
) -> dict[str, dict[str, str]]:
    """By kind of network, the name of the network that serves each task.

    What is served is a kind of its own if it is none of the others.
    """
    kinds = {
        "joint": dict.fromkeys(grouping.tasks, JOINT),
        "single": {task: single_name(task) for task in grouping.tasks},
        "grouped": {task: group_name(grouping.serves[task]) for task in grouping.tasks},
    }
    if serving and not any(_is_served(grouping, serving, serves) for serves in kinds.values()):
        kinds["served"] = {task: serving.network_of(task)[0] for task in grouping.tasks}
    return kinds


def _is_served(grouping: Grouping, serving: Serving, serves: Mapping[str, str]) -> bool:
    """Whether networks, by task, have the tasks of those that are served. Names may differ."""
    trained, served = tasks_of_networks(grouping), serving.grouping
    return all(
        {*trained[name]} == {*served.groups[served.serves[task]]} for task, name in serves.items()
    )


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
    """Losses of each kind of network on one split, at the seeds that all kinds have.

    Args:
        losses: Losses (T + 1, S) of T tasks and their total over S seeds, by kind (`"joint"`,
            `"single"`, `"grouped"`, and `"served"` if that is none of these). A kind needs a seed
            with the losses of all tasks to be here.
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


def compare(
    grouping: Grouping,
    rows: Sequence[Row],
    serving: Serving | None = None,
    split: str = "test",
) -> Comparison:
    """Compares the losses of joint, single and grouped networks, and of what is served.

    Args:
        grouping: Groups of tasks, and the group that serves each task.
        rows: Results of networks named `"joint"`, `"single_<task>"` and `"group_<index>"`, and of
            the networks that are served.
        serving: What is served.
        split: Split whose losses count.

    Raises:
        ValueError: If the kinds of networks that have complete seeds have none in common.
    """
    table, kinds = ResultTable(rows), serving_networks(grouping, serving)
    complete = {kind: {*table.seeds(serves, split)} for kind, serves in kinds.items()}
    complete = {kind: seeds for kind, seeds in complete.items() if seeds}
    common = set.intersection(*complete.values()) if complete else set()
    if complete and not common:
        raise ValueError(
            f"`rows` should hold a seed with the {split} losses of every kind of network. Received "
            f"these seeds: {complete}. Train all the kinds with the same seeds."
        )
    losses = {}
    for kind in complete:
        by_task = table.losses(kinds[kind], split, sorted(common))
        losses[kind] = np.array([*by_task.values(), results.total_error(by_task)])
    left_out = set().union(*complete.values()) - common
    return Comparison(losses, tuple(sorted(common)), tuple(sorted(left_out)))


def losses_as_text(grouping: Grouping, rows: Sequence[Row], serving: Serving | None = None) -> str:
    """Test losses by task and kind for the terminal, mean and deviation over the seeds."""
    comparison = compare(grouping, rows, serving)
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


def best_networks(
    rows: Iterable[Row], split: str, served: Mapping[str, Group]
) -> tuple[dict[Group, tuple[str, int]], float]:
    """The best trained network of each group: of its seeds, that of the least loss.

    Args:
        rows: Results. A network that was trained once under several names is called by the first of
            the roles `"joint"`, `"single"`, `"group"` and `"candidate"`.
        split: Split whose losses count.
        served: By task, the group that serves it.

    Returns:
        By group, name and seed of the network with the least loss over the tasks that it serves;
        and the sum of these losses.
    """
    losses: dict[frozenset[str], dict[tuple[str, int], dict[str, float]]] = {}
    for row in plain_rows(rows):
        if row.split == split:
            networks = losses.setdefault(frozenset(row.tasks), {})
            networks.setdefault((row.network, row.seed), {})[row.task] = row.loss
    best, total = {}, []
    for group in dict.fromkeys(served.values()):
        tasks = [task for task in served if served[task] == group]
        sums = {
            network: math.fsum(by_task[task] for task in tasks)
            for network, by_task in losses[frozenset(group)].items()
        }
        best[group] = min(sums, key=sums.__getitem__)
        total.append(sums[best[group]])
    return best, math.fsum(total)
