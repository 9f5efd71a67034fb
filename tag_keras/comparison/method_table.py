"""Methods side by side: their total losses over the seeds, and the seconds of their training."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tag_keras.comparison.comparison import serving_networks
from tag_keras.results import (
    JOINT,
    MEASURES,
    Array,
    ResultTable,
    Row,
    mean_and_deviation,
    total_error,
)
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.checks import check
from tag_keras.utils.text import cells_as_markdown, fixed


@dataclasses.dataclass(frozen=True)
class Method:
    """The networks that a method trains.

    Args:
        serves: By task, the name of the network that serves it.
        further: Names of the other networks that it trains, such as the one that measures.
    """

    serves: Mapping[str, str]
    further: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class MethodLine:
    """A method's line in the table, over the S seeds that all methods have.

    Args:
        name: Name of the method.
        total: Total loss (S,): the sum over the tasks.
        change: Difference (S,) of `total` from the baseline's at the same seed, as a part of the
            baseline's mean.
        cost: Seconds of training all networks of the method once, divided by the baseline's.
        networks: Number of networks that serve the tasks.
    """

    name: str
    total: Array
    change: Array
    cost: float
    networks: int


def method_of(name: str, rows: Sequence[Row]) -> Method:
    """A method whose results are `rows`, and whose network named as the method serves all tasks."""
    serves = {task: name for row in rows if row.network == name for task in row.tasks}
    return Method(serves, sorted({row.network for row in rows} - {name}))


def grouping_methods(grouping: Grouping, by_yardsticks: bool = False) -> dict[str, Method]:
    """The methods of a run of TAG, by their short names (Fifty et al. 2021, table 1).

    Args:
        grouping: Groups that TAG selected.
        by_yardsticks: Whether the selection used losses of the networks of `"mtl"` and `"stl"`.

    Returns:
        `"mtl"`, one joint network; `"stl"`, one network per task; and `"tag"`, the groups, which
        also train the network that measures and, with `by_yardsticks`, the others' networks.
    """
    serving = serving_networks(grouping)
    yardsticks = [JOINT, *serving["single"].values()] if by_yardsticks else []
    return {
        "mtl": Method(serving["joint"]),
        "stl": Method(serving["single"]),
        "tag": Method(serving["grouped"], further=[MEASURES, *yardsticks]),
    }


def compare_methods(
    rows: Sequence[Row], methods: Mapping[str, Method], baseline: str, split: str = "test"
) -> list[MethodLine]:
    """Compares methods by total error (Standley et al. 2020): the sum of the tasks' losses.

    Args:
        rows: Results of the networks of all methods.
        methods: The networks of each method, by its name.
        baseline: Name of the method that the others are compared with.
        split: Split whose losses count.

    Returns:
        A line for each method, in their order.

    Raises:
        ValueError: If `baseline` is not a method, methods differ in tasks, a network has no result,
            or the methods have no seed in common.
    """
    check(baseline in methods, f"`baseline` should be one of {list(methods)}", baseline=baseline)
    tasks = set(methods[baseline].serves)
    for name, method in methods.items():
        same = set(method.serves) == tasks
        check(same, f"{name!r} should have the tasks of {baseline!r}", tasks=list(method.serves))
    table = ResultTable(rows)
    complete = {name: {*table.seeds(method.serves, split)} for name, method in methods.items()}
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
    """The table in Markdown, with means and deviations over the seeds."""
    head = ["method", "networks", "total loss", "change", "training"]
    return cells_as_markdown([head, *(list(method_cells(line).values()) for line in lines)])


def method_cells(line: MethodLine) -> dict[str, str]:
    """The cells of a line by name; the change is in percent."""
    return {
        "name": line.name,
        "networks": str(line.networks),
        "total": _with_deviation(line.total, 3),
        "change": _with_deviation(100 * line.change, 1, "+") + " %",
        "cost": f"{line.cost:.1f}" if math.isfinite(line.cost) else "",
    }


def _with_deviation(values: Array, decimals: int, sign: str = "") -> str:
    mean, deviation = mean_and_deviation(values)
    after = f" ± {fixed(deviation, decimals)}" if math.isfinite(deviation) else ""
    return fixed(mean, decimals, sign) + after


def _seconds(table: ResultTable, method: Method) -> float:
    """Seconds of training all networks of a method once."""
    names = dict.fromkeys([*method.serves.values(), *method.further])
    seconds = table.seconds_once(names)
    if missing := [name for name in names if name not in seconds]:
        raise ValueError(f"`rows` should hold results of the network {missing[0]!r}.")
    return sum(seconds.values())
