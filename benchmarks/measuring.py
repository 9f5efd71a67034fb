"""Measuring for the benchmarks: time in turns, and memory in separate processes."""

import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Step = Callable[[], object]


def step_of(model, batch: tuple) -> Step:
    """A training step of a compiled Keras model, with the same batch each time."""
    # Not at the top: network selection is measured without TensorFlow.
    import tensorflow as tf

    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return lambda: model.train_function(iterator)


def time_in_turns(
    steps: Mapping[str, Step],
    turns: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Times several kinds of step in turns.

    Args:
        steps: Functions that make a step, by kind.
        turns: Number of turns.
        seconds: About how long each kind runs in a turn.
        clock: Gives the time: `time.process_time` counts what the cores work for this process.

    Returns:
        By kind, seconds per step, (turns,); and by kind, the seconds that the first step took
        longer than the second, which is the time for tracing.
    """
    repeats, tracing = {}, {}
    for name, step in steps.items():
        durations = [_time(step, clock) for _ in range(2)]
        tracing[name] = durations[0] - durations[1]
        repeats[name] = max(1, round(seconds / durations[1]))
    times = {name: np.zeros(turns) for name in steps}
    for turn in range(turns):
        for name, step in steps.items():
            times[name][turn] = _time(step, clock, repeats[name]) / repeats[name]
    return times, tracing


def _time(step: Step, clock: Callable[[], float], repeats: int = 1) -> float:
    start = clock()
    for _ in range(repeats):
        step()
    return clock() - start


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


def middle_and_spread(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} .. {ratios.max():.2f})"


def print_costs(
    title: str,
    ratios: Mapping[str, np.ndarray],
    tracing: Mapping[str, float],
    megabytes: Mapping[str, float],
) -> None:
    """Prints a table with a row for each kind of step.

    Args:
        title: Head of the column of kinds.
        ratios: By kind, time of a step relative to a plain one, (turns,).
        tracing: By kind, seconds that the first step took longer than the second.
        megabytes: By kind, peak memory in MB above the peak of plain steps; may be empty.
    """
    print(f"\n{title:28} ratio to plain (lowest .. highest)   trace s   MB over plain")
    for name, values in ratios.items():
        memory = f"{megabytes[name]:15.0f}" if name in megabytes else f"{'-':>15}"
        middle, spread = middle_and_spread(values).split(" ", 1)
        print(f"  {name:26} {middle:>6} {spread:28} {tracing[name]:8.1f} {memory}", flush=True)
