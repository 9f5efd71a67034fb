"""The tables of the report, as lines of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras import results
from tag_keras.comparison.comparison import Comparison, best_networks, serving_networks
from tag_keras.comparison.serving import WAYS_TO_SERVE, Serving
from tag_keras.decision.decision import Option
from tag_keras.report.plots import with_minus
from tag_keras.results import JOINT, Array, ResultTable, Row, group_name, single_name
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.text import fixed

# What training a network is for, by its role.
_STAGES = {
    "affinity": "Measuring: joint training with probes",
    "group": "Retraining the groups",
    "candidate": "Other groups, to learn from",
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
    grouping: Grouping,
    comparison: Comparison,
    rows: Sequence[Row],
    serving: Serving | None = None,
) -> list[dict[str, Any]]:
    """A line for each task and metric, with a cell for each kind of network."""
    table, networks, lines = ResultTable(rows), serving_networks(grouping, serving), []

    def values_of(metric: str, network: str, task: str) -> Array:
        found = [table.find(network, seed, "test", task) for seed in comparison.seeds]
        return np.array([row.metrics[metric] for row in found if row and metric in row.metrics])

    tested = [row for row in rows if row.split == "test" and row.seed in comparison.seeds]
    for metric in dict.fromkeys(metric for row in tested for metric in row.metrics):
        pairs = {(row.network, row.task) for row in tested}
        decimals = _decimals(values_of(metric, *pair) for pair in sorted(pairs))
        for task in grouping.tasks:
            found = {
                kind: values_of(metric, networks[kind][task], task) for kind in comparison.losses
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


def served_table(grouping: Grouping, serving: Serving, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for what is served, and for each kind of network that could be served instead.

    Each network has the seed with the least validation loss, as in what is served.
    """
    choices = {"served": serving.grouping, "grouped": grouping}
    groups = {
        kind: {task: one.groups[index] for task, index in one.serves.items()}
        for kind, one in choices.items()
    }
    groups["joint"] = dict.fromkeys(grouping.tasks, grouping.tasks)
    groups["single"] = {task: (task,) for task in grouping.tasks}
    lines, table = [], ResultTable(rows)
    for kind, served in groups.items():
        networks, total = best_networks(rows, serving.split, served)
        by_task = {task: networks[group] for task, group in served.items()}
        lines.append(
            {
                "name": WAYS_TO_SERVE[kind],
                "networks": len(networks),
                "validation": f"{total:#.4g}",
                "test": _total(table, by_task, "test"),
            }
        )
    return lines


def options_table(serving: Serving) -> list[dict[str, Any]]:
    """A line for each choice of the decision: its gain over the joint network and over fewer."""
    return [
        {
            "networks": str(len(option.grouping.groups)),
            "choice": _choice(option),
            "gain": with_minus("{} ({})".format(*option.over_joint.as_text())),
            "probability": f"{option.over_joint.probability:.2f}",
            "next": f"{option.over_fewer.probability:.2f}",
            "served": option.grouping.groups == serving.grouping.groups,
        }
        for option in serving.decision.options[1:]
    ]


def _choice(option: Option) -> str:
    if option.kind == "single":
        return WAYS_TO_SERVE["single"]
    tasks = option.grouping.tasks
    groups = (
        "all tasks" if group == tasks else ", ".join(group) for group in option.grouping.groups
    )
    return "; ".join(groups)


def _total(table: ResultTable, networks: Mapping[str, tuple[str, int]], split: str) -> str:
    found = [table.find(*network, split, task) for task, network in networks.items()]
    known = [row.loss for row in found if row]
    return f"{math.fsum(known):#.4g}" if len(known) == len(found) else ""
