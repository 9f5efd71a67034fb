"""The guard applied to a choice: the networks that it serves, and their losses."""

import dataclasses
from collections.abc import Sequence

import tag_keras
from benchmarks.truth.table import Truth
from tag_keras.comparison.comparison import loss_table, serving_networks, tasks_of_networks
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping


@dataclasses.dataclass(frozen=True)
class Guarded:
    """The networks that the guard serves, and total losses.

    Args:
        serving: For each task, the row of the network that serves it.
        moved: Number of tasks that the guard moved.
        validation: Total validation loss of the served networks.
        validation_joint: Total validation loss of the joint network's best seed.
        test: Total test loss of the served networks.
        test_without: Total test loss of the groups without the guard.
        test_joint: Total test loss of the joint network's best seed.
        test_single: Total test loss of the single networks, each with its best seed.
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
    """Applies the guard to a choice, with the seeds of a table.

    Args:
        truth: The table.
        serving: For each task, the row of the network that serves it before the guard.
    """
    grouping = grouping_of(truth, serving)
    rows = rows_of(truth, grouping)
    result, table = tag_keras.guard_groups(grouping, rows), loss_table(grouping, rows, "validation")
    by_kind = serving_networks(grouping)
    kinds = {"served": {task: result.network_of(task) for task in truth.tasks}}
    for kind, serves in by_kind.items():
        seeds = table.served_seeds(serves)
        kinds[kind] = {task: (name, seeds[name]) for task, name in serves.items()}
    groups, tests = tasks_of_networks(grouping), {}
    for kind, networks in kinds.items():
        tests[kind] = sum(
            float(truth.test[truth.seeds.index(seed), truth.row(groups[name]), column])
            for column, (name, seed) in enumerate(networks.values())
        )
    return Guarded(
        serving=[truth.row(groups[name]) for name, _ in kinds["served"].values()],
        moved=len(result.moves),
        validation=result.total,
        validation_joint=table.served_total(by_kind["joint"]),
        test=tests["served"],
        test_without=tests["grouped"],
        test_joint=tests["joint"],
        test_single=tests["single"],
    )


def grouping_of(truth: Truth, serving: Sequence[int]) -> Grouping:
    """The grouping of a choice: for each task, the row of the network that serves it."""
    rows = sorted(set(serving))
    serves = {task: rows.index(row) for task, row in zip(truth.tasks, serving, strict=True)}
    groups = tuple(truth.groups[row] for row in rows)
    return Grouping(truth.tasks, groups, serves, 0.0, 0.0, optimal=True)


def rows_of(truth: Truth, grouping: Grouping) -> list[Row]:
    """Validation losses of the networks of a grouping, the joint network and the single ones."""
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
        for name, group in tasks_of_networks(grouping).items()
        for place, seed in enumerate(truth.seeds)
        for task in group
    ]
