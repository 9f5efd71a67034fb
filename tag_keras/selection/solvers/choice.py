"""The best networks under a budget; among tied choices, the first by a fixed rule."""

import math
import time
from typing import NamedTuple

import numpy as np

from tag_keras.selection.solvers.budget_program import COST_TOLERANCE, Held, NetworkProgram
from tag_keras.selection.solvers.enumeration import list_best
from tag_keras.selection.solvers.problem import Rows
from tag_keras.selection.solvers.reduction import Part, reduce_networks


class Choice(NamedTuple):
    """Rows of the chosen networks; no choice has a mean loss below `bound`."""

    rows: list[int]
    bound: float
    optimal: bool


class _Solved(NamedTuple):
    """A solved part: its program, its networks, the best choice if any, and a bound of its loss."""

    program: NetworkProgram
    kept: Rows
    rows: Rows
    bound: float
    proven: bool

    def loss(self) -> float:
        return self.program.mean_loss(self.rows) if len(self.rows) else math.inf


def choose_networks(program: NetworkProgram, fallback: Rows) -> Choice:
    """The choice of the least mean loss; ties go by cost, number, memberships, order of tasks.

    `fallback` is a choice within the budget, in case time runs out before a better one is found.
    """
    if listed := list_best(program, fallback):
        return _first_listed(program, listed)
    parts, rows = reduce_networks(program, fallback)
    best, bound, proven, solved = program.mean_loss(rows), math.inf, True, list[_Solved]()
    for part in parts:
        if part.bound > best + 2 * program.tolerance:
            # The parts after it have no better bounds.
            break
        if time.monotonic() > program.deadline:
            bound, proven = min(bound, part.bound), False
            break
        found = _solve(program, part, rows)
        if found.loss() < best:
            best, rows = found.loss(), found.kept[found.rows]
        bound, proven = min(bound, found.bound), proven and found.proven
        solved.append(found)
    bound = max(bound, program.least)
    # Trust a proof of the solver only if its choice reaches its own bound.
    if not proven or best > bound + program.accuracy:
        return Choice(program.in_order(rows), min(bound, best), False)
    most = best + program.tolerance
    rows = _first_of_the_tied([found for found in solved if found.loss() <= most], most)
    # The bound contains the error of the solver, the loss of the choice does not.
    return Choice(program.in_order(rows), best, True)


def _first_listed(program: NetworkProgram, choices: list[Rows]) -> Choice:
    """The first by the rule of all choices that are tied for the best."""
    losses = [program.mean_loss(rows) for rows in choices]
    most = min(losses) + program.tolerance
    tied = [rows for rows, loss in zip(choices, losses, strict=True) if loss <= most]
    limit = min(map(program.total_cost, tied)) + COST_TOLERANCE * program.budget
    first = min(
        (len(rows), int(program.sizes[rows].sum()), np.sort(program.order[rows]).tolist(), index)
        for index, rows in enumerate(tied)
        if program.total_cost(rows) <= limit
    )
    rows = tied[first[-1]]
    return Choice(program.in_order(rows), program.mean_loss(rows), True)


def _solve(program: NetworkProgram, part: Part, start: Rows) -> _Solved:
    """The best choice of a part; `start` if it belongs to the part and is no worse."""
    own = part.number in (None, len(start))
    rows = np.searchsorted(part.rows, start if own else start[:0])
    inside = program.restricted(part.rows, part.number)
    answer = inside.least_loss()
    if answer.rows is None:
        # With `start` in the part, a proof that it holds no choice is wrong.
        proven = answer.proven and not own
        return _Solved(inside, part.rows, rows, math.inf if proven else part.bound, proven)
    if not own or inside.mean_loss(answer.rows) < inside.mean_loss(rows):
        rows = answer.rows
    return _Solved(inside, part.rows, rows, max(part.bound, answer.bound), answer.proven)


def _first_of_the_tied(tied: list[_Solved], most: float) -> Rows:
    """The first choice by the rule, out of parts with a choice of at most this mean loss."""
    cheapest = [(part, *_cheapest(part, most)) for part in tied]
    least = min(part.program.total_cost(rows) for part, rows, _ in cheapest)
    limit = least + COST_TOLERANCE * tied[0].program.budget
    within = [found for found in cheapest if found[0].program.total_cost(found[1]) <= limit]
    part, rows, alone = min(within, key=lambda found: len(found[1]))
    if not alone:
        rows = _first_by_rule(part.program, rows, least, most)
    return part.kept[rows]


def _cheapest(part: _Solved, most: float) -> tuple[Rows, bool]:
    """The cheapest choice of at most this mean loss, and whether it is the only one."""
    program = part.program
    rows = part.rows
    # Drop useless networks, the dearest first. A part may have to keep its number of them.
    if not program.partition and program.number is None:
        for row in rows[np.argsort(-program.costs[rows], kind="stable")]:
            without = rows[rows != row]
            if len(without) and program.mean_loss(without) <= most:
                rows = without
    # Usually no other choice is as good at this cost, and this one program proves it.
    held = [program.within_loss(most), program.within_cost(program.total_cost(rows))]
    other = program.minimise(program.cost, held, [rows]).rows
    if other is None:
        return rows, True
    if program.mean_loss(other) <= most:
        rows = min(rows, other, key=program.total_cost)
    return rows, False


def _first_by_rule(program: NetworkProgram, rows: Rows, cost: float, most: float) -> Rows:
    """The choice with the fewest networks, then memberships, then the first by task order."""
    held = [program.within_loss(most), program.within_cost(cost)]
    for coefficients in (np.ones(len(program.costs)), program.sizes):
        objective = program.over_networks(coefficients)
        rows = _better(program, rows, program.minimise(objective, held).rows, held, most)
        held.append((objective, float(objective[rows].sum()) + 0.5))
    return _first_in_order(program, rows, held, most)


def _better(
    program: NetworkProgram, rows: Rows, found: Rows | None, held: Held, most: float
) -> Rows:
    """The choice `found`, or `rows` if an error of the solver put it beyond the limits."""
    if found is None or program.mean_loss(found) > most:
        return rows
    sums = [(float(coefficients[found].sum()), limit) for coefficients, limit in held[1:]]
    within = all(total <= limit + 1e-9 * abs(limit) for total, limit in sums)
    return found if within else rows


def _first_in_order(program: NetworkProgram, rows: Rows, held: Held, most: float) -> Rows:
    """The first choice by task order: the earliest first network, then the second, and so on."""
    nothing = program.over_networks(np.zeros(len(program.costs)))
    for position in range(len(rows)):
        while True:
            places = np.sort(program.order[rows])
            fixed = np.isin(program.order, places[:position])
            last = places[position - 1] if position else -1
            earlier = (program.order > last) & (program.order < places[position])
            if not earlier.any():
                break
            upper = (fixed | (program.order > last)).astype(float)
            window = (-program.over_networks(earlier), -1.0)
            found = program.minimise(nothing, [*held, window], (), (fixed.astype(float), upper))
            if found.rows is None:
                break
            better = _better(program, rows, found.rows, [*held, window], most)
            if better is rows:
                break
            rows = better
    return rows
