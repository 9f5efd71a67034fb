"""The report: one HTML page that says what was chosen, whether it paid, and how far to trust it."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import Comparison, compare, tasks_of_networks
from tag_keras.comparison.conclusion import conclusion
from tag_keras.comparison.method_table import MethodLine, method_cells
from tag_keras.comparison.serving import Serving, serving_as_text
from tag_keras.report import pages
from tag_keras.report.grouping_plots import (
    COLOURS,
    NAMES,
    describe_stability,
    plot_comparison,
    plot_frontier,
    plot_grouping,
    plot_stability,
)
from tag_keras.report.plots import plot_affinity, plot_history
from tag_keras.report.tables import (
    costs_table,
    losses_table,
    metrics_table,
    moves_table,
    served_table,
)
from tag_keras.results import Row, group_name
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import selection_frontier
from tag_keras.selection.rules import Singletons
from tag_keras.selection.solvers.problem import Score
from tag_keras.selection.stability import GroupingStability, grouping_stability
from tag_keras.utils.checks import check

# With more tasks, selecting groups for every number of them takes minutes, and so does selecting
# them 200 times.
_MOST_FOR_FRONTIER, _MOST_FOR_STABILITY = 15, 12


def write_report(
    path: str | os.PathLike[str],
    affinity: Affinity,
    grouping: Grouping,
    rows: Sequence[Row],
    title: str = "Which tasks should share a network?",
    frontier: Sequence[Grouping] | None = None,
    stability: GroupingStability | None = None,
    methods: Sequence[MethodLine] = (),
    serving: Serving | None = None,
    anchored: Affinity | None = None,
) -> None:
    """Writes the report: one HTML page that needs no other file, and its figures as PNG beside it.

    The figures are affinity.png, grouping.png, frontier.png, stability.png, affinity_history.png
    and comparison.png; one for which there is no data is left out. Each file is written
    atomically, the page last.

    Args:
        path: Page to write, for instance `"report.html"`.
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        rows: Results of the networks `"joint"` (all tasks), `"single_<task>"` (one task) and
            `"group_<index>"`, for several seeds, and of `"affinity"`, the training that measured.
            Losses are read on the split `"test"`. What is missing is left out of the page, which
            says so; networks of other names are not looked at.
        title: Title of the page.
        frontier: The best groupings of the same tasks by the number of groups, from
            `selection_frontier`.
        stability: How often `grouping` is chosen, from `grouping_stability`.
        methods: Lines of a table of methods, from `method_table.compare_methods`, whose changes are
            those against the joint network.
        serving: What is served, from `guard_groups` of the same `grouping` and `rows`.
        anchored: What the groups were selected by, if not by `affinity` itself: by the same from
            `anchor_affinity`, which `frontier` and `stability` are of, too.

    Raises:
        ValueError: If `rows` is empty or has a loss that is not finite, or if its tasks, those
            of `grouping` and those of the other arguments disagree, or the groups of `stability`,
            or if `serving` has networks for other groups.

    Example:

    ```python
    from tag_keras.results import Row

    affinity = tag_keras.Affinity(["a", "b"], [[0.3, 0.1], [-0.2, 0.2]])
    grouping = tag_keras.Grouping(["a", "b"], [["a", "b"]], {"a": 0, "b": 0}, -0.05, -0.05, True)
    rows = [Row("joint", ("a", "b"), 0, task, "test", 0.7, {}, 60.0) for task in ("a", "b")]
    tag_keras.write_report("report.html", affinity, grouping, rows)
    ```
    """
    summary = conclusion(affinity, grouping, rows, anchored is not None)
    if serving:
        _check_serving(grouping, serving)
    comparison = compare(grouping, rows)
    wanted = "`anchored` should be of the tasks of `affinity`"
    valid = anchored is None or anchored.tasks == affinity.tasks
    check(valid, wanted, anchored=anchored and anchored.tasks)
    images = _images(affinity, anchored, grouping, comparison, frontier, stability)
    page = pages.render(
        "report.html.jinja",
        title=title,
        is_anchored=anchored is not None,
        conclusion=summary,
        served=_served(grouping, serving, rows) if serving else None,
        groups=_groups(grouping),
        stability=describe_stability(stability, anchored or affinity) if stability else "",
        comparison=comparison,
        kinds={kind: NAMES[kind] for kind in comparison.losses},
        missing=[NAMES[kind] for kind in NAMES if kind not in comparison.losses],
        colours=COLOURS,
        losses=losses_table(grouping, comparison),
        metrics=metrics_table(grouping, comparison, rows),
        costs=costs_table(grouping, rows, anchored is not None),
        methods=[method_cells(line) for line in methods],
        images={name: base64.b64encode(png).decode() for name, png in images.items() if png},
    )
    for name, png in images.items():
        pages.write(Path(path).with_name(f"{name}.png"), png)
    pages.write(Path(path), page.encode())


def other_groups(
    affinity: Affinity,
    grouping: Grouping,
    num_groups: int,
    singletons: Singletons,
    score: Score = "mean",
) -> dict[str, Any]:
    """What the report says of other groups: those for more networks, and those that noise makes.

    Returns:
        `frontier` and `stability` of `write_report`, without what is not known, or would take long.
    """
    num_tasks, others = len(affinity.tasks), dict[str, Any]()
    between = ~np.eye(num_tasks, dtype=bool)
    # Whoever put groups of their own into the folder may have no affinities to select by.
    if num_tasks < 2 or not np.isfinite(affinity.mean[between]).all():
        return others
    if num_tasks <= _MOST_FOR_FRONTIER:
        others["frontier"] = selection_frontier(affinity, num_tasks, singletons, score=score)
    if num_tasks <= _MOST_FOR_STABILITY and np.isfinite(affinity.standard_error[between]).all():
        options: dict[str, Any] = {"singletons": singletons, "score": score}
        stability = grouping_stability(affinity, num_groups, **options)
        if set(stability.grouping.groups) == set(grouping.groups):
            others["stability"] = stability
    return others


def _images(
    affinity: Affinity,
    anchored: Affinity | None,
    grouping: Grouping,
    comparison: Comparison,
    frontier: Sequence[Grouping] | None,
    stability: GroupingStability | None,
) -> dict[str, bytes | None]:
    changes = comparison.changes()
    by = anchored or affinity
    score: Score = "sum" if anchored else "mean"
    return {
        "grouping": pages.png(plot_grouping(grouping, by, score)),
        "frontier": pages.png(plot_frontier(frontier, grouping, by)) if frontier else None,
        "stability": pages.png(plot_stability(stability, grouping)) if stability else None,
        "comparison": pages.png(plot_comparison(grouping.tasks, changes)) if changes else None,
        "affinity": pages.png(plot_affinity(affinity)),
        "affinity_history": pages.png(plot_history(affinity)),
    }


def _check_serving(grouping: Grouping, serving: Serving) -> None:
    trained = tasks_of_networks(grouping)
    groups = zip(serving.networks, serving.grouping.groups, strict=True)
    valid = all(trained.get(name) == group for (name, _), group in groups)
    wanted = "`serving` should be of networks for the groups and tasks of `grouping`"
    valid = valid and serving.grouping.tasks == grouping.tasks
    check(valid, wanted, networks=serving.networks, groups=serving.grouping.groups)


def _served(grouping: Grouping, serving: Serving, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "text": serving_as_text(grouping, serving),
        "split": serving.split,
        "moves": moves_table(serving, rows),
        "lines": served_table(grouping, serving, rows),
    }


def _groups(grouping: Grouping) -> list[dict[str, Any]]:
    return [
        {
            "name": group_name(index),
            "served": grouping.served(index),
            "helpers": grouping.helpers(index),
        }
        for index in range(len(grouping.groups))
    ]
