"""Writes the report, and finds the other groups that it tells of."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import compare, serving_networks
from tag_keras.comparison.conclusion import conclusion
from tag_keras.comparison.method_table import MethodLine, method_cells
from tag_keras.comparison.serving import Serving
from tag_keras.decision.group_losses import GroupLosses
from tag_keras.report import drawings, heat_maps, pages, strips, tables, trends
from tag_keras.results import FEWEST_SEEDS, Row, group_name
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import score_in_group, selection_frontier
from tag_keras.selection.rules import Singletons
from tag_keras.selection.solvers.problem import Score
from tag_keras.selection.stability import GroupingStability, grouping_stability

# With more tasks it takes minutes to select groups for every number of networks, or 200 times.
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
    estimate: GroupLosses | None = None,
    settings: Mapping[str, Any] | None = None,
    environments: Sequence[Mapping[str, str]] = (),
) -> None:
    """Writes the report: one HTML page that needs no other file.

    Its tables and drawings are text. `tag_keras.plots` has figures for other pages.

    Args:
        path: Page to write, for instance `"report.html"`. It is written atomically.
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        rows: Results of the networks `"joint"` (all tasks), `"single_<task>"` (one task) and
            `"group_<index>"`, for several seeds, and of `"affinity"`, the training that measured.
            The page shows losses on the split `"test"`, and says what is missing. Other networks
            are in the table of networks only.
        title: Title of the page.
        frontier: The best groupings by the number of groups, from `selection_frontier`.
        stability: What noise would choose, from `grouping_stability`.
        methods: Lines from `method_table.compare_methods`, with the joint network as baseline.
        serving: What is served, from `guard_groups` of the same `grouping` and `rows`.
        anchored: The affinities from `anchor_affinity`, if `grouping`, `frontier` and `stability`
            were selected by them, and not by `affinity` itself.
        estimate: Estimated losses of the same `rows`, from `estimate_group_losses`, which the page
            shows by task with their intervals. By default, means over seeds.
        settings: What the run was called with. `"seeds"` among them says how many trainings a run
            that is half done should have.
        environments: Date, versions and device of the run, in this order, by name; several if it
            went on with others.

    Raises:
        ValueError: If `rows` is empty or has a loss that is not finite, arguments have different
            tasks, or `stability` or `serving` is of other groups.

    Example:

    ```python
    from tag_keras.results import Row

    affinity = tag_keras.Affinity(["a", "b"], [[0.3, 0.1], [-0.2, 0.2]])
    grouping = tag_keras.Grouping(["a", "b"], [["a", "b"]], {"a": 0, "b": 0}, -0.05, -0.05, True)
    rows = [Row("joint", ("a", "b"), 0, task, "test", 0.7, {}, 60.0) for task in ("a", "b")]
    tag_keras.write_report("report.html", affinity, grouping, rows)
    ```
    """
    seeds = (settings or {}).get("seeds", ())
    summary = conclusion(affinity, grouping, rows, anchored is not None, serving, seeds)
    served = _served(grouping, serving, rows) if serving else None
    for name, tasks in {"anchored": anchored, "estimate": estimate}.items():
        if tasks and {*tasks.tasks} != {*affinity.tasks}:
            raise ValueError(
                f"`{name}` should be of the tasks of `affinity`. Received: {name}={tasks.tasks!r}."
            )
    comparison, needed = compare(grouping, rows, serving), serving_networks(grouping, serving)
    by: Affinity = anchored or affinity
    score: Score = "sum" if anchored else "mean"
    unit, scores = tables.scores_table(grouping, by, score)
    numbers = [line["score"] for line in scores]
    split = serving.split if serving else "validation"
    page = pages.render(
        "report.html.jinja",
        title=title,
        is_anchored=anchored is not None,
        loses=any(
            score_in_group(by, grouping.groups[index], task, score) < 0
            for task, index in grouping.serves.items()
        ),
        conclusion=summary,
        served=served,
        strips=strips.strips(grouping, rows, serving, estimate, split),
        labels=tables.LABELS,
        shapes=drawings.SHAPES,
        grouping=grouping,
        group_name=group_name,
        diagram=drawings.groups_diagram(grouping, numbers, summary.chosen),
        scores=scores,
        score_unit=unit,
        frontier=tables.frontier_table(frontier, grouping, by) if frontier else None,
        stability=tables.describe_stability(stability, by) if stability else "",
        stability_map=heat_maps.stability_map(stability, grouping) if stability else None,
        comparison=comparison,
        kinds={kind: tables.LABELS[kind] for kind in comparison.losses},
        missing=[tables.LABELS[kind] for kind in needed if kind not in comparison.losses],
        fewest_seeds=FEWEST_SEEDS,
        losses=tables.losses_table(grouping, comparison),
        metrics=tables.metrics_table(grouping, comparison, rows, serving),
        methods=[method_cells(line) for line in methods],
        affinity_map=heat_maps.affinity_map(affinity, grouping),
        trends=trends.trends(affinity),
        networks=tables.networks_table(rows, serving, split),
        networks_split=split,
        costs=tables.costs_table(grouping, rows, anchored is not None),
        settings=tables.settings_table(settings or {}),
        environments=environments,
    )
    pages.write(Path(path), page)


def other_groups(
    affinity: Affinity,
    grouping: Grouping,
    num_groups: int,
    singletons: Singletons,
    score: Score = "mean",
) -> dict[str, Any]:
    """Other groups for the report: the best for each number of networks, and what noise chooses.

    Args:
        affinity: Affinities of T tasks that the groups were selected by.
        grouping: The chosen groups.
        num_groups: Number of groups at most.
        singletons: `"forbid"`, `"baseline"` where a task alone scores 0, or its score by task.
        score: The score of a task in its group: `"mean"` or `"sum"` of its affinities.

    Returns:
        The arguments `frontier` and `stability` of `write_report`, if known and quick.
    """
    num_tasks, others = len(affinity.tasks), dict[str, Any]()
    between = ~np.eye(num_tasks, dtype=bool)
    # A user's own groups may come without affinities to select by.
    if num_tasks < 2 or not np.isfinite(affinity.mean[between]).all():
        return others
    if num_tasks <= _MOST_FOR_FRONTIER:
        others["frontier"] = selection_frontier(affinity, num_tasks, singletons, score=score)
    if num_tasks <= _MOST_FOR_STABILITY and np.isfinite(affinity.standard_error[between]).all():
        stability = grouping_stability(affinity, num_groups, singletons=singletons, score=score)
        if set(stability.grouping.groups) == set(grouping.groups):
            others["stability"] = stability
    return others


def _served(grouping: Grouping, serving: Serving, rows: Sequence[Row]) -> dict[str, Any]:
    trained = {row.network: {*row.tasks} for row in rows}
    groups = zip(serving.networks, serving.grouping.groups, strict=True)
    same = all(trained.get(name) == {*group} for (name, _), group in groups)
    if not (same and {*serving.grouping.tasks} == {*grouping.tasks}):
        raise ValueError(
            "`serving` should be of networks in `rows`, for the tasks of `grouping`. Received: "
            f"networks={serving.networks!r}, groups={serving.grouping.groups!r}."
        )
    return {
        "split": serving.split,
        "lines": tables.served_table(grouping, serving, rows),
        "options": tables.options_table(serving),
        "groups": [
            {"tasks": serving.grouping.served(index), "helpers": serving.grouping.helpers(index)}
            for index in range(len(serving.grouping.groups))
        ],
    }
