"""The tables of the report, as lines of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras import results
from tag_keras.comparison.comparison import Comparison, loss_table, serving_networks
from tag_keras.comparison.serving import WAYS_TO_SERVE, Move, Serving
from tag_keras.report.plots import with_minus
from tag_keras.results import JOINT, Array, ResultTable, Row, group_name, single_name
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.text import fixed, plus_minus, sentence

# What training a network is for, by its role.
_STAGES = {
    "affinity": "Measuring: joint training with probes",
    "group": "Retraining the groups",
    "joint": "Yardstick: joint network",
    "single": "Yardstick: one network per task",
}


def losses_table(grouping: Grouping, comparison: Comparison) -> list[dict[str, Any]]:
    """A line for each task, and one for the total, with a cell for each kind of network."""
    changes, lines = comparison.changes(), []
    decimals = _decimals([row for losses in comparison.losses.values() for row in losses])
    for place, label in enumerate([*grouping.tasks, "Total"]):
        values = {kind: losses[place] for kind, losses in comparison.losses.items()}
        lowest = min((value.mean() for value in values.values()), default=0.0)
        cells = {kind: _cell(value, decimals) for kind, value in values.items()}
        for kind, cell in cells.items():
            cell["best"] = len(values) > 1 and values[kind].mean() == lowest
            change = changes[kind][place].mean() if kind in changes else np.nan
            cell["change"] = (
                with_minus(f"{fixed(100 * change, 1, '+')} %") if np.isfinite(change) else ""
            )
        lines.append({"label": label, "cells": cells})
    return lines


def metrics_table(
    grouping: Grouping, comparison: Comparison, rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """A line for each task and metric, with a cell for each kind of network."""
    table, serving, lines = ResultTable(rows), serving_networks(grouping), []

    def values_of(metric: str, network: str, task: str) -> Array:
        found = [table.find(network, seed, "test", task) for seed in comparison.seeds]
        return np.array([row.metrics[metric] for row in found if row and metric in row.metrics])

    tested = [row for row in rows if row.split == "test" and row.seed in comparison.seeds]
    for metric in dict.fromkeys(metric for row in tested for metric in row.metrics):
        pairs = {(row.network, row.task) for row in tested}
        decimals = _decimals(values_of(metric, *pair) for pair in sorted(pairs))
        for task in grouping.tasks:
            found = {
                kind: values_of(metric, serving[kind][task], task) for kind in comparison.losses
            }
            if any(value.size for value in found.values()):
                cells = {kind: _cell(value, decimals) for kind, value in found.items()}
                lines.append({"label": task, "metric": metric, "cells": cells})
    return lines


def _cell(values: Array, decimals: int) -> dict[str, Any]:
    if not values.size:
        return {"mean": "", "deviation": ""}
    mean, deviation = results.mean_and_deviation(values)
    after = fixed(deviation, decimals) if np.isfinite(deviation) else ""
    return {"mean": with_minus(fixed(mean, decimals)), "deviation": after}


def _decimals(series: Iterable[Array]) -> int:
    """Decimals for two digits of the median deviation, or else three of the median mean."""
    pairs = [results.mean_and_deviation(values) for values in series if values.size]
    means, deviations = np.abs(np.reshape(pairs, (-1, 2))).T
    for digits, sizes in ((2, deviations), (3, means)):
        positive = sizes[np.isfinite(sizes) & (sizes > 0)]
        if positive.size:
            return int(np.clip(digits - 1 - np.floor(np.log10(np.median(positive))), 0, 6))
    return 3


def costs_table(
    grouping: Grouping, rows: Sequence[Row], by_yardsticks: bool = False
) -> dict[str, Any]:
    """A line for each stage and for their sum, and the cost of measuring and training groups once.

    With `by_yardsticks`, the selection needs the joint and the single networks, too.
    """
    table, roles = ResultTable(rows), {row.network: row.role for row in rows}
    # A group that is a yardstick as well was trained as the yardstick, so the groups come last.
    runs = table.seconds(sorted(roles, key=lambda name: roles[name] == "group"))
    joint = float(np.mean([*runs.get(JOINT, {0: np.nan}).values()]))
    stages: dict[str, list[float]] = {}
    for role, words in _STAGES.items():
        networks = [runs[name] for name in runs if roles[name] == role]
        if seconds := [value for by_seed in networks for value in by_seed.values()]:
            stages[words] = seconds
    stages["Sum"] = [value for values in stages.values() for value in values]
    needed = ["affinity", *map(group_name, range(len(grouping.groups)))]
    if by_yardsticks:
        needed += [JOINT, *map(single_name, grouping.tasks)]
    trained = table.seconds(needed)
    means = [float(np.mean([*by_seed.values()])) for by_seed in trained.values() if by_seed]
    once = sum(means) if len(trained) == len(needed) else np.nan
    lines = [
        {
            "stage": words,
            "networks": str(len(seconds)),
            "seconds": f"{sum(seconds):,.0f}" if sum(seconds) >= 100 else f"{sum(seconds):.1f}",
            "ratio": _ratio(sum(seconds), joint),
        }
        for words, seconds in stages.items()
    ]
    return {"lines": lines, "once": _ratio(once, joint)}


def _ratio(seconds: float, joint: float) -> str:
    return f"{seconds / joint:.2f}" if joint > 0 and np.isfinite(seconds) else ""


def moves_table(serving: Serving, rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line for each moved task: from where, to where, why, and its losses in both networks.

    Losses are means over the seeds, with two standard errors of their paired difference; test
    losses are of the same seeds, empty if one is missing.
    """
    lines, table = [], ResultTable(rows)
    for move in serving.moves:
        noise = math.nan if move.noise is None else move.noise
        difference = plus_minus(move.mean_after - move.mean_before, noise)
        sign = "" if difference.startswith("-") else "+"
        lines.append(
            {
                "task": move.task,
                "before": move.before,
                "after": move.after,
                "why": sentence(move.reason.removeprefix("the ")),
                "means": _from_to(move.mean_before, move.mean_after),
                "difference": with_minus(sign + difference),
                "test": _test_means(table, move, serving.seeds),
            }
        )
    return lines


def _test_means(table: ResultTable, move: Move, seeds: Sequence[int]) -> str:
    means = []
    for name in (move.before, move.after):
        found = [table.find(name, seed, "test", move.task) for seed in seeds]
        known = [row.loss for row in found if row]
        if len(known) < len(found):
            return ""
        means.append(math.fsum(known) / len(known))
    return _from_to(*means)


def _from_to(before: float, after: float) -> str:
    return f"{before:#.3g} → {after:#.3g}"


def served_table(grouping: Grouping, serving: Serving, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for what is served, and for each kind of network that could be served instead.

    Each network has the seed with the least validation loss, as in what is served.
    """
    losses, table = loss_table(grouping, rows, serving.split), ResultTable(rows)
    kinds = {"served": {task: serving.network_of(task) for task in grouping.tasks}}
    for kind in ("grouped", "joint", "single"):
        serves = serving_networks(grouping)[kind]
        if {*serves.values()} <= {*losses.losses}:
            seeds = losses.served_seeds(serves)
            kinds[kind] = {task: (name, seeds[name]) for task, name in serves.items()}
    return [
        {
            "name": WAYS_TO_SERVE[kind],
            "networks": len({*networks.values()}),
            "validation": _total(table, networks, serving.split),
            "test": _total(table, networks, "test"),
        }
        for kind, networks in kinds.items()
    ]


def _total(table: ResultTable, networks: Mapping[str, tuple[str, int]], split: str) -> str:
    found = [table.find(*network, split, task) for task, network in networks.items()]
    known = [row.loss for row in found if row]
    return f"{math.fsum(known):#.4g}" if len(known) == len(found) else ""
