"""The command `python -m tag_keras.network_selection`: selects networks, and says so in words."""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tag_keras.affinity import Affinity
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import (
    TABLE_TASKS,
    score_in_group,
    select_groups,
    selection_frontier,
)
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.utils.progress import show_elapsed


def summary(
    grouping: Grouping,
    scores: Mapping[str, float],
    sense: str = "max",
    costs: Iterable[float] = (),
    seconds: float | None = None,
) -> list[str]:
    """The selection in words: a line for each network, and one for the mean score.

    Args:
        grouping: The selection.
        scores: By task, its score in the network that serves it.
        sense: `"max"`, or `"min"` where less is better.
        costs: Cost of each network, where costs matter.
        seconds: Duration of the selection, for the text where there is no proof.
    """
    lines = []
    prices = [f" (cost {cost:.6g})" for cost in costs] or [""] * len(grouping.groups)
    for index, (group, price) in enumerate(zip(grouping.groups, prices, strict=True)):
        served = ", ".join(f"{task} {scores[task]:.6g}" for task in grouping.served(index))
        line = f"network {index}{price}: {', '.join(group)}; serves {served or 'none'}"
        if helpers := grouping.helpers(index):
            line += f"; helped by {', '.join(helpers)}"
        lines.append(line)
    number = f"{len(grouping.tasks)} task{'s' if len(grouping.tasks) > 1 else ''}"
    proof = certificate(grouping, sense, seconds)
    return [*lines, f"mean score of {number}: {grouping.score:.6g}, {proof}"]


def certificate(grouping: Grouping, sense: str = "max", seconds: float | None = None) -> str:
    """Whether the selection is optimal, or how far from that it may be, in words."""
    if grouping.optimal:
        return "optimal"
    bound = grouping.upper_bound
    stopped = "" if seconds is None else f", stopped after {seconds:.0f} s"
    more, above = ("more", "above") if sense == "max" else ("less", "below")
    return (
        f"not proven optimal{stopped}: no choice scores {more} than {bound:.6g}, "
        f"which is {abs(bound - grouping.score):.6g} {above}"
    )


def reason(grouping: Grouping, frontier: Sequence[Grouping]) -> str:
    """The scores of one network less and of one more, in words.

    `frontier` has the best grouping for each number of networks, up to one more than asked for.
    """

    def networks(number: int) -> str:
        return f"{number} network{'' if number == 1 else 's'}"

    number, more = len(grouping.groups), frontier[-1]
    fewer = [one.score for one in frontier if len(one.groups) < number]
    text = "fewer networks cannot serve all tasks"
    if number == 1:
        text = "there are no fewer networks"
    elif fewer:
        text = f"{networks(number - 1)} would score {fewer[-1]:.6g}"
    if len(more.groups) > number:
        return f"{text}, {networks(len(more.groups))} {more.score:.6g}"
    return f"{text}, more than {networks(number)} no more"


def main(argv: list[str]) -> int:
    """Selects networks as the flags in `argv` say, and returns the exit status."""
    # Neither an import of this module nor an earlier call may have defined the flags.
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
        with show_elapsed("network_selection", sys.stderr):
            if isinstance(scores, Affinity):
                grouping, lines = _from_affinity(scores, given)
            else:
                grouping, lines = _from_table(scores, given)
        if given.output:
            grouping.save(given.output)
    except (flags.Error, OSError, ValueError) as error:
        message = str(error).replace("\n", " ")
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename or 'the empty name'}: {error.strerror}"
        print("network_selection:", message, file=sys.stderr)
        return 2 if isinstance(error, flags.Error) else 1
    if given.format == "json":
        lines = [json.dumps(dataclasses.asdict(grouping), indent=1)]
    print("\n".join(lines))
    return 0


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
    text = "Score of a task in a group, for affinities: over the other tasks, the mean or the sum."
    flags.DEFINE_enum("score", "mean", ["mean", "sum"], text, given)
    text = "Whether each task is in one network only."
    flags.DEFINE_boolean("partition", False, text, flag_values=given)
    text = "Seconds after which a long selection takes the best networks found so far."
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
    """The mistake in the flags for this kind of file, or an empty text."""
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
    """The grouping, and the lines to print about it."""
    options = {"score": given.score, "partition": given.partition, "time_limit": given.time_limit}
    frontier: tuple[Grouping, ...] = ()
    num_groups, start = given.num_groups, time.monotonic()
    # The frontier of all numbers of groups is quick only up to this number of tasks.
    if len(affinity.tasks) <= TABLE_TASKS and num_groups >= 1:
        # More groups than tasks do not help.
        most = min(num_groups, len(affinity.tasks)) + 1
        frontier = selection_frontier(affinity, most, given.singletons, **options)
        grouping = frontier[-2]
    else:
        grouping = select_groups(affinity, num_groups, given.singletons, **options)
    scores = {
        task: score_in_group(affinity, grouping.groups[index], task, given.score)
        for task, index in grouping.serves.items()
    }
    lines = summary(grouping, scores, seconds=time.monotonic() - start)
    return grouping, [*lines, reason(grouping, frontier)] if frontier else lines


def _from_table(table: NetworkTable, given: Any) -> tuple[Grouping, list[str]]:
    start = time.monotonic()
    budget = given.num_groups if given.budget is None else given.budget
    selection = select_networks(
        table, budget, given.sense, partition=given.partition, time_limit=given.time_limit
    )
    rows = {task: selection.networks[index] for task, index in selection.serves.items()}
    scores = {task: float(table.scores[row, table.tasks.index(task)]) for task, row in rows.items()}
    costs = [float(table.costs[row]) for row in selection.networks]
    lines = summary(selection, scores, given.sense, costs, time.monotonic() - start)
    return selection, [*lines, f"cost {selection.cost:.6g} of a budget of {budget:.6g}"]


if __name__ == "__main__":
    # An interrupt ends the process at once; Python's own handler would wait for the solver.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv))
