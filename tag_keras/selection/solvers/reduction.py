"""Leaving out, of many networks, those that a bound proves to be in no good choice."""

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.budget_program import COST_TOLERANCE, NetworkProgram

_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]

# Up to this number of networks, a program is solved as it is.
_FEW = 100
_ROUNDS = 50
# Networks that come into the linear program at a time.
_MANY = 150


class Part(NamedTuple):
    """Choices of one number of networks, out of these rows; none has a mean loss below `bound`."""

    number: int | None
    rows: _Rows
    bound: float


class _Bound(NamedTuple):
    """Of a sum of losses, and of what it is with a network: `reduced` (M,) above `threshold`."""

    value: float
    threshold: float
    reduced: _Floats

    def rows(self, most: float) -> _Rows:
        """Networks that a choice with at most this sum of losses may have."""
        return np.flatnonzero(self.value + np.maximum(self.reduced - self.threshold, 0.0) <= most)


# With a price u[t] for each task and mu >= 0 for a unit of cost, a network's reduced cost is
#   r[m] = mu c[m] - sum over its tasks of max(u[t] - loss[m, t], 0),
# and no choice of j networks within the budget has a sum of losses below
#   bound = sum of u - mu budget + sum of the j least r,
# nor one with network m below bound + max(r[m] - j-th least r, 0). (Without overlap, a network
# serves all of its tasks, and the maximum is the difference itself. Otherwise it serves at least
# one: it could be left out if it served none.) This holds for any u and mu. Those of the linear
# program for j networks make it tight; without a number of networks, it is far from tight where
# costs differ. The prices are found with few networks in the program, to which those that would
# lower its value are added until there are none.
def reduce_networks(program: NetworkProgram, start: _Rows) -> tuple[list[Part], _Rows]:
    """Networks that a choice as good as the best, ties included, may have, for each number of them.

    Args:
        program: Networks and budget.
        start: A choice within the budget.

    Returns:
        The numbers of networks that a best choice may have, and rows of the best choice found.
    """
    if len(program.losses) <= _FEW:
        return [Part(None, np.arange(len(program.losses)), program.least)], np.sort(start)
    active = np.zeros(len(program.losses), dtype=bool)
    active[start] = True
    active[np.argsort(program.losses, axis=0, kind="stable")[:5].ravel()] = True
    # At least as many as a choice may have.
    active[np.argsort(program.costs, kind="stable")[: program.losses.shape[1]]] = True
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
        large = [j for j in rows if len(rows[j]) > _FEW and j not in done]
        if not large or time.monotonic() > program.deadline:
            break
        number = min(large, key=lambda j: bounds[j].value)
    rows[len(start)] = np.union1d(rows[len(start)], start)
    mean = 1 / program.losses.shape[1]
    parts = [
        Part(j, kept, bounds[j].value * mean)
        for j, kept in rows.items()
        # If all networks of a task are left out, no choice of so many is as good as the best.
        if np.isfinite(program.losses[kept]).any(axis=0).all()
    ]
    return sorted(parts, key=lambda part: part.bound), np.sort(start)


def _most(program: NetworkProgram, start: _Rows) -> float:
    """The largest sum of losses of a choice as good as this one."""
    num_tasks: int = program.losses.shape[1]
    return num_tasks * (program.mean_loss(start) + 2 * program.tolerance)


def _no_bounds(program: NetworkProgram) -> dict[int, _Bound]:
    """For each number of networks that the budget allows; more than tasks are of no use."""
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
    """Replaces `bounds` by better ones, and adds networks to those that are `active`."""
    for _ in range(_ROUNDS):
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
        active[new[np.argsort(reduced[new], kind="stable")[:_MANY]]] = True


def _lagrangian(program: NetworkProgram, prices: _Floats, mu: float) -> tuple[float, _Floats]:
    """What the bound of the sum of losses is without networks, and reduced costs (M,)."""
    members = np.isfinite(program.losses)
    gains = np.where(members, prices - np.where(members, program.losses, 0.0), -np.inf)
    if program.partition:
        gain = np.where(members, gains, 0.0).sum(axis=1)
    else:
        largest = gains.max(axis=1)
        gain = np.where(largest > 0, np.maximum(gains, 0.0).sum(axis=1), largest)
    spent = mu * program.budget * (1 + COST_TOLERANCE)
    return float(prices.sum()) - spent, mu * program.costs - gain


def _better(program: NetworkProgram, number: int, rows: _Rows, start: _Rows) -> _Rows:
    """The best choice of this many out of `rows`, if it is better than `start`."""
    found = program.restricted(rows, number).least_loss().rows
    if found is not None and program.mean_loss(rows[found]) < program.mean_loss(start):
        return rows[found]
    return start
