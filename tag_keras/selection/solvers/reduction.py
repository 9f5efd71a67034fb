"""Reduction: bounds leave out the networks that no good choice has."""

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.budget_program import COST_TOLERANCE, NetworkProgram
from tag_keras.selection.solvers.problem import Floats, Rows

# Up to this number of networks, the integer program takes them all.
_SMALL_PROGRAM = 100
# Linear programs that tighten the bounds, and networks that each of them adds to the next.
_MOST_ROUNDS, _MOST_ADDED = 50, 150


class Part(NamedTuple):
    """Choices of `number` networks (None: any) out of `rows`; no mean loss is below `bound`."""

    number: int | None
    rows: Rows
    bound: float


class _Bound(NamedTuple):
    """A bound `value` of the sum of losses for any choice; with network m, it grows as in `rows`.

    `threshold` is the largest of the reduced costs (M,) of the networks behind `value`.
    """

    value: float
    threshold: float
    reduced: Floats

    def rows(self, most: float) -> Rows:
        """Networks that may be in a choice with at most this sum of losses."""
        return np.flatnonzero(self.value + np.maximum(self.reduced - self.threshold, 0.0) <= most)


# Let u[t] be a price of task t and mu >= 0 a price of a unit of cost. The reduced cost of network m
# is
#   r[m] = mu c[m] - sum over its tasks of max(u[t] - loss[m, t], 0).
# No choice of j networks within the budget has a sum of losses below
#   bound = sum of u - mu budget + sum of the j least r,
# and none with network m has one below bound + max(r[m] - j-th least r, 0). (In a partition, a
# network serves all of its tasks, and the difference stands for the maximum. Otherwise it serves at
# least one task, or the choice does without it.) This holds for any u and mu. The prices of the
# linear program for j networks make the bound tight; where costs differ, a linear program for any
# number does not. It starts with few networks; all that would lower its value join it.
def reduce_networks(program: NetworkProgram, start: Rows) -> tuple[list[Part], Rows]:
    """A part for each number of networks that a best choice may have, ties included.

    `start` is a choice within the budget; with the parts comes the best choice found.
    """
    if len(program.losses) <= _SMALL_PROGRAM:
        return [Part(None, np.arange(len(program.losses)), program.least)], np.sort(start)
    active = _promising(program, start)
    bounds = _no_bounds(program)
    number, done = len(start), set[int]()
    while True:
        most = _most(program, start)
        _tighten(program, number, active, bounds, most)
        if bounds[number].value <= most:
            start = _better(program, number, np.flatnonzero(active), start)
            most = _most(program, start)
        done.add(number)
        rows = {j: bound.rows(most) for j, bound in bounds.items()}
        large = [j for j in rows if len(rows[j]) > _SMALL_PROGRAM and j not in done]
        if not large or time.monotonic() > program.deadline:
            break
        number = min(large, key=lambda j: bounds[j].value)
    rows[len(start)] = np.union1d(rows[len(start)], start)
    mean = 1 / program.losses.shape[1]
    parts = [
        Part(j, kept, bounds[j].value * mean)
        for j, kept in rows.items()
        # A part that lacks all networks of some task holds no choice.
        if np.isfinite(program.losses[kept]).any(axis=0).all()
    ]
    return sorted(parts, key=lambda part: part.bound), np.sort(start)


def price_networks(program: NetworkProgram, start: Rows) -> tuple[float, Floats] | None:
    """The bound before any network adds to it and reduced costs (M,), for any number of networks.

    They make a good bound; the best one if the linear programs end in time. None if none did.
    """
    active, priced = _promising(program, start), None
    for _ in range(_MOST_ROUNDS):
        prices = program.restricted(np.flatnonzero(active)).prices()
        if prices is None:
            break
        priced = _lagrangian(program, *prices)
        new = np.flatnonzero(~active & (priced[1] < -program.tolerance))
        if not len(new) or time.monotonic() > program.deadline:
            break
        active[new[np.argsort(priced[1][new], kind="stable")[:_MOST_ADDED]]] = True
    return priced


def _promising(program: NetworkProgram, start: Rows) -> npt.NDArray[np.bool_]:
    """Networks (M,) for a first linear program: all of few."""
    if len(program.losses) <= _MOST_ADDED:
        return np.ones(len(program.losses), dtype=bool)
    active = np.zeros(len(program.losses), dtype=bool)
    active[start] = True
    active[np.argsort(program.losses, axis=0, kind="stable")[:5].ravel()] = True
    # At least as many as a choice may have.
    active[np.argsort(program.costs, kind="stable")[: program.losses.shape[1]]] = True
    return active


def _most(program: NetworkProgram, start: Rows) -> float:
    num_tasks: int = program.losses.shape[1]
    return num_tasks * (program.mean_loss(start) + 2 * program.tolerance)


def _no_bounds(program: NetworkProgram) -> dict[int, _Bound]:
    """A bound that excludes nothing, for each number of networks up to the budget and to T."""
    cheapest = np.sort(program.costs)[: program.losses.shape[1]].cumsum()
    most = int((cheapest <= program.budget * (1 + COST_TOLERANCE)).sum())
    nothing = _Bound(-np.inf, 0.0, np.zeros(len(program.costs)))
    return dict.fromkeys(range(1, most + 1), nothing)


def _tighten(
    program: NetworkProgram,
    number: int,
    active: npt.NDArray[np.bool_],
    bounds: dict[int, _Bound],
    most: float,
) -> None:
    """Raises `bounds` by linear programs for `number` networks, and makes networks `active`."""
    for _ in range(_MOST_ROUNDS):
        rows = np.flatnonzero(active)
        prices = program.restricted(rows, number).prices()
        if prices is None or time.monotonic() > program.deadline:
            return
        base, reduced = _lagrangian(program, *prices)
        least = np.sort(reduced)
        for j, value in enumerate(base + least[: len(bounds)].cumsum(), 1):
            if value > bounds[j].value:
                bounds[j] = _Bound(float(value), float(least[j - 1]), reduced)
        if bounds[number].value > most:
            return
        limit = np.sort(reduced[rows])[number - 1]
        new = np.flatnonzero(~active & (reduced < limit - program.tolerance))
        if not len(new):
            return
        active[new[np.argsort(reduced[new], kind="stable")[:_MOST_ADDED]]] = True


def _lagrangian(program: NetworkProgram, prices: Floats, mu: float) -> tuple[float, Floats]:
    """The bound of the sum of losses before any network adds to it, and reduced costs (M,)."""
    members = np.isfinite(program.losses)
    gains = np.where(members, prices - np.where(members, program.losses, 0.0), -np.inf)
    if program.partition:
        gain = np.where(members, gains, 0.0).sum(axis=1)
    else:
        largest = gains.max(axis=1)
        gain = np.where(largest > 0, np.maximum(gains, 0.0).sum(axis=1), largest)
    spent = mu * program.budget * (1 + COST_TOLERANCE)
    return float(prices.sum()) - spent, mu * program.costs - gain


def _better(program: NetworkProgram, number: int, rows: Rows, start: Rows) -> Rows:
    """The best choice of `number` networks out of `rows`, or `start` if that is as good."""
    found = program.restricted(rows, number).least_loss().rows
    if found is not None and program.mean_loss(rows[found]) < program.mean_loss(start):
        return rows[found]
    return start
