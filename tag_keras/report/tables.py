"""The tables of the report, as lines of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import Comparison, best_networks, serving_networks
from tag_keras.comparison.conclusion import MOST_NAMES
from tag_keras.comparison.serving import WAYS_TO_SERVE, Serving
from tag_keras.decision.decision import Option
from tag_keras.report.drawings import Mark, strip
from tag_keras.results import (
    FEWEST_SEEDS,
    JOINT,
    MEASURES,
    PLAIN,
    Array,
    ResultTable,
    Row,
    group_name,
    mean_and_noise,
    single_name,
)
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import score_in_group
from tag_keras.selection.solvers.problem import Score
from tag_keras.selection.stability import GroupingStability
from tag_keras.utils.colours import find_scale
from tag_keras.utils.text import fixed, joined, with_minus

# What training a network is for, by its role.
_STAGES = {
    "affinity": "Measuring: joint training with probes",
    "group": "Retraining the groups",
    "candidate": "Other groups, to learn from",
    "joint": "Yardstick: joint network",
    "single": "Yardstick: one network per task",
}


# Kinds of networks, in the order in which a page shows them.
LABELS = {
    "single": "one network per task",
    "joint": "joint network",
    "grouped": "groups",
    "served": "what is served",
}
_ROLES = {
    "joint": "joint network",
    "single": "one task",
    "group": "selected group",
    "candidate": "other group",
    "affinity": "measures",
}
# More would make a page of megabytes; all are in results.json.
MOST_NETWORKS = 500


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
            cell["change"] = _change(100 * changes[kind][place]) if kind in changes else ""
        lines.append({"label": label, "cells": cells})
    return lines


def _change(percent: Array) -> str:
    """Mean of changes (S,) in percent, with two standard errors where seeds are enough."""
    mean, noise = mean_and_noise(percent)
    if not np.isfinite(mean):
        return ""
    text = with_minus(fixed(mean, 1, "+"))
    return f"{text} ± {fixed(noise, 1)} %" if len(percent) >= FEWEST_SEEDS else f"{text} %"


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
    needed = [MEASURES, *map(group_name, range(len(grouping.groups)))]
    if by_yardsticks:
        needed += [JOINT, *map(single_name, grouping.tasks)]
    trained = table.seconds_once(needed)
    once = sum(trained.values()) if len(trained) == len(needed) else np.nan
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
    tasks, groups = option.grouping.tasks, option.grouping.groups
    if len(tasks) > MOST_NAMES:
        return f"groups of {joined(str(len(group)) for group in groups)} tasks"
    return "; ".join(_names(group, tasks) for group in groups)


def _names(group: Sequence[str], tasks: Sequence[str]) -> str:
    return "all tasks" if len(group) == len(tasks) > 1 else ", ".join(group)


def _total(table: ResultTable, networks: Mapping[str, tuple[str, int]], split: str) -> str:
    found = [table.find(*network, split, task) for task, network in networks.items()]
    known = [row.loss for row in found if row]
    return f"{math.fsum(known):#.4g}" if len(known) == len(found) else ""


def scores_table(
    grouping: Grouping, affinity: Affinity, score: Score
) -> tuple[str, list[dict[str, str]]]:
    """The unit of the scores, and a line for each task: its network, its score, whom it helps."""
    factor, unit, _ = find_scale(affinity.mean)
    lines = []
    for task in grouping.tasks:
        index = grouping.serves[task]
        group = grouping.groups[index]
        value = score_in_group(affinity, group, task, score) * factor if len(group) > 1 else 0.0
        helped = [
            group_name(other)
            for other, members in enumerate(grouping.groups)
            if task in members and other != index
        ]
        lines.append(
            {
                "task": task,
                "network": group_name(index),
                "score": with_minus(f"{value:+.3g}") if len(group) > 1 else "alone",
                "helps": ", ".join(helped),
            }
        )
    return unit, lines


def frontier_table(
    frontier: Sequence[Grouping], grouping: Grouping, affinity: Affinity
) -> dict[str, Any]:
    """A line for each number of networks: the score of its best groups, and what it gains.

    Raises:
        ValueError: If the groupings have different tasks.
    """
    for best in frontier:
        if {*best.tasks} != {*grouping.tasks}:
            raise ValueError(
                "`frontier` should hold groupings of the tasks of `grouping`. Received: tasks="
                f"{best.tasks} and {grouping.tasks}."
            )
    factor, unit, _ = find_scale(affinity.mean)
    scores = factor * np.array([best.score for best in frontier])
    gains = np.diff(scores)
    largest = float(gains.max(initial=0.0))
    decimals = max(0, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    # The first grouping is for the smallest number that is enough, and has that many groups.
    first, lines = len(frontier[0].groups), []
    for place, (best, value) in enumerate(zip(frontier, scores, strict=True)):
        gain = with_minus(f"{gains[place - 1]:+.{decimals}f}") if place else ""
        text = with_minus(f"{value:.3g}")
        label = f"{first + place} networks at most: {text}" + (f", {gain}" if gain else "")
        lines.append(
            {
                "networks": str(first + place),
                "score": text,
                "gain": gain,
                "strip": strip([Mark("grouped", value)], label, (scores.min(), scores.max())),
                "chosen": first + place == len(grouping.groups),
                "proven": best.optimal,
            }
        )
    return {"unit": unit, "lines": lines}


def describe_stability(stability: GroupingStability, affinity: Affinity) -> str:
    """How often the chosen groups win, and what it costs to choose them, in words."""
    wins, draws = round(stability.wins * stability.num_samples), stability.num_samples
    factor, unit, _ = find_scale(affinity.mean)
    score = with_minus(f"{stability.grouping.score * factor:.3g}")
    return (
        f"The chosen groups win in {wins} of {draws} draws of the affinities from their standard "
        f"errors. The expected regret is {stability.regret * factor:.2g}{unit}: on average over "
        "the draws, the chosen groups score by that much less than the best groups for the draw. "
        f"For the means of the affinities they score {score}."
    )


def networks_table(
    rows: Sequence[Row], serving: Serving | None = None, split: str = "validation"
) -> dict[str, Any]:
    """A line for each network, those that serve first, and how many are left out.

    A number is a pair of text and value; the value is NaN where there is none.
    """
    all_tasks = max((row.tasks for row in rows), key=len)
    served = dict(serving.networks) if serving else {}
    networks = {row.network: row for row in rows}
    totals = _totals(rows)
    by_task = {
        (row.seed, row.task): row.loss for row in rows if (row.network, row.split) == (JOINT, split)
    }
    seconds = ResultTable(rows).seconds(networks)
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row.network, set()).add(row.seed)
    lines: list[dict[str, Any]] = []
    for name, row in networks.items():
        own = totals.get((name, split), {})
        pairs = [
            (loss, sum(by_task[seed, task] for task in row.tasks))
            for seed, loss in own.items()
            if all((seed, task) in by_task for task in row.tasks)
        ]
        change = np.nan
        if pairs and name != JOINT and (base := float(np.mean([one[1] for one in pairs]))) > 0:
            change = 100 * (float(np.mean([one[0] for one in pairs])) / base - 1)
        trained = [*seconds.get(name, {}).values()]
        lines.append(
            {
                "name": name,
                "role": _ROLES.get(row.role, row.role),
                "served": name in served,
                "seed": served.get(name),
                "tasks": _names(row.tasks, all_tasks),
                "order": (name not in served, _place(row.role)),
                "number": _number(len(row.tasks), ".0f"),
                "seeds": _number(len(seeds[name]), ".0f"),
                "loss": _number(_mean(own.values()), ".4g"),
                "test": _number(_mean(totals.get((name, "test"), {}).values()), ".4g"),
                "change": _number(change, "+.1f", " %"),
                "seconds": _number(_mean(trained), ",.1f"),
            }
        )
    lines.sort(key=lambda line: line["order"])
    return {"lines": lines[:MOST_NETWORKS], "left_out": max(0, len(lines) - MOST_NETWORKS)}


def _place(role: str) -> int:
    return PLAIN.index(role) if role in PLAIN else len(PLAIN)


def _totals(rows: Sequence[Row]) -> dict[tuple[str, str], dict[int, float]]:
    """By network and split, the sum of the losses of its tasks by seed, if all are there."""
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for row in rows:
        by_seed = found.setdefault((row.network, row.split), {})
        by_seed.setdefault(row.seed, {})[row.task] = row.loss
    tasks = {row.network: {*row.tasks} for row in rows}
    return {
        key: {
            seed: math.fsum(losses.values())
            for seed, losses in by_seed.items()
            if {*losses} == tasks[key[0]]
        }
        for key, by_seed in found.items()
    }


def _mean(values: Iterable[float]) -> float:
    found = [*values]
    return float(np.mean(found)) if found else np.nan


def _number(value: float, kind: str, unit: str = "") -> tuple[str, float]:
    return (with_minus(f"{value:{kind}}") + unit if np.isfinite(value) else "", float(value))


def settings_table(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line for each setting, as text."""
    return [(name, _as_text(value)) for name, value in settings.items()]


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_as_text(one)}" for name, one in value.items())
    return "none" if value is None else str(value)
