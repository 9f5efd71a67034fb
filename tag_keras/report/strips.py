"""Per task a strip: its loss alone, in the joint network, in its group and as served."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import scipy.special

from tag_keras.comparison.comparison import (
    Comparison,
    compare,
    serving_networks,
    tasks_of_networks,
)
from tag_keras.comparison.serving import Serving
from tag_keras.decision.group_losses import GroupLosses
from tag_keras.report.drawings import Mark, strip
from tag_keras.report.tables import LABELS
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.replicates import interval, mean_and_error
from tag_keras.utils.text import fixed, sentence, with_minus

# Between the ends of an interval lie 90 %, as in decisions.
CONFIDENCE = 0.9


@dataclasses.dataclass(frozen=True)
class TaskStrip:
    """A task's losses by kind of network.

    Args:
        task: Its name.
        drawing: SVG of the strip.
        loss: The loss of what is served, or of its group where that is not decided, as text.
        change: By how much it is above or below the joint network, in percent, as text.
        cells: By kind, the loss with its interval, as text.
    """

    task: str
    drawing: str
    loss: str
    change: str
    cells: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Strips:
    """The strips of all tasks.

    Args:
        lines: A strip for each task, and one for the total of measured losses.
        kinds: The kinds of networks that are shown.
        note: What losses and intervals they are.
    """

    lines: Sequence[TaskStrip]
    kinds: Collection[str]
    note: str


def strips(
    grouping: Grouping,
    rows: Sequence[Row],
    serving: Serving | None = None,
    estimate: GroupLosses | None = None,
    split: str = "validation",
) -> Strips | None:
    """Strips of estimated losses, or else of measured ones: test losses, if there are any.

    Args:
        grouping: The selected groups.
        rows: Results of their networks and of the yardsticks.
        serving: What is served.
        estimate: Estimated losses of the tasks of `grouping`.
        split: Split that `estimate` is about, and that is shown where there are no test losses.

    Returns:
        None if no kind of network has losses of all tasks.
    """
    if estimate is not None:
        lines = _estimated(estimate, grouping, serving)
        note = (
            f"Estimated {split} losses, each pulled towards what the other networks say; the bars "
            "are intervals of 90 %."
        )
        return Strips(lines, {kind for line in lines for kind in line.cells}, note)
    for one in dict.fromkeys(("test", split)):
        comparison = compare(grouping, rows, serving, one)
        if comparison.losses:
            seeds = len(comparison.seeds)
            note = f"{sentence(one)} losses of one seed: how much of this is noise is not known."
            if seeds > 1:
                note = (
                    f"Mean {one} losses; the bars are intervals of 90 % over {seeds} seeds, which "
                    "are paired: a difference can be surer than the bars show."
                )
            return Strips(_measured(comparison, grouping, serving), {*comparison.losses}, note)
    return None


def _estimated(
    estimate: GroupLosses, grouping: Grouping, serving: Serving | None
) -> list[TaskStrip]:
    """Strips of estimated losses, with the posterior's intervals."""
    rows = {frozenset(group): row for row, group in enumerate(estimate.groups)}
    quantile = float(scipy.special.ndtri((1 + CONFIDENCE) / 2))
    lines = []
    for task, groups in _groups(grouping, serving).items():
        place, marks = estimate.tasks.index(task), []
        for kind, group in groups.items():
            # Of many tasks, only groups that were trained are estimated.
            if (row := rows.get(group)) is not None:
                mean, error = estimate.mean[row, place], estimate.standard_error[row, place]
                half = quantile * error if np.isfinite(error) else np.nan
                marks.append(Mark(kind, mean, mean - half, mean + half))
        if marks:
            lines.append(_strip(task, marks, _served_kind(task, groups, serving)))
    return lines


def _measured(
    comparison: Comparison, grouping: Grouping, serving: Serving | None
) -> list[TaskStrip]:
    """Strips of measured losses, with Student's intervals of their means over the seeds."""
    groups, lines = _groups(grouping, serving), []
    kinds = [kind for kind in LABELS if kind in comparison.losses]
    served = [_served_kind(task, groups[task], serving) for task in grouping.tasks]
    # The total is served by the kind that serves all tasks.
    served.append(served[0] if len({*served}) == 1 else "served")
    for place, task in enumerate([*grouping.tasks, "Total"]):
        marks = []
        for kind in kinds:
            mean, error, number = mean_and_error(comparison.losses[kind][place])
            low, high = interval(mean, error, number, CONFIDENCE)
            marks.append(Mark(kind, float(mean), float(low), float(high)))
        lines.append(_strip(task, marks, served[place]))
    return lines


def _groups(grouping: Grouping, serving: Serving | None) -> dict[str, dict[str, frozenset[str]]]:
    """By task and kind of network, the group that trains together, in the order of `LABELS`."""
    trained, kinds = tasks_of_networks(grouping), serving_networks(grouping, serving)
    found: dict[str, dict[str, frozenset[str]]] = {}
    for task in grouping.tasks:
        found[task] = {}
        for kind in LABELS:
            if kind == "served" and kind in kinds and serving:
                served = serving.grouping
                found[task][kind] = frozenset(served.groups[served.serves[task]])
            elif kind in kinds:
                found[task][kind] = frozenset(trained[kinds[kind][task]])
    return found


def _served_kind(task: str, groups: Mapping[str, frozenset[str]], serving: Serving | None) -> str:
    """The kind that serves a task; before that is decided, its group."""
    if serving is None:
        return "grouped"
    served = frozenset(serving.grouping.groups[serving.grouping.serves[task]])
    order = ("served", "grouped", "joint", "single")
    return next(kind for kind in order if groups.get(kind) == served)


def _strip(task: str, marks: Sequence[Mark], served: str) -> TaskStrip:
    by_kind = {mark.kind: mark for mark in marks}
    own, joint = by_kind.get(served), by_kind.get("joint")
    loss = change = ""
    words = [task]
    if own is not None:
        loss = _loss(own)
        words.append(f"{LABELS[served]} {loss}")
        if joint is not None and served != "joint" and joint.value:
            percent = 100 * (own.value - joint.value) / abs(joint.value)
            change = f"{with_minus(fixed(percent, 1, '+'))} %"
            where = "below" if percent < 0 else "above"
            words.append(f"{fixed(abs(percent), 1)} % {where} the joint network")
    words += [f"{LABELS[kind]} {_loss(mark)}" for kind, mark in by_kind.items() if kind != served]
    label = f"{words[0]}: {', '.join(words[1:])}"
    cells = {kind: _with_interval(mark) for kind, mark in by_kind.items()}
    return TaskStrip(task, strip(marks, label), loss, change, cells)


def _loss(mark: Mark) -> str:
    return _with_interval(mark).partition(" ")[0]


def _with_interval(mark: Mark) -> str:
    """The value with its interval, to two digits of half of that."""
    half = (mark.high - mark.low) / 2
    if not half > 0:
        return with_minus(f"{mark.value:.3g}")
    decimals = max(0, 1 - int(np.floor(np.log10(half))))
    numbers = (mark.value, mark.low, mark.high)
    texts = [fixed(one, decimals) if decimals < 7 else f"{one:.3g}" for one in numbers]
    return with_minus("{} ({} to {})".format(*texts))
