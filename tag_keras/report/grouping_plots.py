"""Figures of the groups: the chosen ones, what they changed, and others beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.report import plots
from tag_keras.report.plots import Place, new_axes
from tag_keras.report.tables import LABELS
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import score_in_group
from tag_keras.selection.solvers.problem import Score
from tag_keras.utils.checks import check_choice
from tag_keras.utils.colours import find_scale
from tag_keras.utils.text import with_minus

# Okabe and Ito's colours, which colour-blind readers tell apart; the same on the whole page.
COLOURS = {"joint": "#0072B2", "single": "#D55E00", "grouped": "#009E73", "served": "#7F3C8D"}
_MARKERS = {"single": "s", "grouped": "o", "served": "D"}
# With more points, the gains do not fit between them.
_MOST_GAINS = 16


def plot_grouping(
    grouping: Grouping, affinity: Affinity, score: Score = "mean", place: Place = new_axes
) -> Any:
    """Axes with a diagram of the groups: tasks on the left, networks on the right.

    A solid line runs from a task to the network that serves it, a dashed line to a network that
    it only helps. The number on a solid line is the score of the task in its group.

    Args:
        grouping: Groups of tasks, and the group that serves each task.
        affinity: Affinities of the same tasks.
        score: The score of a task in its group: `"mean"` or `"sum"` of its affinities.
        place: Axes to draw on, or a function that makes them.

    Raises:
        ValueError: If `score` is something else.
    """
    check_choice("score", score, ("mean", "sum"))
    order = sorted(affinity.tasks, key=lambda task: grouping.serves[task])
    left = {task: float(-place) for place, task in enumerate(order)}
    right: list[float] = []
    for index in range(len(grouping.groups)):
        served = [left[task] for task in grouping.served(index)]
        # A network that serves nothing goes below all the others.
        right.append(float(np.mean(served)) if served else min(*left.values(), *right) - 1)
    lowest = min(*left.values(), *right)
    axes = plots.axes_at(place, 8, 1.2 - 0.42 * lowest)
    legend = _draw_lines(axes, grouping, affinity, score, left, right)
    axes.scatter([0] * len(left), list(left.values()), s=60, color=plots.INK, zorder=3)
    axes.scatter([1] * len(right), right, s=170, marker="s", color=COLOURS["grouped"], zorder=3)
    axes.set_yticks(list(left.values()), list(left), parse_math=False, fontsize=11)
    axes.set(xlim=(-0.03, 1.03), ylim=(lowest - 0.5, 0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    plots.add_legend_below(axes, [*legend.values()], [*legend], place)
    return axes


def _draw_lines(
    axes: Any,
    grouping: Grouping,
    affinity: Affinity,
    score: Score,
    left: Mapping[str, float],
    right: Sequence[float],
) -> dict[str, dict[str, Any]]:
    """Draws the lines and the words at them, and returns the legend: style by word."""
    factor, unit, _ = find_scale(affinity.mean)
    solid: dict[str, Any] = {"color": COLOURS["grouped"], "linewidth": 2.2}
    dashed: dict[str, Any] = {"color": "#777777", "linewidth": 1.3, "linestyle": (0, (4, 3))}
    style = {"ha": "center", "va": "center", "fontsize": 9, "zorder": 2.5}
    box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none"}
    for index, group in enumerate(grouping.groups):
        served, helpers = grouping.served(index), grouping.helpers(index)
        for task in group:
            start, end = left[task], right[index]
            axes.plot((0, 1), (start, end), **(solid if task in served else dashed))
            if task in served:
                value = f"{score_in_group(affinity, group, task, score) * factor:+.3g}"
                words = with_minus(value) if len(group) > 1 else "alone"
                axes.text(0.16, start + 0.16 * (end - start), words, bbox=box, **style)
        text = f"group_{index}\nserves {len(served)}"
        if helpers:
            text += f", helped by {len(helpers)}"
        axes.text(1.04, right[index], text, va="center", fontsize=11, linespacing=1.4)
    kind = "mean affinity" if score == "mean" else "sum of the affinities"
    return {f"served by ({kind} from its group{unit})": solid, "only helps": dashed}


def plot_comparison(
    tasks: Sequence[str], changes: Mapping[str, Array], place: Place = new_axes
) -> Any:
    """Axes with the changes of the test loss against the joint network, by task.

    The bars are two standard errors over the seeds.

    Args:
        tasks: T task names.
        changes: Relative changes (T + 1, S) of the T tasks and their total over S seeds, by kind
            of network (`"single"`, `"grouped"`).
        place: Axes to draw on, or a function that makes them.
    """
    places = np.append(np.arange(len(tasks)), len(tasks) + 0.6)
    axes = plots.axes_at(place, 8, 2 + 0.45 * len(tasks))
    styles: list[dict[str, Any]] = [{"color": COLOURS["joint"], "linewidth": 2}]
    axes.axvline(0, **styles[0])
    axes.axhline(len(tasks) - 0.2, color=plots.INK, linewidth=0.8)
    for number, kind in enumerate(changes):
        heights = places + 0.3 * (number - (len(changes) - 1) / 2)
        percent = 100 * changes[kind]
        seeds = percent.shape[1]
        errors = 2 * percent.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else None
        marker = {"marker": _MARKERS[kind], "markersize": 7, "linestyle": ""}
        styles.append({"color": COLOURS[kind], **marker})
        axes.errorbar(percent.mean(axis=1), heights, xerr=errors, capsize=3, **styles[-1])
    axes.set_yticks(places, [*tasks, "total"], parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("change of the test loss against the joint network, % (left is better)")
    words = [LABELS[kind] for kind in ("joint", *changes)]
    plots.add_legend_below(axes, styles, words, place)
    return axes


def plot_frontier(
    frontier: Sequence[Grouping],
    grouping: Grouping,
    affinity: Affinity,
    place: Place = new_axes,
) -> Any:
    """Axes with the score of the best groups by the number of networks; the chosen ones are marked.

    Each point has the gain in score over one network less. It is hollow where there is no proof.

    Args:
        frontier: The best groups by the number of networks, from `selection_frontier`.
        grouping: The chosen groups.
        affinity: Affinities of the same tasks, which set the unit.
        place: Axes to draw on, or a function that makes them.

    Raises:
        ValueError: If the groupings have different tasks.
    """
    for best in frontier:
        if set(best.tasks) != set(grouping.tasks):
            raise ValueError(
                "`frontier` should hold groupings of the tasks of `grouping`. Received: tasks="
                f"{best.tasks} and {grouping.tasks}."
            )
    factor, unit, _ = find_scale(affinity.mean)
    scores = factor * np.array([best.score for best in frontier])
    # The first grouping is for the smallest number that is enough, and has that many groups.
    numbers = len(frontier[0].groups) + np.arange(len(scores))
    line = {"color": plots.INK, "marker": "o", "markersize": 5, "linewidth": 1.4}
    chosen = {"color": COLOURS["grouped"], "marker": "s", "markersize": 13, "linestyle": ""}
    legend = {"best groups; the number is the gain of that network": line, "chosen groups": chosen}
    axes = plots.axes_at(place, 8, 3.6)
    axes.plot(numbers, scores, zorder=3, **line)
    axes.plot([len(grouping.groups)], [grouping.score * factor], zorder=2, **chosen)
    if unproven := [index for index, best in enumerate(frontier) if not best.optimal]:
        hollow = line | {"markerfacecolor": "white", "linestyle": "", "zorder": 4}
        legend["best groups found, not proven"] = hollow
        axes.plot(numbers[unproven], scores[unproven], **hollow)
    if len(scores) <= _MOST_GAINS:
        _write_gains(axes, numbers, scores)
    axes.margins(x=0.06, y=0.2)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.tick_params(length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("number of networks, at most")
    axes.set_ylabel(f"mean score of the tasks{unit}".replace(", ", ",\n"))
    plots.add_legend_below(axes, [*legend.values()], [*legend], place)
    return axes


def _write_gains(axes: Any, numbers: Any, heights: Any) -> None:
    gains = np.diff(heights)
    largest = float(gains.max(initial=0.0))
    decimals = max(0, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    style = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 9}
    for number, height, gain in zip(numbers[1:], heights[1:], gains, strict=True):
        text = with_minus(f"{gain:+.{decimals}f}")
        axes.annotate(text, (number, height), (0, 9), **style)
