"""Affinities over the epochs: the strongest sources of each target, drawn and as a table."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.report.drawings import panel
from tag_keras.utils.colours import between_tasks, find_scale
from tag_keras.utils.replicates import mean_and_error
from tag_keras.utils.text import counted, joined, with_minus

# More lines cannot be told apart, more steps of a line cannot be seen.
MOST_LINES, MOST_STEPS = 4, 12


@dataclasses.dataclass(frozen=True)
class Trend:
    """The affinities onto one target over the epochs.

    Args:
        target: Name of the target.
        sources: The sources with the largest affinities, in size, the largest first.
        numbers: For each of them, its affinity in each step as text; empty where not measured.
        drawing: SVG.
    """

    target: str
    sources: Sequence[str]
    numbers: Sequence[Sequence[str]]
    drawing: str


@dataclasses.dataclass(frozen=True)
class Trends:
    """The affinities over the epochs.

    Args:
        steps: The epochs of each step, such as `"3"` or `"3 to 4"`.
        unit: The unit of the numbers, such as `", in units of 10⁻³"`.
        trends: One for each target with a history.
        unknown: Targets without one.
        left_out: Whether targets have further sources.
    """

    steps: Sequence[str]
    unit: str
    trends: Sequence[Trend]
    unknown: Sequence[str]
    left_out: bool


def trends(affinity: Affinity) -> Trends | None:
    """The strongest sources of each target; neighbouring epochs are averaged if they are many.

    Args:
        affinity: Affinities of T tasks.

    Returns:
        None if no pair of different tasks has a history.
    """
    history = between_tasks(affinity.history)
    if not np.isfinite(history).any():
        return None
    factor, unit, _ = find_scale(history)
    spans = np.array_split(np.arange(len(history)), min(len(history), MOST_STEPS))
    # Array (steps, T, T).
    means = np.array([mean_and_error(history[span])[0] for span in spans])
    names = [str(span[0] + 1) + (f" to {span[-1] + 1}" if len(span) > 1 else "") for span in spans]
    found, unknown, left_out = [], [], False
    for place, target in enumerate(affinity.tasks):
        over_time = factor * means[:, :, place].T
        size = np.abs(mean_and_error(over_time.T)[0])
        order = [int(one) for one in np.argsort(-size, kind="stable") if np.isfinite(size[one])]
        left_out |= len(order) > MOST_LINES
        if not (order := order[:MOST_LINES]):
            unknown.append(target)
            continue
        sources = [affinity.tasks[source] for source in order]
        lines = [over_time[source] for source in order]
        numbers = [[_number(value) for value in line] for line in lines]
        label = f"{target} over {counted(len(history), 'epoch')}: " + joined(
            f"{source} from {_ends(line)}" for source, line in zip(sources, numbers, strict=True)
        )
        drawing = panel(lines, label, (f"epoch {names[0]}", names[-1] if len(names) > 1 else ""))
        found.append(Trend(target, sources, numbers, drawing))
    return Trends(names, unit, found, unknown, left_out)


def _number(value: float) -> str:
    return with_minus(f"{value:.3g}") if np.isfinite(value) else ""


def _ends(numbers: Sequence[str]) -> str:
    known = [one for one in numbers if one]
    return f"{known[0]} to {known[-1]}"
