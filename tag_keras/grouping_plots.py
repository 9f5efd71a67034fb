"""Figures of what came out: which network serves which task, and what that changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras import plots
from tag_keras.affinity import Affinity
from tag_keras.checks import check_choice
from tag_keras.grouping import Grouping
from tag_keras.plots import Figure
from tag_keras.results import Array
from tag_keras.selection_problem import Score

# Okabe and Ito's colours, which colour-blind readers tell apart; the same on the whole page.
COLOURS = {"joint": "#0072B2", "single": "#D55E00", "grouped": "#009E73"}
NAMES = {"joint": "joint network", "single": "one network per task", "grouped": "groups"}
_MARKERS = {"single": "s", "grouped": "o"}


def plot_grouping(grouping: Grouping, affinity: Affinity, score: Score = "mean") -> Figure:
    """Diagram of the groups: tasks on the left, networks on the right.

    A solid line runs from a task to the network that serves it, a dashed line to a network that
    it only helps. The number on a solid line is the score of the task in its group.

    Args:
        grouping: Groups, and which of them serves each task.
        affinity: Affinities of the same tasks.
        score: What the groups were selected by, as in `select_groups`.

    Returns:
        Figure.

    Raises:
        ValueError: If `score` is something else.
    """
    check_choice("score", score, ("mean", "sum"))
    order = sorted(affinity.tasks, key=lambda task: grouping.serves[task])
    left = {task: float(-place) for place, task in enumerate(order)}
    right: list[float] = []
    for index in range(len(grouping.groups)):
        served = [left[task] for task in order if grouping.serves[task] == index]
        # A network that serves nothing goes below all the others.
        right.append(float(np.mean(served)) if served else min(*left.values(), *right) - 1)
    lowest = min(*left.values(), *right)
    figure = plots.new_figure(8, 1.2 - 0.42 * lowest)
    axes: Any = figure.subplots()
    _draw_lines(axes, grouping, affinity, score, left, right)
    axes.scatter([0] * len(left), list(left.values()), s=60, color=plots.INK, zorder=3)
    axes.scatter([1] * len(right), right, s=170, marker="s", color=COLOURS["grouped"], zorder=3)
    axes.set_yticks(list(left.values()), list(left), parse_math=False, fontsize=11)
    axes.set(xlim=(-0.03, 1.03), ylim=(lowest - 0.5, 0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _draw_lines(
    axes: Any,
    grouping: Grouping,
    affinity: Affinity,
    score: Score,
    left: Mapping[str, float],
    right: Sequence[float],
) -> None:
    factor, unit, _ = plots.find_scale(plots.between_tasks(affinity.mean))
    solid: dict[str, Any] = {"color": COLOURS["grouped"], "linewidth": 2.2}
    dashed: dict[str, Any] = {"color": "#777777", "linewidth": 1.3, "linestyle": (0, (4, 3))}
    for index, group in enumerate(grouping.groups):
        served = grouping.served(index)
        for task in group:
            start, end = left[task], right[index]
            axes.plot((0, 1), (start, end), **(solid if task in served else dashed))
            if task in served:
                words = _describe_score(affinity, group, task, score, factor)
                style = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 2.5}
                box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none"}
                axes.text(0.16, start + 0.16 * (end - start), words, bbox=box, **style)
        helpers = len(group) - len(served)
        text = f"group_{index}\nserves {len(served)}" + f", helped by {helpers}" * (helpers > 0)
        axes.text(1.04, right[index], text, va="center", fontsize=11, linespacing=1.4)
    kind = "mean affinity" if score == "mean" else "sum of the affinities"
    legend = [f"served by ({kind} from its group{unit})", "only helps"]
    plots.add_legend(axes.figure, [solid, dashed], legend, "lower")


def _describe_score(
    affinity: Affinity, group: Sequence[str], task: str, score: Score, factor: float
) -> str:
    sources = [affinity.tasks.index(other) for other in group if other != task]
    if not sources:
        return "alone"
    column = affinity.mean[sources, affinity.tasks.index(task)]
    value = column.mean() if score == "mean" else column.sum()
    return plots.with_minus(f"{value * factor:+.3g}")


def plot_comparison(tasks: Sequence[str], changes: Mapping[str, Array]) -> Figure:
    """Changes of the test loss against the joint network, with two standard errors over seeds.

    Args:
        tasks: T task names.
        changes: Relative changes, array (T + 1, S) of the T tasks and their total over S seeds,
            by kind of network (`"single"`, `"grouped"`).

    Returns:
        Figure.
    """
    places = np.append(np.arange(len(tasks)), len(tasks) + 0.6)
    figure = plots.new_figure(8, 2 + 0.45 * len(tasks))
    axes: Any = figure.subplots()
    styles: list[Mapping[str, Any]] = [{"color": COLOURS["joint"], "linewidth": 2}]
    axes.axvline(0, **styles[0])
    axes.axhline(len(tasks) - 0.2, color=plots.INK, linewidth=0.8)
    for place, kind in enumerate(changes):
        heights = places + 0.3 * (place - (len(changes) - 1) / 2)
        percent = 100 * changes[kind]
        seeds = percent.shape[1]
        errors = 2 * percent.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
        style: dict[str, Any] = {
            "color": COLOURS[kind],
            "marker": _MARKERS[kind],
            "markersize": 7,
            "ls": "",
        }
        axes.errorbar(percent.mean(axis=1), heights, xerr=errors, capsize=3, **style)
        styles.append(style)
    axes.set_yticks(places, [*tasks, "total"], parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("change of the test loss against the joint network, % (left is better)")
    plots.add_legend(figure, styles, [NAMES[kind] for kind in ("joint", *changes)], "lower")
    return figure
