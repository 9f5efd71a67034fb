"""The table of a study: total error by method and number of networks, and what it took."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tag_keras.results import (
    Array,
    ResultTable,
    Row,
    load_sweep_results,
    mean_and_deviation,
    total_error,
)
from tag_keras.study.methods import METHODS
from tag_keras.study.networks import Choice


@dataclasses.dataclass(frozen=True)
class StudyLine:
    """A method's results for one number of networks or budget.

    Args:
        method: Name of the method.
        budget: Number of networks, or sum of costs.
        totals: Array (S,): sum over the tasks of the errors of the serving networks, for each seed
            that all of them have; of several random choices, one after the other.
        num_seeds: Number of these seeds; of several choices, the least.
        choosing: Seconds of training the networks that the choice was made by, 0 without a choice.
        seconds: Seconds of all trainings that the method needs once: those, and the networks that
            were chosen unless they are among those.
    """

    method: str
    budget: float
    totals: Array
    num_seeds: int
    choosing: float
    seconds: float


def study_lines(
    rows: Sequence[Row],
    choices: Mapping[str, Mapping[float, Sequence[Choice]]],
    tasks: tuple[str, ...],
    half_size: bool = False,
    split: str = "test",
) -> list[StudyLine]:
    """Lines of the table, in the order of the methods and then of the budgets.

    Args:
        rows: Results; `loss` is summed up.
        choices: Choices by method and budget, as `run_method` gives them.
        tasks: Task names of the study.
        half_size: As in `Study`.
        split: Split to read.

    Raises:
        ValueError: If a network has no result.
    """
    table, lines = ResultTable(rows), []
    runs = table.seconds(dict.fromkeys(row.network for row in rows))
    seconds = {name: _mean([*by_seed.values()]) for name, by_seed in runs.items()}
    for method, budgets in choices.items():
        before = {one.name for one in METHODS[method].networks(tasks, half_size)}
        choosing = sum(seconds.get(name, math.nan) for name in before)
        for budget, several in budgets.items():
            totals = [total_error(table.losses(choice.names(), split)) for choice in several]
            chosen = [{one.name for one in choice.networks} for choice in several]
            further = [sum(seconds[name] for name in names - before) for names in chosen]
            lines.append(
                StudyLine(
                    method,
                    budget,
                    np.concatenate(totals),
                    min(map(len, totals)),
                    choosing,
                    choosing + float(np.mean(further)),
                )
            )
    return lines


def load_study_rows(folder: Path) -> list[Row]:
    """Rows of all networks of a study: its own, and those of its methods' folders."""
    folders = [folder, *(folder / method for method in METHODS)]
    return [row for one in folders for row in load_sweep_results(one)]


def found_choices(
    folder: Path, rows: Sequence[Row], tasks: tuple[str, ...]
) -> dict[str, dict[float, list[Choice]]]:
    """The choices of all methods whose networks have been trained, in the order of the methods.

    Args:
        folder: Folder of the study.
        rows: Its results.
        tasks: Its tasks.
    """
    found: dict[str, dict[float, list[Choice]]] = {}
    table = ResultTable(rows)
    for name, method in METHODS.items():
        for budget, several in method.saved_choices(folder, tasks).items():
            for choice in several:
                if table.seeds(choice.names(), "test"):
                    found.setdefault(name, {}).setdefault(budget, []).append(choice)
    return found


def study_cells(
    lines: Sequence[StudyLine],
    published: Mapping[str, Mapping[float, float]] | None = None,
    reference: str = "tag",
) -> list[list[str]]:
    """The table in words: a head, a line for each method, and one for each published row.

    Args:
        lines: Lines of the table.
        published: Published total errors by a method's name and number of networks.
        reference: Method whose mean seconds over the budgets are the unit of the last two columns,
            the mean time to choose and that of all trainings; blank where it has none.

    Returns:
        Cells, row by row: method, total error for each number of networks, number of seeds, time to
        choose, time.
    """
    budgets = sorted({line.budget for line in lines})
    unit = _mean([line.seconds for line in lines if line.method == reference])
    head = ["method", *(f"{budget:g}" for budget in budgets), "seeds", "choosing", "in all"]
    table = [head]
    for method in dict.fromkeys(line.method for line in lines):
        own = {line.budget: line for line in lines if line.method == method}
        totals = [_total(own[budget]) if budget in own else "" for budget in budgets]
        times = [[one.choosing for one in own.values()], [one.seconds for one in own.values()]]
        ratios = [_ratio(_mean(values), unit) for values in times]
        table.append([method, *totals, str(min(one.num_seeds for one in own.values())), *ratios])
    for method, values in (published or {}).items():
        cells = [f"{values[budget]:.4g}" if budget in values else "" for budget in budgets]
        table.append([f"{method}, published", *cells, "", "", ""])
    return table


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _total(line: StudyLine) -> str:
    """Mean and deviation, both to the fourth digit of the mean."""
    mean, deviation = mean_and_deviation(line.totals)
    digits = 3 - math.floor(math.log10(abs(mean))) if mean else 3
    form = f".{max(0, digits)}f"
    return f"{mean:{form}}" + (f" ± {deviation:{form}}" if math.isfinite(deviation) else "")


def _ratio(value: float, unit: float) -> str:
    return f"{value / unit:.2f}" if unit > 0 and math.isfinite(value) else ""
