"""Figures: what rules gain for the networks that they train, and where groups pay."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth.judging import Result, by_problem, standard_error
from benchmarks.truth.rules import networks_trained
from tag_keras.report import plots
from tag_keras.report.plots import Figure
from tag_keras.utils import files
from tag_keras.utils.text import with_minus

DECIDED = "all groups, decided"
# Points are moved apart to this ratio of their numbers of networks, so that names do not overlap.
_APART = 1.14
_COLUMNS = 4


def write(results: Sequence[Result], num_networks: int, folder: Path) -> None:
    """Writes both figures as PNG: gain_by_networks.png and where_groups_pay.png."""
    figures = {
        "gain_by_networks.png": plot_gains(results, num_networks),
        "where_groups_pay.png": plot_regimes(results),
    }
    for name, figure in figures.items():
        with files.replacing(folder / name) as partial:
            figure.savefig(partial, dpi=150)


def plot_gains(results: Sequence[Result], num_networks: int) -> Figure:
    """Gain over the joint network by networks trained, a point for each known rule.

    Gains are means over the problems, and bars their standard errors; networks are means over the
    tables. Points that would lie on each other are moved apart, to the right.
    """
    counts = [networks_trained(result.num_tasks, num_networks) for result in results]
    trained = {
        rule: float(np.mean([count[rule] for count in counts]))
        for rule in results[0].verdicts
        if rule in counts[0]
    }
    figure = plots.new_figure(9, 5.4)
    axes: Any = figure.subplots()
    text = {"textcoords": "offset points", "rotation": 90, "ha": "center", "va": "bottom"}
    places, top = moved_apart(trained), 0.0
    for rule, place in places.items():
        gains = [100 * gain for gain in by_problem(results, rule, "gains").values()]
        mean, error = float(np.mean(gains)), standard_error(gains) if len(gains) > 1 else 0.0
        colour, end = plots.LINE_COLOURS[_kind(rule)], mean + error
        axes.errorbar(place, mean, yerr=error, marker="o", color=colour, linewidth=1.4)
        axes.annotate(rule, (place, end), (0, 5), fontsize=9, color=colour, **text)
        top = max(top, end)
    axes.axhline(0, color=plots.INK, linewidth=0.8)
    axes.set_xscale("log")
    # The names stand above the bars.
    low, _ = axes.get_ylim()
    axes.set_ylim(low, top + 0.6 * (top - low))
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.85, 1.4 * max(places.values()))
    axes.tick_params(length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("networks trained, to choose and to serve")
    axes.set_ylabel("gain in test loss over the joint network, %")
    return figure


def moved_apart(places: Mapping[str, float]) -> dict[str, float]:
    """Places on a logarithmic axis, in their order, moved up where they are too near."""
    moved: dict[str, float] = {}
    last = 0.0
    for name in sorted(places, key=lambda name: places[name]):
        last = moved[name] = max(places[name], last * _APART)
    return moved


def _kind(rule: str) -> int:
    """The colour of a rule: of `decide_groups`, of one that chooses groups, or of a yardstick."""
    if "decided" in rule:
        return 1
    return 2 if rule in ("joint", "single", "joint or single") else 0


def plot_regimes(results: Sequence[Result]) -> Figure:
    """Decided gain over the better yardstick, with a panel for each problem: width against size.

    It is the mean over tables; hatched where there is none.
    """
    problems = list(dict.fromkeys(result.problem for result in results))
    widths = sorted({int(result.about["width"]) for result in results})
    sizes = sorted({_size(result) for result in results})
    columns = min(_COLUMNS, len(problems))
    rows = -(-len(problems) // columns)
    figure = plots.new_figure(
        1.6 + columns * (0.6 + 0.62 * len(sizes)), 0.6 + rows * (0.8 + 0.5 * len(widths))
    )
    panels: Any = figure.subplots(rows, columns, squeeze=False)
    gains = {problem: _gains(results, problem, widths, sizes) for problem in problems}
    largest = float(np.nanmax(np.abs([*gains.values()]))) or 1.0
    for panel in panels.flat[len(problems) :]:
        panel.set_visible(False)
    for panel, (problem, values) in zip(panels.flat, gains.items(), strict=False):
        # It shows where there is no table.
        panel.patch.set(facecolor="white", edgecolor=plots.GREY, hatch="////")
        image = panel.imshow(values, "RdBu", vmin=-largest, vmax=largest, aspect="auto")
        for (row, column), gain in np.ndenumerate(values):
            if not np.isnan(gain):
                colour = "white" if abs(gain) > 0.65 * largest else plots.INK
                # No minus before 0.0.
                text = with_minus(f"{round(gain, 1) + 0.0:.1f}")
                panel.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
        panel.set_title(problem, fontsize=10)
        panel.set_xticks(range(len(sizes)), [_size_text(size) for size in sizes], fontsize=9)
        panel.set_yticks(range(len(widths)), map(str, reversed(widths)), fontsize=9)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel("width", fontsize=9)
    figure.supxlabel("training examples", fontsize=9)
    bar = figure.colorbar(image, ax=panels, aspect=30, pad=0.02)
    bar.set_label("gain over the better yardstick, %")
    bar.outline.set_visible(False)
    return figure


def _size(result: Result) -> float:
    """Number of training examples; infinite for all of them."""
    size = result.about["size"]
    return math.inf if size is None else float(size)


def _size_text(size: float) -> str:
    return "all" if size == math.inf else f"{size:.0f}"


def _gains(
    results: Sequence[Result], problem: str, widths: Sequence[int], sizes: Sequence[float]
) -> Any:
    """Gains in percent, an array of widths and sizes: means over tables, NaN where there is none.

    The widest network stands first.
    """
    values = np.full((len(widths), len(sizes)), np.nan)
    for row, width in enumerate(reversed(widths)):
        for column, size in enumerate(sizes):
            own = [
                result.verdicts[DECIDED].over_yardstick.mean()
                for result in results
                if (result.problem, result.about["width"], _size(result)) == (problem, width, size)
            ]
            if own:
                values[row, column] = 100 * np.mean(own)
    return values
