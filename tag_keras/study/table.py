"""The table of a study: total error by method and number of networks, and training times."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
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
    """Results of a method for one number of networks, or one budget.

    Args:
        method: Name of the method.
        budget: Number of networks, or sum of costs in standard network times.
        totals: Array (S,): sum of the tasks' errors for each seed that all serving networks have;
            several random choices follow one another.
        num_seeds: Number of these seeds; for several choices, the smallest.
        choosing: Seconds of training the networks to choose by; 0 without a choice.
        seconds: Seconds of training all networks once: those to choose by and those chosen.
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
) -> list[StudyLine]:
    """Makes the lines of the table on the split `"test"`, ordered by method and then by budget.

    Args:
        rows: Results; their `loss` is summed up.
        choices: Choices by method and budget.
        tasks: Tasks of the study.
        half_size: Whether methods may choose networks of half the size for single tasks.

    Raises:
        ValueError: If a network has no result.
    """
    table, lines = ResultTable(rows), []
    runs = table.seconds(dict.fromkeys(row.network for row in rows))
    seconds = {name: _mean(by_seed.values()) for name, by_seed in runs.items()}
    for method, budgets in choices.items():
        before = {one.name for one in METHODS[method].networks(tasks, half_size)}
        choosing = sum(seconds.get(name, math.nan) for name in before)
        for budget, several in budgets.items():
            totals = [total_error(table.losses(choice.names(), "test")) for choice in several]
            chosen = [{one.name for one in choice.networks} for choice in several]
            further = [sum(seconds[name] for name in names - before) for names in chosen]
            errors, num_seeds = np.concatenate(totals), min(map(len, totals))
            whole = choosing + float(np.mean(further))
            lines.append(StudyLine(method, budget, errors, num_seeds, choosing, whole))
    return lines


def load_study_rows(folder: Path) -> list[Row]:
    """Reads the rows in the folders of a study and of its methods."""
    folders = [folder, *(folder / method for method in METHODS)]
    return [row for one in folders for row in load_sweep_results(one)]


def found_choices(
    folder: Path, rows: Sequence[Row], tasks: tuple[str, ...]
) -> dict[str, dict[float, list[Choice]]]:
    """By method and budget, the choices in a study's folder whose networks all have rows."""
    found: dict[str, dict[float, list[Choice]]] = {}
    table = ResultTable(rows)
    for name, method in METHODS.items():
        for budget, several in method.saved_choices(folder, tasks).items():
            for choice in several:
                if table.seeds(choice.names(), "test"):
                    found.setdefault(name, {}).setdefault(budget, []).append(choice)
    return found


def study_cells(
    lines: Sequence[StudyLine], published: Mapping[str, Mapping[float, float]] | None = None
) -> list[list[str]]:
    """Formats the table: a head, a row for each method, and a row for each published method.

    The columns are method, total error for each number of networks, number of seeds, time to
    choose, and time of all trainings. The unit of the times is tag's mean time of all trainings;
    without tag they are blank. `published` has total errors by method and number of networks.
    """
    budgets = sorted({line.budget for line in lines})
    unit = _mean(line.seconds for line in lines if line.method == "tag")
    table = [["method", *(f"{budget:g}" for budget in budgets), "seeds", "choosing", "in all"]]
    for method in dict.fromkeys(line.method for line in lines):
        own = {line.budget: line for line in lines if line.method == method}
        totals = [_total(own[budget]) if budget in own else "" for budget in budgets]
        seeds = min(line.num_seeds for line in own.values())
        choosing = _ratio(_mean(line.choosing for line in own.values()), unit)
        in_all = _ratio(_mean(line.seconds for line in own.values()), unit)
        table.append([method, *totals, str(seeds), choosing, in_all])
    for method, values in (published or {}).items():
        cells = [f"{values[budget]:.4g}" if budget in values else "" for budget in budgets]
        table.append([f"{method}, published", *cells, "", "", ""])
    return table


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def _total(line: StudyLine) -> str:
    """Mean and deviation, both rounded at the fourth digit of the mean."""
    mean, deviation = mean_and_deviation(line.totals)
    digits = 3 - math.floor(math.log10(abs(mean))) if mean else 3
    form = f".{max(0, digits)}f"
    return f"{mean:{form}}" + (f" ± {deviation:{form}}" if math.isfinite(deviation) else "")


def _ratio(value: float, unit: float) -> str:
    return f"{value / unit:.2f}" if unit > 0 and math.isfinite(value) else ""
