"""Figures and words of the selection: what a further network gains, and what noise would change."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patches
import matplotlib.ticker
import numpy as np

from tag_keras import plots
from tag_keras.affinity import Affinity
from tag_keras.grouping import Grouping
from tag_keras.grouping_plots import COLOURS
from tag_keras.plots import Figure
from tag_keras.stability import GroupingStability

# With more points, the gains do not fit between them.
_MOST_GAINS = 16


def plot_frontier(frontier: Sequence[Grouping], grouping: Grouping, affinity: Affinity) -> Figure:
    """Score of the best groups by the number of networks; the chosen groups are marked.

    The number at a point is what the score gains by that network, compared to one less. Points of
    groups that are not proven to be the best are hollow.

    Args:
        frontier: The best groups by the number of networks, as `selection_frontier` gives them.
        grouping: The chosen groups.
        affinity: Affinities of the same tasks, for the unit.

    Returns:
        Figure.

    Raises:
        ValueError: If the tasks of the groupings differ.
    """
    for best in frontier:
        if set(best.tasks) != set(grouping.tasks):
            raise ValueError(
                "`frontier` should hold groupings of the tasks of `grouping`. Received: tasks="
                f"{best.tasks} and {grouping.tasks}."
            )
    scores = np.array([best.score for best in frontier])
    factor, unit, _ = plots.find_scale(plots.between_tasks(affinity.mean))
    # The first grouping is that of the smallest number that is enough, and so has that many groups.
    numbers = len(frontier[0].groups) + np.arange(len(scores))
    figure = plots.new_figure(8, 3.6)
    axes: Any = figure.subplots()
    line = {"color": plots.INK, "marker": "o", "markersize": 5, "linewidth": 1.4}
    chosen = {"color": COLOURS["grouped"], "marker": "s", "markersize": 13, "ls": ""}
    axes.plot(numbers, scores * factor, zorder=3, **line)
    axes.plot([len(grouping.groups)], [grouping.score * factor], zorder=2, **chosen)
    if len(scores) <= _MOST_GAINS:
        _write_gains(axes, numbers, scores * factor)
    axes.margins(x=0.06, y=0.2)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.tick_params(length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("number of networks, at most")
    axes.set_ylabel(f"mean score of the tasks{unit}".replace(", ", ",\n"))
    styles, words = [line, chosen], ["best groups; the number is the gain of that network"]
    words.append("chosen groups")
    unproven = [index for index, best in enumerate(frontier) if not best.optimal]
    if unproven:
        styles.append(line | {"markerfacecolor": "white", "ls": "", "zorder": 4})
        words.append("best groups found, not proven")
        axes.plot(numbers[unproven], scores[unproven] * factor, **styles[-1])
    plots.add_legend(figure, styles, words, "lower")
    return figure


def _write_gains(axes: Any, numbers: Any, heights: Any) -> None:
    gains = np.diff(heights)
    largest = float(gains.max(initial=0.0))
    decimals = max(0, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    style = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 9}
    for number, height, gain in zip(numbers[1:], heights[1:], gains, strict=True):
        text = plots.with_minus(f"{gain:+.{decimals}f}")
        axes.annotate(text, (number, height), (0, 9), **style)


def plot_stability(stability: GroupingStability, grouping: Grouping) -> Figure:
    """Heat map of how often each pair of tasks shares a network, in % of the draws.

    The tasks stand in the order of the groups that serve them. Frames are around the pairs that
    share a network in `grouping`. With up to 12 tasks each cell has its number.

    Args:
        stability: Of the chosen groups.
        grouping: The chosen groups.

    Returns:
        Figure.

    Raises:
        ValueError: If `stability` is of other groups.
    """
    if set(stability.grouping.groups) != set(grouping.groups):
        raise ValueError(
            "`stability` should be of the groups of `grouping`. Received: "
            f"{stability.grouping.groups} and {grouping.groups}."
        )
    order = sorted(range(len(stability.tasks)), key=lambda i: grouping.serves[stability.tasks[i]])
    tasks = [stability.tasks[place] for place in order]
    percent = 100 * plots.between_tasks(stability.share[np.ix_(order, order)])
    figure = plots.new_pair_figure(tasks)
    axes: Any = figure.subplots()
    # The lower layer shows on the diagonal only.
    axes.imshow(np.where(np.eye(len(tasks)), 0.25, np.nan), "Greys", vmin=0, vmax=1)
    image = axes.imshow(percent, "Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
    bar.set_label("draws in which the pair shares a network, %")
    bar.outline.set_visible(False)
    plots.label_pairs(axes, tasks)
    for (row, column), value in np.ndenumerate(percent):
        if row == column:
            continue
        if any({tasks[row], tasks[column]} <= set(group) for group in grouping.groups):
            frame: dict[str, Any] = {
                "fill": False,
                "edgecolor": COLOURS["grouped"],
                "linewidth": 2.6,
            }
            corner = (column - 0.46, row - 0.46)
            axes.add_patch(matplotlib.patches.Rectangle(corner, 0.92, 0.92, **frame))
        if len(tasks) <= plots.MOST_NUMBERS:
            style = {"fontsize": 9, "color": "white" if value > 60 else plots.INK}
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", **style)
    return figure


def describe_stability(stability: GroupingStability, affinity: Affinity) -> str:
    """How often the chosen groups win, and what it costs to choose them, in words."""
    wins, draws = round(stability.wins * stability.num_samples), stability.num_samples
    factor, unit, _ = plots.find_scale(plots.between_tasks(affinity.mean))
    score = plots.with_minus(f"{stability.grouping.score * factor:.3g}")
    return (
        f"The chosen groups win in {wins} of {draws} draws of the affinities from their standard "
        f"errors. The expected regret is {stability.regret * factor:.2g}{unit}: on average over "
        "the draws, the chosen groups score by that much less than the best groups for the draw. "
        f"For the means of the affinities they score {score}."
    )
