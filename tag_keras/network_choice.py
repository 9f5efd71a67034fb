"""The best networks under a budget, and of those that are tied the first by a fixed rule."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.network_program import Held, NetworkProgram
from tag_keras.network_reduction import reduce_networks

_Rows = npt.NDArray[np.intp]
# Up to this number of networks, the program is solved as it is.
_FEW = 100


class Choice(NamedTuple):
    """Rows of the chosen networks; no other choice has a mean loss below `bound`."""

    rows: list[int]
    bound: float
    optimal: bool


def choose_networks(program: NetworkProgram, fallback: _Rows) -> Choice:
    """The choice of the least mean loss, ties by cost, number, memberships, order of tasks.

    Args:
        program: Networks and budget.
        fallback: A choice within the budget, for when time runs out before another is found.
    """
    if len(program.costs) <= _FEW:
        return _choose(program, fallback, program.least)
    kept, rows, bound = reduce_networks(program, fallback)
    bound = max(bound, program.least)
    choice = _choose(program.restricted(kept), np.searchsorted(kept, rows), bound)
    return choice._replace(rows=kept[choice.rows].tolist())


def _choose(program: NetworkProgram, rows: _Rows, bound: float) -> Choice:
    answer = program.least_loss()
    if answer.rows is None:
        return Choice(program.in_order(rows), min(bound, program.mean_loss(rows)), False)
    if program.mean_loss(answer.rows) < program.mean_loss(rows):
        rows = answer.rows
    best, bound = program.mean_loss(rows), max(bound, answer.bound)
    # The solver's word alone is not enough: what it found must reach its own bound.
    optimal = bool(answer.proven and best <= bound + program.accuracy)
    if optimal:
        rows = _first_of_the_tied(program, rows, best + program.tolerance)
    # The bound has the solver's error in it, the loss of what was found has none.
    bound = best if optimal else min(bound, best)
    return Choice(program.in_order(rows), bound, optimal)


def _first_of_the_tied(program: NetworkProgram, rows: _Rows, most: float) -> _Rows:
    rows = _without_useless(program, rows, most)
    loss = program.within_loss(most)
    # Most often nothing else is as good at no more cost, which this one program proves.
    other = program.minimise(program.cost, [loss, program.within_cost(rows)], [rows])
    if other.rows is None:
        return rows
    if program.mean_loss(other.rows) <= most:
        rows = min(rows, other.rows, key=program.total_cost)
    held = [loss, program.within_cost(rows)]
    for coefficients in (np.ones(len(program.costs)), program.sizes):
        objective = program.over_networks(coefficients)
        rows = _better(program, rows, program.minimise(objective, held).rows, held, most)
        held.append((objective, float(objective[rows].sum()) + 0.5))
    return _first_in_order(program, rows, held, most)


def _without_useless(program: NetworkProgram, rows: _Rows, most: float) -> _Rows:
    """Leaves out networks, the dearest first, without which the loss is as good."""
    if program.partition:
        return rows
    for row in rows[np.argsort(-program.costs[rows], kind="stable")]:
        without = rows[rows != row]
        if len(without) and program.mean_loss(without) <= most:
            rows = without
    return rows


def _better(
    program: NetworkProgram, rows: _Rows, found: _Rows | None, held: Held, most: float
) -> _Rows:
    """What a program found, unless an error of the solver put it beyond the limits."""
    if found is None or program.mean_loss(found) > most:
        return rows
    sums = [(float(coefficients[found].sum()), limit) for coefficients, limit in held[1:]]
    within = all(total <= limit + 1e-9 * abs(limit) for total, limit in sums)
    return found if within else rows


def _first_in_order(program: NetworkProgram, rows: _Rows, held: Held, most: float) -> _Rows:
    """The first in the order of tasks: its first network comes first, then its second, .."""
    number = len(program.costs)
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
            nothing = program.over_networks(np.zeros(number))
            found = program.minimise(nothing, [*held, window], (), (fixed.astype(float), upper))
            if found.rows is None:
                break
            better = _better(program, rows, found.rows, [*held, window], most)
            if better is rows:
                break
            rows = better
    return rows
