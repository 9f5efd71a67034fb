"""Methods side by side: total test loss over the seeds, and what the training takes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tag_keras.comparison.comparison import serving_networks
from tag_keras.results import (
    JOINT,
    Array,
    ResultTable,
    Row,
    mean_and_deviation,
    total_error,
)
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.checks import check
from tag_keras.utils.text import cells_as_markdown


@dataclasses.dataclass(frozen=True)
class Method:
    """Networks of a method.

    Args:
        serves: Name of the network that serves it, by task.
        further: Names of further networks that the method has to train, such as the one that
            measures affinities.
    """

    serves: Mapping[str, str]
    further: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class MethodLine:
    """A method's line in the table, over the S seeds that all methods have.

    Args:
        name: Name of the method.
        total: Array (S,): sum over the tasks of the losses.
        change: Array (S,): difference of `total` from the baseline's of the same seed, as a part of
            the baseline's mean.
        cost: Seconds of training all its networks once, in those of the baseline.
        networks: Number of networks that serve the tasks.
    """

    name: str
    total: Array
    change: Array
    cost: float
    networks: int


def method_of(name: str, rows: Sequence[Row]) -> Method:
    """A method whose network of its own name serves all of its tasks, out of all of its results."""
    serves = {task: name for row in rows if row.network == name for task in row.tasks}
    return Method(serves, sorted({row.network for row in rows} - {name}))


def grouping_methods(grouping: Grouping, by_yardsticks: bool = False) -> dict[str, Method]:
    """The methods of a run of TAG, by the short names of the paper (Fifty et al. 2021, table 1).

    Args:
        grouping: Groups.
        by_yardsticks: Whether they were selected by what the networks of the other two measured.

    Returns:
        `"mtl"`, one joint network; `"stl"`, one network per task; and `"tag"`, the groups, with the
        training that measures the affinities, and with `by_yardsticks` those of the other two.
    """
    serving = serving_networks(grouping)
    yardsticks = [JOINT, *serving["single"].values()] if by_yardsticks else []
    return {
        "mtl": Method(serving["joint"]),
        "stl": Method(serving["single"]),
        "tag": Method(serving["grouped"], further=["affinity", *yardsticks]),
    }


def compare_methods(
    rows: Sequence[Row], methods: Mapping[str, Method], baseline: str, split: str = "test"
) -> list[MethodLine]:
    """Compares methods by the sum of the tasks' losses (Standley et al. 2020's total error).

    Args:
        rows: Results.
        methods: Networks by the name of the method.
        baseline: Name of the method that the others are compared with.
        split: Split to read.

    Returns:
        A line for each method, in their order.

    Raises:
        ValueError: If `baseline` is none of the methods, if they have other tasks than it, if a
            network has no result, or if no seed has all of them.
    """
    check(baseline in methods, f"`baseline` should be one of {list(methods)}", baseline=baseline)
    tasks = set(methods[baseline].serves)
    for name, method in methods.items():
        valid = set(method.serves) == tasks
        check(valid, f"{name!r} should have the tasks of {baseline!r}", tasks=list(method.serves))
    table = ResultTable(rows)
    complete = {name: {*table.seeds(one.serves, split)} for name, one in methods.items()}
    common = set.intersection(*complete.values())
    check(bool(common), f"`rows` should hold a seed with all losses on {split!r}", seeds=complete)
    totals = {
        name: total_error(table.losses(method.serves, split, sorted(common)))
        for name, method in methods.items()
    }
    shared = ResultTable(row for row in rows if row.seed in common)
    seconds = {name: _seconds(shared, method) for name, method in methods.items()}
    reference = totals[baseline]
    return [
        MethodLine(
            name,
            totals[name],
            (totals[name] - reference) / reference.mean(),
            seconds[name] / seconds[baseline] if seconds[baseline] else math.nan,
            len(set(method.serves.values())),
        )
        for name, method in methods.items()
    ]


def methods_as_markdown(lines: Sequence[MethodLine]) -> str:
    """The table in Markdown, which is readable in a terminal, too: means and deviations."""
    cells = [["method", "networks", "total loss", "change", "training"]]
    cells += [list(method_cells(line).values()) for line in lines]
    return cells_as_markdown(cells)


def method_cells(line: MethodLine) -> dict[str, str]:
    """The line in words: name, networks, total loss, change in percent, and cost."""
    return {
        "name": line.name,
        "networks": str(line.networks),
        "total": _with_deviation(line.total, "{:.3f}"),
        "change": _with_deviation(100 * line.change, "{:+.1f}") + " %",
        "cost": f"{line.cost:.1f}" if math.isfinite(line.cost) else "",
    }


def _with_deviation(values: Array, form: str) -> str:
    mean, deviation = mean_and_deviation(values)
    after = f" ± {form.format(deviation).lstrip('+')}" if math.isfinite(deviation) else ""
    return form.format(mean) + after


def _seconds(table: ResultTable, method: Method) -> float:
    """Seconds of training all networks of a method once; means over the seeds."""
    names = dict.fromkeys([*method.serves.values(), *method.further])
    seconds = table.seconds(names)
    if missing := [name for name in names if name not in seconds]:
        raise ValueError(f"`rows` should hold results of the network {missing[0]!r}.")
    return sum(float(np.mean([*by_seed.values()])) for by_seed in seconds.values() if by_seed)
