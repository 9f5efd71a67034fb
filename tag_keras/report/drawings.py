"""Drawings as SVG inside the page: their texts are texts, and the page's style colours them.

Classes of the page's style name what is drawn: kinds of networks, lines by rank, axes. Each drawing
has a label that says its result, for those who do not see it.
"""

import dataclasses
import html
from collections.abc import Sequence

import numpy as np

from tag_keras.results import Array, group_name
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.text import shortened, with_minus

# A kind of network is told by its shape, too.
SHAPES = {
    "joint": "M-4-4H4V4H-4z",
    "single": "M-5 4L0-5 5 4z",
    "grouped": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "served": "M-5 0L0-5 5 0 0 5z",
}
LINES = 4  # Colours of lines.
_ROW = 14  # Height of a mark in a strip, in pixels.
_LINE = 26  # Height of a task in the diagram of groups.
_NAME = 26  # Columns of a name in the diagram.


@dataclasses.dataclass(frozen=True)
class Mark:
    """A value on a strip.

    Args:
        kind: Kind of network: `"joint"`, `"single"`, `"grouped"` or `"served"`.
        value: The value.
        low: Lower end of its interval; NaN if it is not known.
        high: Upper end.
    """

    kind: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of a chart.

    Args:
        name: Its name.
        x: Array (N,).
        y: Array (N,).
        error: Array (N,): half of the length of the bars; 0 for none.
        connected: Whether a line joins the points.
        hollow: Whether the points are hollow.
        place: Whole number that tells its colour and its shape.
    """

    name: str
    x: Array
    y: Array
    error: Array
    connected: bool
    hollow: bool
    place: int

    def mark(self, x: str = "0", y: str = "0") -> str:
        """SVG of one of its points.

        Args:
            x: Place from the left.
            y: Place from the top.
        """
        rounds, colour = divmod(self.place, LINES)
        shape = [*SHAPES.values()][(colour + rounds) % len(SHAPES)]
        kind = f"line{colour}" + (" hollow" if self.hollow else "")
        return f'<svg x="{x}" y="{y}"><path class="{kind}" d="{shape}"/></svg>'


def chart(
    series: Sequence[Series], ticks: Sequence[float], label: str, x_label: str, y_label: str
) -> str:
    """Points with bars over numbers.

    Args:
        series: The points; several series have different places.
        ticks: Numbers that stand at the axis from left to right.
        label: What the chart says.
        x_label: Words at the axis from left to right.
        y_label: Words at the axis from bottom to top.
    """
    low = min(float((one.y - one.error).min()) for one in series)
    high = max(float((one.y + one.error).max()) for one in series)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    bottom, top = low - room, high + room
    left, right = min(ticks) - 0.4, max(ticks) + 0.4
    parts = []

    def across(x: float) -> float:
        return float(70 + 540 * (x - left) / (right - left))

    def down(y: float) -> float:
        return float(10 + 290 * (top - y) / (top - bottom))

    for tick in _ticks(bottom, top):
        parts.append(f'<path class="grid" d="M70 {down(tick):.1f}H610"/>')
        parts.append(_text(64, down(tick), with_minus(f"{tick:.4g}"), "end"))
    parts += [_text(across(number), 316, f"{number:g}", "middle") for number in ticks]
    parts.append(_text(340, 340, x_label, "middle"))
    upright = _text(0, 0, y_label, "middle")
    parts.append(f'<g transform="translate(12 155) rotate(-90)">{upright}</g>')
    for one in series:
        colour = one.place % LINES
        points = [(across(x), down(y)) for x, y in zip(one.x, one.y, strict=True)]
        if one.connected:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path class="line{colour} thin" d="M{line}"/>')
        for (x, y), half in zip(points, 290 * one.error / (top - bottom), strict=True):
            if half > 0:
                bar = f"M{x:.1f} {y - half:.1f}V{y + half:.1f}"
                parts.append(f'<path class="line{colour} thin" d="{bar}"/>')
            parts.append(one.mark(f"{x:.1f}", f"{y:.1f}"))
    return _svg("chart", label, "".join(parts), 'viewBox="0 0 640 350"')


def _ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers between two numbers."""
    power = 10 ** np.floor(np.log10((high - low) / 3))
    step = power * max(one for one in (1, 2, 5) if one * power <= (high - low) / 3)
    return [step * place for place in range(int(np.ceil(low / step)), int(high // step) + 1)]


def strip(marks: Sequence[Mark], label: str, ends: tuple[float, float] | None = None) -> str:
    """Marks with their intervals on one scale, one below the other.

    Args:
        marks: The marks, from top to bottom.
        label: What the strip says.
        ends: The least and the largest value of the scale. By default, those of the marks.
    """
    values = np.array([[one.value, one.low, one.high] for one in marks])
    low, high = ends or (float(np.nanmin(values)), float(np.nanmax(values)))
    # Room for the half of a mark on both sides; equal values stand in the middle.
    places = 3 + 94 * ((values - low) / (high - low) if high > low else 0 * values + 0.5)
    parts = []
    for row, (mark, (place, start, end)) in enumerate(zip(marks, places, strict=True)):
        y = _ROW * row + _ROW // 2
        bar = ""
        if np.isfinite([start, end]).all():
            bar = f'<line x1="{start:.1f}%" x2="{end:.1f}%" y1="{y}" y2="{y}"/>'
        shape = f'<svg x="{place:.1f}%" y="{y}"><path d="{SHAPES[mark.kind]}"/></svg>'
        parts.append(f'<g class="{mark.kind}">{bar}{shape}</g>')
    return _svg("strip", label, "".join(parts), f'width="100%" height="{_ROW * len(marks)}"')


def groups_diagram(grouping: Grouping, scores: Sequence[str], label: str) -> str:
    """Tasks on the left, networks on the right; a line from a task to each of its networks.

    A solid line leads to the network that serves the task, a dashed one to one that it only helps.

    Args:
        grouping: Groups of T tasks.
        scores: Text at the solid line of each task, in the order of `grouping.tasks`.
        label: What the diagram says.
    """
    tasks = sorted(grouping.tasks, key=lambda task: grouping.serves[task])
    left = {task: _LINE * (place + 0.5) for place, task in enumerate(tasks)}
    right: list[float] = []
    for index in range(len(grouping.groups)):
        served = [left[task] for task in grouping.served(index)]
        # A network that serves nothing stands below all others.
        right.append(float(np.mean(served)) if served else max(*left.values(), *right) + _LINE)
    lines, texts = [], []
    for index, group in enumerate(grouping.groups):
        for task in group:
            kind = "serves" if grouping.serves[task] == index else "helps"
            start, end = left[task], right[index]
            lines.append(f'<path class="{kind}" d="M226 {start:g}L470 {end:.1f}"/>')
            if kind == "serves":
                score = scores[grouping.tasks.index(task)]
                texts.append(_text(275, start + 0.2 * (end - start), score, "middle", "score"))
        words = f"serves {len(grouping.served(index))}"
        if helpers := grouping.helpers(index):
            words += f", helped by {len(helpers)}"
        square = f'x="464" y="{right[index] - 6:.1f}" width="12" height="12"'
        texts.append(f'<rect class="grouped" {square}/>')
        texts.append(_text(484, right[index], f"{group_name(index)}: {words}", "start"))
    for task, y in left.items():
        title = f"<title>{html.escape(task)}</title>"
        texts.append(f'<circle class="ink" cx="226" cy="{y:g}" r="4"/>')
        texts.append(_text(214, y, shortened(task, _NAME), "end", title=title))
    height = max(*left.values(), *right) + _LINE / 2
    return _svg("diagram", label, "".join(lines + texts), f'viewBox="0 0 700 {height:g}"')


def panel(lines: Sequence[Array], label: str, ends: tuple[str, str]) -> str:
    """Lines over equally spaced steps, with a line at 0, on a scale of their own.

    Args:
        lines: Arrays (E,), NaN for a gap. The first has the first colour, and so on.
        label: What the panel says.
        ends: Texts of the first and the last step.
    """
    values = np.array(lines)
    low = min(float(np.nanmin(values)), 0.0)
    high = max(float(np.nanmax(values)), 0.0)
    if high == low:
        high = low + 1.0
    steps = values.shape[1]
    x = 34 + (np.arange(steps) / (steps - 1) if steps > 1 else np.full(1, 0.5)) * 160
    y = 8 + (high - values) / (high - low) * 84
    zero = 8 + high / (high - low) * 84
    parts = [f'<path class="zero" d="M34 {zero:.1f}H196"/>', _text(30, zero, "0", "end")]
    # Beside the 0 there is no room for a number.
    for value, height in ((high, 8.0), (low, 92.0)):
        if abs(height - zero) > 10:
            parts.append(_text(30, height, with_minus(f"{value:.3g}"), "end"))
    first, last = ends
    parts += [_text(34, 104, first, "start"), _text(196, 104, last, "end")]
    for rank, heights in enumerate(y):
        parts.append(f'<path class="line{rank}" d="{_path(x, heights)}"/>')
    return _svg("panel", label, "".join(parts), 'viewBox="0 0 200 112"')


def _path(x: Array, y: Array) -> str:
    """Lines between neighbours; a point that has none is a dot."""
    parts, before = [], False
    for place, height in zip(x, y, strict=True):
        known = bool(np.isfinite(height))
        if known:
            # A line of no length has round ends.
            parts.append(f"{'L' if before else 'M'}{place:.0f} {height:.1f}")
            parts.append("" if before else "h0")
        before = known
    return "".join(parts)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", title: str = "") -> str:
    attributes = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:g}" y="{y:.1f}" dy=".35em" text-anchor="{anchor}"{attributes}>'
        f"{title}{html.escape(words)}</text>"
    )


def _svg(kind: str, label: str, content: str, size: str) -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label="{html.escape(label)}" {size}>{content}</svg>'
    )
