"""The table of a study: total error by method and number of networks, and what it took."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tag_keras.results import (
    Array,
    Row,
    complete_seeds,
    load_sweep_results,
    losses_of,
    mean_and_deviation,
    total_error,
)
from tag_keras.study.networks import (
    CHOOSING,
    METHODS,
    Choice,
    choosing_networks,
    fixed_choice,
    load_choice,
)

# Names of the files of choices: the budget, and of random ones the number of the draw.
_CHOICE = re.compile(r"groups_(\d+(?:\.\d+)?)(_\d+)?\.json")


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
    seconds = _seconds(rows)
    lines = []
    for method, budgets in choices.items():
        first = choosing_networks(method, tasks, half_size) if method in CHOOSING else []
        before = {one.name(tasks) for one in first}
        choosing = sum(seconds.get(name, math.nan) for name in before)
        for budget, several in budgets.items():
            serving = [choice.names(tasks) for choice in several]
            totals = [total_error(losses_of(rows, serves, split)) for serves in serving]
            chosen = [{one.name(tasks) for one in choice.networks} for choice in several]
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
    for method in METHODS:
        if method not in CHOOSING:
            choice = fixed_choice(method, tasks)
            several = [(float(len(choice.networks)), choice)]
        else:
            several = _saved_choices(folder / method, tasks, drawn=method == "random")
        for budget, choice in sorted(several, key=lambda one: one[0]):
            if complete_seeds(rows, choice.names(tasks), "test"):
                found.setdefault(method, {}).setdefault(budget, []).append(choice)
    return found


def _saved_choices(folder: Path, tasks: tuple[str, ...], drawn: bool) -> list[tuple[float, Choice]]:
    """Budgets and choices in the folder of a method; copies that somebody has made are none."""
    names = [(path, _CHOICE.fullmatch(path.name)) for path in sorted(folder.glob("groups_*.json"))]
    return [
        (float(name[1]), load_choice(path, tasks))
        for path, name in names
        if name and bool(name[2]) == drawn
    ]


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


def _seconds(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds of training it once, by network: the mean over the seeds."""
    # A network has a row for every task and split.
    runs: dict[str, dict[int, float]] = {}
    for row in rows:
        runs.setdefault(row.network, {})[row.seed] = row.seconds
    return {name: _mean([*seeds.values()]) for name, seeds in runs.items()}


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
