"""Figures of the affinities, and what all figures of the package share.

A function draws on the axes that it gets, or makes axes of the right size with a function such as
`new_axes`. `tag_keras.plots` has the public ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.colours import between_tasks, find_scale
from tag_keras.utils.text import with_minus

try:
    import matplotlib.lines
    import matplotlib.ticker
    from matplotlib.figure import Figure as Figure
except ImportError as error:
    raise ImportError(
        'Figures need matplotlib. Install it with: pip install "tag_keras[experiments]"'
    ) from error

# Tol's "muted" colours, which colour-blind readers tell apart.
LINE_COLOURS = ["#332288", "#CC6677", "#117733", "#DDCC77", "#88CCEE"]
LINE_COLOURS += ["#882255", "#44AA99", "#999933", "#AA4499"]
_DASHES = ("-", "--", ":", "-.")
INK, GREY = "#222222", "#e4e4e4"
# With more tasks a number does not fit into its cell.
MOST_NUMBERS = 12
# Axes, or a function that makes them for a width and a height in inches.
Place = Any | Callable[[float, float], Any]


def new_axes(width: float, height: float) -> Any:
    """Axes in an empty figure that pyplot does not know."""
    return new_figure(width, height).subplots()


def axes_at(place: Place, width: float, height: float) -> Any:
    """The axes to draw on."""
    return place(width, height) if callable(place) else place


def plot_affinity(
    affinity: Affinity, place: Place = new_axes, grouping: Grouping | None = None
) -> Any:
    """Axes with a heat map of the affinities, [source row, target column].

    White is 0, and the pairs of different tasks set the scale. What a task does to itself is of
    another size, and stands on grey. Outliers, too, do not set the scale: the bar of colours ends
    in an arrow where they are beyond it. With up to 12 tasks each cell has the mean and its
    standard error. A mean is in parentheses if its interval of 95 % contains 0. The tasks stand in
    the order of the groups that serve them, with lines between the groups, if there are any.
    """
    factor, unit, largest = find_scale(affinity.mean)
    order = [*range(len(affinity.tasks))]
    if grouping is not None:
        order.sort(key=lambda index: grouping.serves[affinity.tasks[index]])
    tasks = [affinity.tasks[index] for index in order]
    values = (between_tasks(affinity.mean) * factor)[np.ix_(order, order)]
    label = f"affinity{unit}: blue helps, red hurts"
    axes = draw_pairs(tasks, values, "RdBu", largest * factor, label, place, is_signed=True)
    axes.set_xlabel("target: its loss changes", fontweight="bold", labelpad=8)
    axes.set_ylabel("source: the step is for it", fontweight="bold", labelpad=8)
    if len(tasks) <= MOST_NUMBERS:
        _write_cells(axes, affinity, order, factor, largest)
    served = [grouping.serves[task] for task in tasks] if grouping is not None else []
    for border in np.flatnonzero(np.diff(served)) + 0.5:
        for draw in (axes.axhline, axes.axvline):
            draw(border, color=INK, linewidth=1.4)
    return axes


def _write_cells(
    axes: Any, affinity: Affinity, order: Sequence[int], factor: float, largest: float
) -> None:
    decimals = max(0, 2 - int(np.floor(np.log10(largest * factor))))
    low, high = affinity.interval(confidence=0.95)
    # False where the interval is not known.
    near_zero = (low <= 0) & (high >= 0)
    for row, column in np.ndindex(affinity.mean.shape):
        source, target = order[row], order[column]
        mean = affinity.mean[source, target]
        error = affinity.standard_error[source, target]
        # The diagonal may be much larger.
        kind = f".{decimals}f" if abs(mean * factor) < 1e4 else ".1e"
        text = f"{mean * factor:{kind}}" if np.isfinite(mean) else "not\nmeasured"
        if np.isfinite(mean) and np.isfinite(error):
            text = f"({text})" if near_zero[source, target] else text
            text += f"\n±{error * factor:{kind}}"
        dark = source != target and abs(mean) > 0.65 * largest
        style = {"fontsize": 8, "linespacing": 1.3, "color": "white" if dark else INK}
        axes.text(column, row, with_minus(text), ha="center", va="center", **style)


def plot_history(
    affinity: Affinity, make_figure: Callable[[float, float], Figure] | None = None
) -> Figure | None:
    """Affinities over epochs: one panel for each target, one line for each other source.

    Epochs without a measurement leave a gap. None if no pair of different tasks has a history.
    """
    history, tasks = between_tasks(affinity.history), affinity.tasks
    if not np.isfinite(history).any():
        return None
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = (make_figure or new_figure)(9.5, 1.3 + 2 * rows)
    panels: Any = figure.subplots(rows, columns, sharex=True, squeeze=False).flat
    factor, unit, _ = find_scale(history)
    styles = [
        {"color": LINE_COLOURS[source % 9], "linestyle": _DASHES[source // 9 % 4], "marker": "."}
        for source in range(len(tasks))
    ]
    for target, task in enumerate(tasks):
        panels[target].set_title(task, fontsize=10, parse_math=False)
        _draw_target(panels[target], history[:, :, target] * factor, styles)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel(f"affinity{unit}", fontsize=10)
    add_legend(figure, styles, tasks, "upper")
    figure.legends[0].set_title("source")
    return figure


def _draw_target(panel: Any, history: Array, styles: Sequence[Mapping[str, Any]]) -> None:
    panel.axhline(0, color=INK, linewidth=0.8)
    for source, style in enumerate(styles):
        if np.isfinite(history[:, source]).any():
            epochs = np.arange(1, len(history) + 1)
            panel.plot(epochs, history[:, source], linewidth=1.4, markersize=4, **style)
    panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True, min_n_ticks=1))
    panel.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    if not np.isfinite(history).any():
        panel.text(0.5, 0.5, "not measured", ha="center", transform=panel.transAxes)
        panel.set_yticks([])
    panel.tick_params(labelsize=8, length=2, labelbottom=True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color=GREY, linewidth=0.6)


def new_figure(width: float, height: float) -> Figure:
    """Empty figure, sizes in inches; not by pyplot, which keeps figures and wants a screen."""
    return Figure(figsize=(width, height), layout="constrained")


def draw_pairs(
    tasks: Sequence[str],
    values: Array,
    colours: str,
    limit: float,
    label: str,
    place: Place = new_axes,
    is_signed: bool = False,
) -> Any:
    """Axes with a heat map of values (T, T), which are NaN on the diagonal, drawn grey.

    Matplotlib's map `colours` runs from 0, or with `is_signed` from minus the limit, to the limit;
    `label` says what it means.
    """
    size, few = len(tasks), len(tasks) <= MOST_NUMBERS
    side = max(0.72 * size, 2.6) if few else 0.27 * size
    margin = 1.1 + 0.08 * max(map(len, tasks))
    axes = axes_at(place, side + margin + 1.1, side + margin)
    # The lower layer shows on the diagonal only.
    axes.imshow(np.where(np.eye(size), 0.25, np.nan), "Greys", vmin=0, vmax=1)
    lowest = -limit if is_signed else 0
    image = axes.imshow(values, colours, vmin=lowest, vmax=limit)
    # The limit itself, brought to its unit, may be off by a rounding.
    below, above = (values < lowest - 1e-9 * limit).any(), (values > limit * (1 + 1e-9)).any()
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    options = {"shrink": 0.8, "aspect": 30, "pad": 0.02, "extend": extend}
    bar = axes.figure.colorbar(image, ax=axes, **options)
    bar.set_label(label)
    bar.outline.set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(size), tasks, parse_math=False, fontsize=10 if few else 7)
        axis.set_ticks(np.arange(size + 1) - 0.5, minor=True)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    for name in axes.get_xticklabels():
        name.set(rotation=45, ha="left", rotation_mode="anchor")
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.spines[:].set_visible(False)
    return axes


def add_legend_below(
    axes: Any, styles: Sequence[Mapping[str, Any]], words: Sequence[str], place: Place
) -> None:
    """Adds a legend of lines in `styles` below the axes: to the axes themselves if they are given.

    Other axes of the user may stand below them in the same figure.
    """
    if callable(place):
        add_legend(axes.figure, styles, words, "lower")
        return
    anchor = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "frameon": False}
    for text in axes.legend(_lines(styles), words, fontsize=8, **anchor).get_texts():
        text.set_parse_math(False)


def _lines(styles: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [matplotlib.lines.Line2D([], [], **style) for style in styles]


def add_legend(
    figure: Figure, styles: Sequence[Mapping[str, Any]], words: Sequence[str], where: str
) -> None:
    """Adds a legend of lines in `styles` outside the axes, `"upper"` or `"lower"`."""
    columns = max(1, min(len(words), 90 // (6 + max(map(len, words)))))
    place = f"outside {where} center"
    legend = figure.legend(_lines(styles), words, loc=place, ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
