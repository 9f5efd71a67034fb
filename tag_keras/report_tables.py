"""The tables of the report, as lines of words."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tag_keras import results
from tag_keras.comparison import Comparison, serving_networks
from tag_keras.grouping import Grouping
from tag_keras.plots import with_minus
from tag_keras.results import Array, Row

# Network, or what its name begins with, and what training it is for.
_STAGES = {
    "affinity": "Measuring: joint training with probes",
    "group_": "Retraining the groups",
    "joint": "Yardstick: joint network",
    "single_": "Yardstick: one network per task",
}


def losses_table(grouping: Grouping, comparison: Comparison) -> list[dict[str, Any]]:
    """A line for each task, and one for the total, with a cell for each kind of network."""
    changes, lines = comparison.changes(), []
    decimals = _decimals([row for losses in comparison.losses.values() for row in losses])
    for place, label in enumerate([*grouping.tasks, "Total"]):
        values = {kind: losses[place] for kind, losses in comparison.losses.items()}
        lowest = min(float(value.mean()) for value in values.values()) if values else 0.0
        cells = {kind: _cell(value, decimals) for kind, value in values.items()}
        for kind, cell in cells.items():
            cell["best"] = len(values) > 1 and values[kind].mean() == lowest
            change = changes[kind][place].mean() if kind in changes else np.nan
            cell["change"] = with_minus(f"{100 * change:+.1f} %") if np.isfinite(change) else ""
        lines.append({"label": label, "cells": cells})
    return lines


def metrics_table(
    grouping: Grouping, comparison: Comparison, rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """A line for each task and metric, with a cell for each kind of network."""
    table: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        if row.split == "test" and row.seed in comparison.seeds:
            for metric, value in row.metrics.items():
                key = (row.task, row.network)
                table.setdefault(metric, {}).setdefault(key, []).append(value)
    serving, lines = serving_networks(grouping), []
    for metric, values in table.items():
        series = {key: np.array(value) for key, value in values.items()}
        decimals = _decimals(series.values())
        for task in grouping.tasks:
            found = {
                kind: series.get((task, serving[kind][task]), np.array([]))
                for kind in comparison.losses
            }
            if any(value.size for value in found.values()):
                cells = {kind: _cell(value, decimals) for kind, value in found.items()}
                lines.append({"label": task, "metric": metric, "cells": cells})
    return lines


def _cell(values: Array, decimals: int) -> dict[str, Any]:
    if not values.size:
        return {"mean": "", "deviation": ""}
    mean, deviation = results.mean_and_deviation(values)
    after = f"{deviation:.{decimals}f}" if np.isfinite(deviation) else ""
    return {"mean": with_minus(f"{mean:.{decimals}f}"), "deviation": after}


def _decimals(series: Iterable[Array]) -> int:
    """Decimals for two digits of the median deviation, or else three digits of the median mean."""
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
    """A line for each stage and their sum, and what it takes to measure and train groups once.

    With `by_yardsticks`, the selection takes these, too.
    """
    names = dict.fromkeys(row.network for row in rows)
    # A group that is a yardstick was trained as that.
    runs = results.training_seconds(rows, sorted(names, key=lambda name: name.startswith("group_")))
    joint = float(np.mean([*runs.get("joint", {0: np.nan}).values()]))
    stages: dict[str, list[float]] = {}
    for name, words in _STAGES.items():
        networks = [n for n in runs if n == name or (name.endswith("_") and n.startswith(name))]
        if seconds := [value for network in networks for value in runs[network].values()]:
            stages[words] = seconds
    stages["Sum"] = [value for values in stages.values() for value in values]
    needed = ["affinity", *(f"group_{index}" for index in range(len(grouping.groups)))]
    if by_yardsticks:
        needed += ["joint", *(f"single_{task}" for task in grouping.tasks)]
    trained = results.training_seconds(rows, needed)
    means = [float(np.mean([*by_seed.values()])) for by_seed in trained.values() if by_seed]
    once = sum(means) if len(trained) == len(needed) else np.nan
    return {
        "lines": [_cost(words, values, joint) for words, values in stages.items()],
        "once": _ratio(once, joint),
    }


def _cost(words: str, seconds: Sequence[float], joint: float) -> dict[str, str]:
    total = sum(seconds)
    return {
        "stage": words,
        "networks": str(len(seconds)),
        "seconds": f"{total:,.0f}" if total >= 100 else f"{total:.1f}",
        "ratio": _ratio(total, joint),
    }


def _ratio(seconds: float, joint: float) -> str:
    return f"{seconds / joint:.2f}" if joint > 0 and np.isfinite(seconds) else ""
