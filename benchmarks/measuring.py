"""Measuring for the benchmarks: CPU time in turns, memory in separate processes, and tables."""

import dataclasses
import math
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tag_keras.utils.text import cells_as_markdown

Step = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Figure:
    """What was measured of one thing, over some turns or seeds.

    Args:
        what: The thing: the head of a row.
        measure: What was measured, with its unit: the head of a column.
        median: Median of the values.
        lowest: Lowest value.
        highest: Highest value.
    """

    what: str
    measure: str
    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, what: str, measure: str, values: Sequence[float] | np.ndarray | float) -> "Figure":
        """The figure of several values, or of one."""
        values = np.atleast_1d(values)
        return cls(what, measure, *map(float, (np.median(values), values.min(), values.max())))

    def __str__(self) -> str:
        text = in_digits(self.median)
        if self.lowest == self.highest:
            return text
        return f"{text} ({in_digits(self.lowest)} to {in_digits(self.highest)})"


def in_digits(value: float) -> str:
    """A number with three digits, or all that stand before the point."""
    if not math.isfinite(value) or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def show(title: str, figures: Sequence[Figure]) -> None:
    """Prints a table in Markdown: a row for each thing, a column for each measure.

    Args:
        title: Head of the column of things.
        figures: What was measured. Rows and columns are in the order of their first figures.
    """
    things, measures = (
        list(dict.fromkeys(getattr(one, name) for one in figures)) for name in ("what", "measure")
    )
    by_place = {(one.what, one.measure): str(one) for one in figures}
    rows = [[thing, *(by_place.get((thing, one), "") for one in measures)] for thing in things]
    print(cells_as_markdown([[title, *measures], *rows]), end="\n\n", flush=True)


def step_of(model, batch: tuple) -> Step:
    """A training step of a compiled Keras model, with the same batch each time."""
    # Not at the top: network selection is measured without TensorFlow.
    import tensorflow as tf

    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return lambda: model.train_function(iterator)


def time_in_turns(
    steps: Mapping[str, Step], turns: int, seconds: float
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Times several kinds of step in turns, in CPU time, which other work delays least.

    Args:
        steps: Functions that make a step, by kind.
        turns: Number of turns.
        seconds: About how many CPU seconds each kind runs in a turn.

    Returns:
        By kind, CPU seconds per step, (turns,); and by kind, the CPU seconds that the first step
        took longer than the second, which is the time for tracing.
    """
    repeats, tracing = {}, {}
    for name, step in steps.items():
        durations = [_time(step) for _ in range(2)]
        tracing[name] = durations[0] - durations[1]
        repeats[name] = max(1, round(seconds / max(durations[1], 1e-6)))
    times = {name: np.zeros(turns) for name in steps}
    for turn in range(turns):
        for name, step in steps.items():
            times[name][turn] = _time(step, repeats[name]) / repeats[name]
    return times, tracing


def _time(step: Step, repeats: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeats):
        step()
    return time.process_time() - start


def run_apart(module: str, options: Sequence[str]) -> str:
    """What the command `python -m module` prints, in a separate process."""
    command = [sys.executable, "-m", module, *options]
    # The notices of libraries on the standard error only matter if the command fails.
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed:\n{process.stderr}")
    return process.stdout


def peak_megabytes() -> float:
    """Peak memory of this process so far, in MB."""
    # Not getrusage, which may count the memory of the parent process.
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024


def print_costs(
    title: str,
    ratios: Mapping[str, np.ndarray],
    tracing: Mapping[str, float],
    megabytes: Mapping[str, float],
) -> None:
    """Prints a table with a row for each kind of step.

    Args:
        title: Head of the column of kinds.
        ratios: By kind, CPU time of a step relative to a plain one, (turns,).
        tracing: By kind, CPU seconds that the first step took longer than the second.
        megabytes: By kind, peak memory in MB above the peak of plain steps; may be empty.
    """
    figures = []
    for name, values in ratios.items():
        figures.append(Figure.of(name, "CPU time, plain steps", values))
        figures.append(Figure.of(name, "tracing, CPU s", tracing[name]))
        if name in megabytes:
            figures.append(Figure.of(name, "memory, MB over plain", megabytes[name]))
    show(title, figures)
