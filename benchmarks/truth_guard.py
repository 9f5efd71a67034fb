"""What the guard makes of a choice: the networks of the groups, the joint and the single ones."""

import dataclasses
from collections.abc import Sequence

import numpy as np

import tag_keras
from benchmarks.truth_table import Truth
from tag_keras.grouping import Grouping
from tag_keras.results import Row


@dataclasses.dataclass(frozen=True)
class Guarded:
    """What would be served, and its total losses.

    Args:
        serving: Row of the network that serves it, by task.
        moved: Number of tasks that the guard moved.
        validation: Of what is served.
        validation_joint: Of the joint network's best seed.
        test: Of what is served.
        test_without: Of the groups without the guard.
        test_joint: Of the joint network's best seed.
        test_single: Of each task's own network's best seed.
    """

    serving: list[int]
    moved: int
    validation: float
    validation_joint: float
    test: float
    test_without: float
    test_joint: float
    test_single: float


def guarded(truth: Truth, serving: Sequence[int]) -> Guarded:
    """What would be served, of the seeds of a table.

    Args:
        truth: Table.
        serving: Row of the network that serves it, by task, before the guard.
    """
    grouping = grouping_of(truth, serving)
    result = tag_keras.guard_groups(grouping, rows_of(truth, grouping))
    served = [result.networks[result.grouping.serves[task]] for task in truth.tasks]
    groups = {f"group_{index}": group for index, group in enumerate(grouping.groups)}
    groups |= {"joint": truth.tasks} | {f"single_{task}": (task,) for task in truth.tasks}
    rows = [truth.row(groups[name]) for name, _ in served]
    places = [truth.seeds.index(seed) for _, seed in served]
    return Guarded(
        serving=rows,
        moved=len(result.moves),
        validation=result.total,
        validation_joint=_served(truth, truth.joint())[0],
        test=float(truth.test[places, rows, np.arange(len(rows))].sum()),
        test_without=_served(truth, serving)[1],
        test_joint=_served(truth, truth.joint())[1],
        test_single=_served(truth, truth.single())[1],
    )


def grouping_of(truth: Truth, serving: Sequence[int]) -> Grouping:
    """The grouping of rows that serve the tasks."""
    rows = sorted(set(serving))
    serves = {task: rows.index(row) for task, row in zip(truth.tasks, serving, strict=True)}
    groups = tuple(truth.groups[row] for row in rows)
    return Grouping(truth.tasks, groups, serves, 0.0, 0.0, optimal=True)


def rows_of(truth: Truth, grouping: Grouping) -> list[Row]:
    """Validation losses of the networks of groups, of the joint and of the single ones."""
    networks = {"joint": truth.tasks}
    networks |= {f"single_{task}": (task,) for task in truth.tasks}
    networks |= {f"group_{index}": group for index, group in enumerate(grouping.groups)}
    return [
        Row(
            name,
            group,
            seed,
            task,
            "validation",
            float(truth.validation[place, truth.row(group), truth.tasks.index(task)]),
            {},
            0.0,
        )
        for name, group in networks.items()
        for place, seed in enumerate(truth.seeds)
        for task in group
    ]


def _served(truth: Truth, serving: Sequence[int]) -> tuple[float, float]:
    """Total validation and test losses, of each network the seed that is best on validation."""
    validation = test = 0.0
    for row in set(serving):
        columns = np.flatnonzero(np.equal(serving, row))
        best = truth.validation[:, row, columns].sum(axis=1).argmin()
        validation += truth.validation[best, row, columns].sum()
        test += truth.test[best, row, columns].sum()
    return float(validation), float(test)
