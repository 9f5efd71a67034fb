"""The report of a study: total error by method and number of networks."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tag_keras.report import pages
from tag_keras.report.drawings import Series, chart
from tag_keras.results import Row, mean_and_deviation
from tag_keras.study import table
from tag_keras.study.methods import METHODS
from tag_keras.study.names import METHOD_WORDS
from tag_keras.study.table import StudyLine
from tag_keras.utils.text import cells_as_markdown

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
    """Writes the table of a study: report.md, and report.html with a chart.

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
    series = chart_series(lines, published)
    label, axis = _result(lines, error), "networks, or budget in standard network times"
    note = f"{_NOTE} Published: {source}." if published else _NOTE
    page = pages.render(
        "study.html.jinja",
        title=title,
        error=error,
        head=cells[0],
        table=cells[1:],
        chart=chart(series, sorted(budgets), label, axis, error),
        series=series,
        methods={line.method: METHOD_WORDS[line.method] for line in lines},
        note=note,
    )
    text = f"# {title}\n\n{error}, by method and number of networks.\n\n{markdown}\n\n{note}\n"
    pages.write(folder / "report.md", text)
    pages.write(folder / "report.html", page)
    return markdown


def chart_series(lines: Sequence[StudyLine], published: Published | None = None) -> list[Series]:
    """The total error over the number of networks, by method, for a chart.

    Methods that choose are lines, others points. Bars are standard deviations. Published values
    are hollow.
    """
    methods = list(dict.fromkeys(line.method for line in lines))
    budgets = {line.budget for line in lines}
    series = []
    for place, method in enumerate(methods):
        own = [line for line in lines if line.method == method]
        pairs = np.array([mean_and_deviation(line.totals) for line in own])
        # Side by side: methods with the same number of networks would hide each other.
        shift = 0.4 * (place / (len(methods) - 1) - 0.5) if len(methods) > 1 else 0.0
        numbers = np.array([line.budget + shift for line in own])
        errors, connected = np.nan_to_num(pairs[:, 1]), METHODS[method].chooses
        series.append(Series(method, numbers, pairs[:, 0], errors, connected, False, place))
    for place, (method, values) in enumerate((published or {}).items()):
        shown = {budget: value for budget, value in values.items() if budget in budgets}
        numbers, totals = np.array([*shown]), np.array([*shown.values()])
        none = np.zeros(len(shown))
        series.append(Series(f"{method}, published", numbers, totals, none, True, True, place))
    return series


def _result(lines: Sequence[StudyLine], error: str) -> str:
    """The least total error, in words."""
    best = min(lines, key=lambda line: float(line.totals.mean()))
    return (
        f"{error} by the number of networks: least by {best.method} with {best.budget:g}, "
        f"{best.totals.mean():.4g}"
    )
