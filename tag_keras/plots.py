"""Figures of affinities, groups and losses, by Matplotlib: `pip install "tag_keras[tools]"`.

Each function draws on the axes that it gets, `ax`, and returns them. Without `ax` it makes a figure
of the right size with pyplot, which a notebook shows; `axes.figure.savefig("affinity.png")` writes
it. The report of `tag_keras.write_report` shows the same as tables and drawings of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import compare
from tag_keras.report import grouping_plots, plots
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.checks import check
from tag_keras.utils.colours import between_tasks

__all__ = ["plot_affinity", "plot_frontier", "plot_groups", "plot_history", "plot_losses"]


def plot_affinity(affinity: Affinity, ax: Any = None, grouping: Grouping | None = None) -> Any:
    """Heat map of the affinities, [source row, target column]: blue helps, red hurts.

    White is 0, and the pairs of different tasks set the scale: what a task does to itself stands on
    grey. Outliers do not set the scale, either: where they are beyond it, the bar of colours ends
    in an arrow. With up to 12 tasks each cell has the mean and its standard error; a mean is in
    parentheses if its interval of 95 % contains 0.

    Args:
        affinity: Affinities of T tasks.
        ax: Matplotlib axes to draw on. By default a new figure, which grows with T.
        grouping: Groups of the same tasks. The rows and columns then stand in the order of the
            groups that serve the tasks, with lines between the groups.

    Returns:
        The axes.

    Raises:
        ValueError: If `grouping` has other tasks.

    Example:

    ```python
    axes = tag_keras.plots.plot_affinity(affinity, grouping=grouping)
    axes.figure.savefig("affinity.png")
    ```
    """
    if grouping is not None:
        _check_tasks(affinity, grouping)
    return plots.plot_affinity(affinity, _place(ax), grouping)


def plot_history(affinity: Affinity) -> Any:
    """Affinities over the epochs: one panel for each target, one line for each other source.

    Args:
        affinity: Affinities of T tasks, with a history, as `MultiTaskModel.get_affinity` gives.

    Returns:
        The Matplotlib figure, new, of T panels.

    Raises:
        ValueError: If no pair of different tasks has a history.

    Example:

    ```python
    tag_keras.plots.plot_history(model.get_affinity()).savefig("history.png")
    ```
    """
    if not np.isfinite(between_tasks(affinity.history)).any():
        raise ValueError(
            "`affinity` should have a history of pairs of different tasks. Received: "
            f"{len(affinity.history)} epochs of {len(affinity.tasks)} tasks without one."
        )
    return plots.plot_history(affinity, _shown_figure)


def plot_groups(
    affinity: Affinity, grouping: Grouping, ax: Any = None, score: Literal["mean", "sum"] = "mean"
) -> Any:
    """Diagram of the groups: tasks on the left, networks on the right.

    A solid line runs from a task to the network that serves it, a dashed line to a network that it
    only helps. The number on a solid line is the score of the task in its group.

    Args:
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        ax: Matplotlib axes to draw on. By default a new figure, which grows with T.
        score: The score of a task in its group: `"mean"` or `"sum"` of its affinities.

    Returns:
        The axes.

    Raises:
        ValueError: If `grouping` has other tasks, or `score` is something else.

    Example:

    ```python
    grouping = tag_keras.select_groups(affinity, num_groups=3)
    tag_keras.plots.plot_groups(affinity, grouping)
    ```
    """
    _check_tasks(affinity, grouping)
    return grouping_plots.plot_grouping(grouping, affinity, score, _place(ax))


def plot_losses(grouping: Grouping, rows: Iterable[Row], ax: Any = None) -> Any:
    """Changes of the test loss against the joint network, by task and for their total.

    Points are means over the seeds that all networks have in common, bars two standard errors.

    Args:
        grouping: The groups whose networks were trained.
        rows: Results of the networks `"joint"`, and `"single_<task>"` for each task or
            `"group_<index>"` for each group, or both, on the split `"test"`.
        ax: Matplotlib axes to draw on. By default a new figure, which grows with the tasks.

    Returns:
        The axes.

    Raises:
        ValueError: If there is no joint network to compare with, or no other; if a loss is not
            finite; or if no seed is common to the networks.

    Example:

    ```python
    rows = tag_keras.results.load_results("runs/digits/results.json")
    grouping = tag_keras.Grouping.load("runs/digits/groups.json")
    tag_keras.plots.plot_losses(grouping, rows)
    ```
    """
    changes = compare(grouping, list(rows)).changes()
    if not changes:
        raise ValueError(
            "`rows` should have test losses of the joint network, and of the groups or of one "
            "network per task. Received: rows without a change to show."
        )
    return grouping_plots.plot_comparison(grouping.tasks, changes, _place(ax))


def plot_frontier(
    affinity: Affinity, frontier: Sequence[Grouping], grouping: Grouping, ax: Any = None
) -> Any:
    """Score of the best groups by the number of networks, with the chosen groups marked.

    Each point has the gain in score over one network less. It is hollow where there is no proof.

    Args:
        affinity: Affinities of the tasks, which set the unit.
        frontier: The best groups by the number of networks, from `selection_frontier`.
        grouping: The chosen groups.
        ax: Matplotlib axes to draw on. By default a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If `frontier` is empty, or if the groupings have other tasks.

    Example:

    ```python
    frontier = tag_keras.selection_frontier(affinity, max_groups=5)
    tag_keras.plots.plot_frontier(affinity, frontier, frontier[2])
    ```
    """
    check(len(frontier) > 0, "`frontier` should have at least one grouping", frontier=frontier)
    _check_tasks(affinity, grouping)
    return grouping_plots.plot_frontier(frontier, grouping, affinity, _place(ax))


def _check_tasks(affinity: Affinity, grouping: Grouping) -> None:
    same = {*grouping.tasks} == {*affinity.tasks}
    wanted = f"`grouping` should have the tasks of `affinity`, {affinity.tasks}"
    check(same, wanted, tasks=grouping.tasks)


def _place(ax: Any) -> Any:
    return _shown_axes if ax is None else ax


def _shown_axes(width: float, height: float) -> Any:
    return _shown_figure(width, height).subplots()


def _shown_figure(width: float, height: float) -> Any:
    """An empty figure of pyplot, which a notebook shows."""
    import matplotlib.pyplot

    return matplotlib.pyplot.figure(figsize=(width, height), layout="constrained")
