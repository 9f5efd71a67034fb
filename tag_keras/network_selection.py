"""Network selection: which tasks share a network. What it is made of, and the command."""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.group_selection import TABLE_TASKS, select_groups, selection_frontier
from tag_keras.grouping import Grouping
from tag_keras.network_table import NetworkTable
from tag_keras.progress import show_elapsed
from tag_keras.selection_problem import Score
from tag_keras.selection_summary import reason, summary
from tag_keras.stability import grouping_stability
from tag_keras.table_selection import NetworkSelection, select_networks

__all__ = [
    "Grouping",
    "NetworkSelection",
    "NetworkTable",
    "grouping_stability",
    "main",
    "select_groups",
    "select_networks",
    "selection_frontier",
]


def main(argv: list[str]) -> int:
    """Selects networks as the flags in `argv` say, and returns the exit status."""
    # Importing this module must not define flags, nor may a second call meet those of the first.
    from absl import flags

    given = flags.FlagValues()
    _define_flags(given)
    if "--help" in argv:
        print(given.get_help())
        return 0
    try:
        if unknown := given(argv)[1:]:
            raise flags.Error(f"Unknown arguments: {' '.join(unknown)}")
        scores = _read_scores(given.scores)
        if wrong := _wrong_flags(given, scores):
            raise flags.Error(wrong)
        if given.output and os.path.isdir(given.output):
            raise flags.Error(f"flag --output should be a file. {given.output} is a folder.")
        with show_elapsed("network_selection", sys.stderr), _output_to_stderr():
            if isinstance(scores, Affinity):
                grouping, lines = _from_affinity(scores, given)
            else:
                grouping, lines = _from_table(scores, given)
        if given.output:
            grouping.save(given.output)
    except (flags.Error, OSError, ValueError) as error:
        print("network_selection:", _message(error), file=sys.stderr)
        return 2 if isinstance(error, flags.Error) else 1
    if given.format == "json":
        lines = [json.dumps(dataclasses.asdict(grouping), indent=1)]
    print("\n".join(lines))
    return 0


def _message(error: Exception) -> str:
    """One line; the system's own begins with a number and not with the file."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or 'the empty name'}: {error.strerror}"
    return str(error).replace("\n", " ")


def _define_flags(given: Any) -> None:
    from absl import flags

    text = "File to read: affinities, results.json, or a text table of networks' losses."
    flags.DEFINE_string("scores", None, text, given, required=True)
    text = "Largest number of networks; for a table, short for a budget where each costs 1."
    flags.DEFINE_integer("num_groups", None, text, flag_values=given)
    text = "Largest sum of the costs of the networks, for a table."
    flags.DEFINE_float("budget", None, text, flag_values=given)
    text = "Whether more or less is better, for a table: losses are min."
    flags.DEFINE_enum("sense", None, ["max", "min"], text, given)
    text = "Groups of one, for affinities."
    flags.DEFINE_enum("singletons", "forbid", ["forbid", "baseline"], text, given)
    text = "What a group gives a task, for affinities: of its other tasks, the mean or the sum."
    flags.DEFINE_enum("score", "mean", ["mean", "sum"], text, given)
    text = "Whether each task is in one network only."
    flags.DEFINE_boolean("partition", False, text, flag_values=given)
    text = "Seconds after which the best networks found so far are taken, where that takes long."
    flags.DEFINE_float("time_limit", 60.0, text, flag_values=given)
    flags.DEFINE_enum("format", "table", ["table", "json"], "What is printed.", given)
    flags.DEFINE_string("output", None, "File to write groups to.", given)


def _read_scores(path: str) -> Affinity | NetworkTable:
    with open(path, "rb") as file:
        first = file.read(100).lstrip()[:1]
    if first == b"{" or (path.endswith(".json") and first != b"["):
        return Affinity.load(path)
    return NetworkTable.load(path)


def _wrong_flags(given: Any, scores: Affinity | NetworkTable) -> str:
    """What is wrong with the flags for such a file; empty if nothing is."""
    if isinstance(scores, Affinity):
        if given.budget is not None or given.sense is not None:
            return "flags --budget and --sense are for tables of networks, not for affinities."
        return "" if given.num_groups is not None else "flag --num_groups must have a value."
    if given.sense is None:
        return "flag --sense must be min or max for a table of networks: losses are min."
    if given["singletons"].present:
        return "flag --singletons is for affinities: a table holds the networks of one task."
    if given["score"].present:
        return "flag --score is for affinities: a table holds the scores of its networks."
    if given.budget is not None and given.num_groups is not None:
        return "flags --budget and --num_groups are both given: a table takes one of them."
    if given.budget is None and given.num_groups is None:
        return "flag --budget must have a value for a table of networks."
    if given.budget is None and (scores.costs != 1).any():
        return "flag --budget must have a value where not every network costs 1."
    return ""


def _from_affinity(affinity: Affinity, given: Any) -> tuple[Grouping, list[str]]:
    """The grouping, and what to print of it."""
    options = {"score": given.score, "partition": given.partition, "time_limit": given.time_limit}
    num_groups, start = given.num_groups, time.monotonic()
    # All numbers of groups at once: quick only where there is a table of all groups.
    if len(affinity.tasks) > TABLE_TASKS or num_groups < 1:
        grouping = select_groups(affinity, num_groups, given.singletons, **options)
        seconds = time.monotonic() - start
        scores = _scores(affinity, grouping, given.score)
        return grouping, summary(grouping, scores, seconds=seconds)
    # More groups than tasks are of no use.
    most = min(num_groups, len(affinity.tasks)) + 1
    frontier = selection_frontier(affinity, most, given.singletons, **options)
    grouping = frontier[-2]
    scores = _scores(affinity, grouping, given.score)
    return grouping, [*summary(grouping, scores), reason(grouping, frontier)]


def _scores(affinity: Affinity, grouping: Grouping, score: Score) -> dict[str, float]:
    """What each task gets in the group that serves it; a task that may be alone gets 0 there."""
    scores = {}
    combine = np.mean if score == "mean" else np.sum
    for target, task in enumerate(grouping.tasks):
        group = grouping.groups[grouping.serves[task]]
        others = [affinity.tasks.index(source) for source in group if source != task]
        scores[task] = float(combine(affinity.mean[others, target])) if others else 0.0
    return scores


def _from_table(table: NetworkTable, given: Any) -> tuple[Grouping, list[str]]:
    """The selection of networks, and what to print of it."""
    start = time.monotonic()
    budget = given.num_groups if given.budget is None else given.budget
    selection = select_networks(
        table, budget, given.sense, partition=given.partition, time_limit=given.time_limit
    )
    rows = {task: selection.networks[selection.serves[task]] for task in table.tasks}
    scores = {
        task: float(table.scores[row, column]) for column, (task, row) in enumerate(rows.items())
    }
    costs = [float(table.costs[row]) for row in selection.networks]
    lines = summary(selection, scores, given.sense, costs, time.monotonic() - start)
    return selection, [*lines, f"cost {selection.cost:.6g} of a budget of {budget:.6g}"]


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Sends to stderr what the solver prints to stdout by itself, whatever its options say."""
    with contextlib.ExitStack() as stack:
        # There is nothing to do where the process has no stdout, or no stderr.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            before = os.dup(1)
            stack.callback(os.close, before)
            os.dup2(2, 1)
            stack.callback(os.dup2, before, 1)
            stack.callback(_flush)
        yield


def _flush() -> None:
    """Writes what the C library has kept, as the solver's output in a pipe is."""
    # Where there is no such library, as in Windows, it is written when the process ends.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    # An interrupt ends the process at once: Python's own would wait for the solver to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv))
