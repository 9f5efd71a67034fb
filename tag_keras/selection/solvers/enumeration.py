"""Enumeration: all choices of networks below a loss, where prices leave only a few."""

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.budget_program import COST_TOLERANCE, NetworkProgram
from tag_keras.selection.solvers.problem import Booleans, Floats, Rows
from tag_keras.selection.solvers.reduction import price_networks

# After so many steps with a partial choice each, integer programs are quicker.
_MOST_STEPS = 300_000


class _Partial(NamedTuple):
    """P partial choices.

    Args:
        chosen: Positions of the networks (P, N), after them -1.
        numbers: Numbers of networks (P,).
        losses: Least losses (P, T).
        costs: Sums of costs (P,).
        reduced: Sums of reduced costs (P,).
    """

    chosen: npt.NDArray[Any]
    numbers: npt.NDArray[Any]
    losses: npt.NDArray[Any]
    costs: npt.NDArray[Any]
    reduced: npt.NDArray[Any]

    def take(self, rows: Booleans) -> "_Partial":
        return _Partial(*(part[rows] for part in self))


# With `base` and reduced costs r as in the reduction, a choice has a sum of losses of at least
#   base + sum of r over its networks.
# So from network to network, a partial choice is left where that sum, with the least r of the
# networks to come, exceeds the limit; or its cost exceeds the budget; or its tasks exceed the limit
# even if each has the least loss of the networks chosen and to come.
def list_choices(
    program: NetworkProgram, base: float, reduced: Floats, most: float
) -> list[Rows] | None:
    """All choices of networks, each of use, with at most this sum of losses; None if too many.

    Args:
        program: M networks.
        base: Bound of the sum of losses before any network adds to it.
        reduced: Reduced costs (M,) at the same prices.
        most: The largest sum of losses.
    """
    # A network more than there are tasks is of no use.
    number, limit = program.number, program.number or program.losses.shape[1]
    least = np.sort(reduced)[: number or len(reduced)]
    total = float(least.sum() if number else np.minimum(least, 0.0).sum())
    threshold = float(least[-1]) if number else 0.0
    # Without these networks, or with those, every choice is above the limit.
    rows = np.flatnonzero(base + total + np.maximum(reduced - threshold, 0.0) <= most)
    rows = rows[np.argsort(-np.abs(reduced[rows] - threshold), kind="stable")]
    losses, costs, reduced = program.losses[rows], program.costs[rows], reduced[rows]
    # For each network, the least losses (T,) of it and all networks after it; then none.
    later = np.vstack([losses, np.full(losses.shape[1], np.inf)])
    later = np.minimum.accumulate(later[::-1])[::-1]
    state = _Partial(
        np.full((1, limit), -1), np.zeros(1, np.intp), later[-1:], np.zeros(1), np.zeros(1)
    )
    steps = 0
    for place in range(len(rows)):
        steps += len(state.chosen)
        if steps > _MOST_STEPS:
            return None
        larger = _joined(program, state, place, losses[place], costs[place], reduced[place])
        state = _Partial(*map(np.concatenate, zip(state, larger, strict=True)))
        # What 0, 1, 2, .. of the networks to come add at least to the reduced costs.
        ahead = np.concatenate([[0.0], np.sort(reduced[place + 1 :]), np.full(limit, np.inf)])
        ahead = ahead[: limit + 1].cumsum()
        rest = ahead[limit - state.numbers] if number else ahead.min()
        valid = base + state.reduced + rest <= most
        valid &= np.minimum(state.losses, later[place + 1]).sum(axis=1) <= most
        state = state.take(valid)
    return [rows[chosen[chosen >= 0]] for chosen in state.chosen]


def _joined(
    program: NetworkProgram,
    state: _Partial,
    place: int,
    losses: Floats,
    cost: float,
    reduced: float,
) -> _Partial:
    """The partial choices that the network at this place may join and is of use to, with it."""
    joins = (losses < state.losses).any(axis=1) & (state.numbers < state.chosen.shape[1])
    joins &= state.costs + cost <= program.budget * (1 + COST_TOLERANCE)
    if program.partition:
        joins &= ~(np.isfinite(state.losses) & np.isfinite(losses)).any(axis=1)
    chosen, numbers, before, costs, spent = state.take(joins)
    chosen[np.arange(len(chosen)), numbers] = place
    return _Partial(chosen, numbers + 1, np.minimum(before, losses), costs + cost, spent + reduced)


# Few choices are above the bound by a small part of what the first choice is, so they come first.
def list_best(program: NetworkProgram, start: Rows) -> list[Rows] | None:
    """All choices of the least loss, ties included, and perhaps others; None if they are too many.

    `start` is a choice within the budget.
    """
    priced = price_networks(program, start)
    if priced is None:
        return None
    base, reduced = priced
    bound = base + float(np.minimum(reduced, 0.0).sum())
    num_tasks = program.losses.shape[1]
    margin = 2 * num_tasks * program.tolerance
    best = num_tasks * program.mean_loss(exchange_networks(program, start))
    for share in 0.5 ** np.arange(6, -1, -1):
        most = bound + share * max(best - bound, 0.0) + margin
        choices = list_choices(program, base, reduced, most)
        if choices:
            least = num_tasks * min(map(program.mean_loss, choices))
            if least + margin > most:
                choices = list_choices(program, base, reduced, least + margin)
            return choices
        if choices is None or time.monotonic() > program.deadline:
            break
    return None


def exchange_networks(program: NetworkProgram, rows: Rows) -> Rows:
    """The choice, as long as it gains from one network more, or from another in a network's place.

    A partition stays as it is, because its networks have to fit together.
    """
    budget = program.budget * (1 + COST_TOLERANCE)
    while not program.partition and time.monotonic() < program.deadline:
        trials = []
        for others in (rows, *(rows[rows != row] for row in rows)):
            losses = program.losses[others].min(axis=0, initial=np.inf)
            sums = np.minimum(program.losses, losses).sum(axis=1)
            sums[program.costs > budget - program.total_cost(others)] = np.inf
            best = int(sums.argmin())
            trials.append((float(sums[best]), [*others.tolist(), best]))
        found = np.unique(min(trials)[1])
        if not program.mean_loss(found) < program.mean_loss(rows) - program.tolerance:
            break
        rows = found
    return rows
