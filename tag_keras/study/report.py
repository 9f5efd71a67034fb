"""The report of a study: total error by method and number of networks."""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tag_keras.report import pages, plots
from tag_keras.report.plots import Figure
from tag_keras.results import Row, mean_and_deviation
from tag_keras.study import table
from tag_keras.study.methods import METHODS
from tag_keras.study.names import METHOD_WORDS
from tag_keras.study.table import StudyLine
from tag_keras.utils.text import cells_as_markdown

_MARKERS = "osD^vP*"

_NOTE = (
    "Test split, mean ± standard deviation over the seeds; for random, over draws and seeds. The "
    "last two columns are wall times of training, averaged over the numbers of networks, in units "
    "of all trainings of tag: for the networks to choose by, and for all networks of the method."
)

Published = Mapping[str, Mapping[float, float]]


def write_study_report(
    folder: str | os.PathLike[str],
    tasks: Sequence[str],
    errors: Callable[[list[Row]], list[Row]],
    title: str,
    error: str,
    published: Published | None = None,
    source: str = "",
    half_size: bool = False,
) -> str:
    """Writes the table of a study: report.md, and report.html with the figure methods.png.

    Args:
        folder: Folder of the study.
        tasks: Tasks of the study.
        errors: Returns rows whose `loss` is the error to sum up.
        title: Title of the page.
        error: Name of the total error, with its unit.
        published: Published total errors by method and number of networks.
        source: Where they were published.
        half_size: Whether methods may choose networks of half the size for single tasks.

    Returns:
        The table in Markdown.

    Raises:
        ValueError: If no method in the folder has all of its networks.
    """
    folder, tasks = Path(folder), tuple(tasks)
    rows = errors(table.load_study_rows(folder))
    lines = table.study_lines(rows, table.found_choices(folder, rows, tasks), tasks, half_size)
    if not lines:
        raise ValueError(
            f"{folder} holds no method whose networks for {list(tasks)} have all been trained."
        )
    budgets = {line.budget for line in lines}
    published = {name: row for name, row in (published or {}).items() if budgets & {*row}}
    cells = table.study_cells(lines, published)
    markdown = cells_as_markdown(cells)
    figure = pages.png(plot_study(lines, error, published))
    note = f"{_NOTE} Published: {source}." if published else _NOTE
    page = pages.render(
        "study.html.jinja",
        title=title,
        error=error,
        head=cells[0],
        table=cells[1:],
        figure=base64.b64encode(figure or b"").decode(),
        methods={line.method: METHOD_WORDS[line.method] for line in lines},
        note=note,
    )
    pages.write(folder / "methods.png", figure)
    text = f"# {title}\n\n{error}, by method and number of networks.\n\n{markdown}\n\n{note}\n"
    pages.write(folder / "report.md", text.encode())
    pages.write(folder / "report.html", page.encode())
    return markdown


def plot_study(
    lines: Sequence[StudyLine], error: str, published: Published | None = None
) -> Figure:
    """Plots the total error, labelled `error`, over the number of networks.

    Methods that choose are lines, others points. Bars are standard deviations. Published values
    have hollow markers.
    """
    figure = plots.new_figure(8, 4.8)
    axes: Any = figure.subplots()
    methods = list(dict.fromkeys(line.method for line in lines))
    budgets = sorted({line.budget for line in lines})
    for place, method in enumerate(methods):
        own = [line for line in lines if line.method == method]
        pairs = np.array([mean_and_deviation(line.totals) for line in own])
        # Side by side: methods with the same number of networks would hide each other.
        shift = 0.4 * (place / (len(methods) - 1) - 0.5) if len(methods) > 1 else 0.0
        axes.errorbar(
            [line.budget + shift for line in own],
            pairs[:, 0],
            yerr=np.nan_to_num(pairs[:, 1]),
            label=method,
            linestyle="-" if METHODS[method].chooses else "",
            **_style(place),
        )
    for place, (method, values) in enumerate((published or {}).items()):
        style = {**_style(place), "markerfacecolor": "none", "linestyle": ":"}
        shown = {budget: value for budget, value in values.items() if budget in budgets}
        axes.plot(list(shown), list(shown.values()), label=f"{method}, published", **style)
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.set_xlim(budgets[0] - 0.4, budgets[-1] + 0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=plots.GREY)
    axes.set_axisbelow(True)
    axes.set_xlabel("networks, or budget in standard network times")
    axes.set_ylabel(error)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _style(place: int) -> dict[str, Any]:
    # A colour that comes again has another marker.
    rounds, index = divmod(place, len(plots.LINE_COLOURS))
    marker = _MARKERS[(place + rounds) % len(_MARKERS)]
    return {"color": plots.LINE_COLOURS[index], "marker": marker, "markersize": 6, "linewidth": 1.3}
