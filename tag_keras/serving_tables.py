"""What is served, in words and as tables: which tasks were moved and why, and what it is worth."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tag_keras.comparison import serving_networks
from tag_keras.conclusion import MOST_NAMES
from tag_keras.grouping import Grouping
from tag_keras.loss_table import loss_table
from tag_keras.results import FEWEST_SEEDS, Row
from tag_keras.serving import Move, Serving
from tag_keras.wording import counted, joined, plus_minus, sentence

# By network and seed, split and task.
_Losses = Mapping[tuple[str, int, str, str], float]
_NAMES = {
    "served": "what is served",
    "grouped": "the groups without the guard",
    "joint": "the joint network",
    "single": "one network per task",
}


def serving_as_text(grouping: Grouping, serving: Serving) -> str:
    """Which tasks were moved and why, and the total validation losses, in a few sentences."""
    seeds = len(serving.seeds)
    others = {"joint": serving.total_joint, "single": serving.total_single}
    known = {_NAMES[kind]: total for kind, total in others.items() if total is not None}
    parts = [_moves_as_text(serving, known)]
    if not serving.beyond_noise:
        unknown = f"With {counted(seeds, 'seed')} the noise is not known: no"
        parts.append(f"{unknown if seeds < FEWEST_SEEDS else 'No'} task moves for its own sake.")
    totals = f"Total {serving.split} loss: {serving.total:.4g} served"
    if serving.moves:
        totals += f", {serving.total_without:.4g} without the guard"
    parts.append(", ".join([totals, *(f"{one:.4g} by {by}" for by, one in known.items())]) + ".")
    if not known:
        parts.append(
            "There is neither a joint network nor one network per task to compare with, so nothing "
            "is guaranteed."
        )
    needed, before = len(serving.networks), len({*grouping.serves.values()})
    if needed != before:
        parts.append(f"It takes {counted(needed, 'network')}, the groups {before}.")
    return " ".join(parts)


def _moves_as_text(serving: Serving, known: Iterable[str]) -> str:
    """Which tasks were moved and why; `known` names the networks that the guarantee speaks of."""
    if not serving.moves:
        return "The guard moved no task: each is served by the network of its group."
    held_to = joined(f"of {name}" for name in known)
    why = {
        "beyond the noise": "better there beyond the noise between seeds",
        "the guarantee": f"to keep the total at or below that {held_to}",
        "fewer networks": "so that fewer networks serve",
    }
    # The first reason of a run comes first.
    reasons = dict.fromkeys(move.reason for move in serving.moves)
    moved = [f"{_moved(serving.moves, reason)}, {why[reason]}" for reason in reasons]
    num_tasks = counted(len(serving.grouping.tasks), "task")
    return f"The guard moved {len(serving.moves)} of {num_tasks}: {'; '.join(moved)}."


def _moved(moves: Sequence[Move], reason: str) -> str:
    words = [
        f"{one.task} from {one.before} to {one.after}" for one in moves if one.reason == reason
    ]
    return joined(words) if len(words) <= MOST_NAMES else counted(len(words), "task")


def moves_table(serving: Serving, rows: Sequence[Row]) -> list[dict[str, str]]:
    """A line for each moved task: from where, to where, why, and its losses in both networks.

    The means are over the seeds, with two standard errors of their paired difference. Those on test
    data, of the same seeds, are empty where one is missing.
    """
    lines, losses = [], _losses_by_seed(rows)
    for move in serving.moves:
        difference = move.mean_after - move.mean_before
        noise = math.nan if move.noise is None else move.noise
        lines.append(
            {
                "task": move.task,
                "before": move.before,
                "after": move.after,
                "why": sentence(move.reason.removeprefix("the ")),
                "means": _from_to(move.mean_before, move.mean_after),
                "difference": _with_sign(plus_minus(difference, noise)),
                "test": _test_means(losses, move, serving.seeds),
            }
        )
    return lines


def _test_means(losses: _Losses, move: Move, seeds: Sequence[int]) -> str:
    means = []
    for name in (move.before, move.after):
        found = [losses.get((name, seed, "test", move.task)) for seed in seeds]
        known = [loss for loss in found if loss is not None]
        if len(known) < len(found):
            return ""
        means.append(math.fsum(known) / len(known))
    return _from_to(*means)


def _from_to(before: float, after: float) -> str:
    return f"{before:#.3g} → {after:#.3g}"


def served_table(grouping: Grouping, serving: Serving, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for what is served, and one for each other kind of network that could be.

    Of each network the seed with the least validation loss counts, as in what is served.
    """
    table, losses = loss_table(grouping, rows, serving.split), _losses_by_seed(rows)
    kinds = {"served": {task: serving.network_of(task) for task in grouping.tasks}}
    for kind in ("grouped", "joint", "single"):
        serves = serving_networks(grouping)[kind]
        if {*serves.values()} <= {*table.losses}:
            seeds = table.served_seeds(serves)
            kinds[kind] = {task: (name, seeds[name]) for task, name in serves.items()}
    return [
        {
            "name": _NAMES[kind],
            "networks": len({*networks.values()}),
            "validation": _total(losses, networks, serving.split),
            "test": _total(losses, networks, "test"),
        }
        for kind, networks in kinds.items()
    ]


def _losses_by_seed(rows: Sequence[Row]) -> _Losses:
    return {(row.network, row.seed, row.split, row.task): row.loss for row in rows}


def _total(losses: _Losses, networks: Mapping[str, tuple[str, int]], split: str) -> str:
    values = [losses.get((*network, split, task)) for task, network in networks.items()]
    known = [value for value in values if value is not None]
    return f"{math.fsum(known):#.4g}" if len(known) == len(values) else ""


def _with_sign(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}") if text.startswith("-") else f"+{text}"
