"""Figures of the affinities, and what all figures of the package share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.results import Array

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


def plot_affinity(affinity: Affinity) -> Figure:
    """Heat map of the affinities, [source row, target column].

    White is 0, and the pairs of different tasks set the scale. What a task does to itself is of
    another size, and stands on grey. With up to 12 tasks each cell has the mean and its standard
    error. A mean is in parentheses if its interval of 95 % contains 0.
    """
    factor, unit, largest = find_scale(affinity.mean)
    values, limit = between_tasks(affinity.mean) * factor, largest * factor
    label = f"affinity{unit}: blue helps, red hurts"
    figure, axes = draw_pairs(affinity.tasks, values, "RdBu", (-limit, limit), label)
    axes.set_xlabel("target: its loss changes", fontweight="bold", labelpad=8)
    axes.set_ylabel("source: the step is for it", fontweight="bold", labelpad=8)
    if len(affinity.tasks) <= MOST_NUMBERS:
        _write_cells(axes, affinity, factor, largest)
    return figure


def _write_cells(axes: Any, affinity: Affinity, factor: float, largest: float) -> None:
    decimals = max(0, 2 - int(np.floor(np.log10(largest * factor))))
    low, high = affinity.interval(confidence=0.95)
    # False where the interval is not known.
    near_zero = (low <= 0) & (high >= 0)
    for (source, target), mean in np.ndenumerate(affinity.mean):
        error = affinity.standard_error[source, target]
        # The diagonal may be much larger.
        kind = f".{decimals}f" if abs(mean * factor) < 1e4 else ".1e"
        text = f"{mean * factor:{kind}}" if np.isfinite(mean) else "not\nmeasured"
        if np.isfinite(mean) and np.isfinite(error):
            text = f"({text})" if near_zero[source, target] else text
            text += f"\n±{error * factor:{kind}}"
        dark = source != target and abs(mean) > 0.65 * largest
        style = {"fontsize": 8, "linespacing": 1.3, "color": "white" if dark else INK}
        axes.text(target, source, with_minus(text), ha="center", va="center", **style)


def plot_history(affinity: Affinity) -> Figure | None:
    """Affinities over epochs: one panel for each target, one line for each other source.

    Epochs without a measurement leave a gap. None if no pair of different tasks has a history.
    """
    history, tasks = between_tasks(affinity.history), affinity.tasks
    if not np.isfinite(history).any():
        return None
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = new_figure(9.5, 1.3 + 2 * rows)
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
    tasks: Sequence[str], values: Array, colours: str, limits: tuple[float, float], label: str
) -> tuple[Figure, Any]:
    """Figure and axes of a heat map of values (T, T), which are NaN on the diagonal, drawn grey.

    Matplotlib's map `colours` runs from one limit to the other; `label` says what it means.
    """
    size, few = len(tasks), len(tasks) <= MOST_NUMBERS
    side = max(0.72 * size, 2.6) if few else 0.27 * size
    margin = 1.1 + 0.08 * max(map(len, tasks))
    figure = new_figure(side + margin + 1.1, side + margin)
    axes: Any = figure.subplots()
    # The lower layer shows on the diagonal only.
    axes.imshow(np.where(np.eye(size), 0.25, np.nan), "Greys", vmin=0, vmax=1)
    image = axes.imshow(values, colours, vmin=limits[0], vmax=limits[1])
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, pad=0.02)
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
    return figure, axes


def add_legend(
    figure: Figure, styles: Sequence[Mapping[str, Any]], words: Sequence[str], where: str
) -> None:
    """Adds a legend of lines in `styles` outside the axes, `"upper"` or `"lower"`."""
    lines: list[Any] = [matplotlib.lines.Line2D([], [], **style) for style in styles]
    columns = max(1, min(len(words), 90 // (6 + max(map(len, words)))))
    place = f"outside {where} center"
    legend = figure.legend(lines, words, loc=place, ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def between_tasks(values: Array) -> Array:
    """`values` (..., T, T) with NaN on the diagonal."""
    return np.where(np.eye(values.shape[-1], dtype=bool), np.nan, values)


def find_scale(values: Array) -> tuple[float, str, float]:
    """Factor to bring values (..., T, T) between tasks to 1..1000, its unit, the largest size."""
    values = between_tasks(values)
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.any() else 1.0
    # For smaller numbers, the factor would be infinite.
    power = max(3 * int(np.floor(np.log10(largest) / 3)), -300)
    superscript = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**-power, f", in units of 10{superscript}" if power else "", largest


def with_minus(text: str) -> str:
    """`text` with minus signs instead of hyphens."""
    return text.replace("-", "\N{MINUS SIGN}")
