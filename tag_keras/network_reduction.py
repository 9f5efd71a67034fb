"""Leaving out, of many networks, those that a bound proves to be in no good choice."""

import time

import numpy as np
import numpy.typing as npt

from tag_keras.network_program import COST_TOLERANCE, NetworkProgram

_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]

_ROUNDS = 50
# Networks that come into the linear program at a time.
_MANY = 150


# With a price u[t] for each task and mu >= 0 for a unit of cost, a network's reduced cost is
#   r[m] = mu c[m] - sum over its tasks of max(u[t] - loss[m, t], 0),
# and no choice within the budget has a sum of losses below
#   bound = sum of u - mu budget + sum of min(r, 0),
# nor one with network m below bound + max(r[m], 0). (Without overlap, a network serves all of its
# tasks, and the maximum is the difference itself.) This holds for any u and mu. Those of the linear
# program make it tight; they are found with few networks in it, to which those of negative
# reduced cost are added until there are none.
def reduce_networks(program: NetworkProgram, start: _Rows) -> tuple[_Rows, _Rows, float]:
    """Networks that a choice as good as the best, ties included, may have.

    Args:
        program: Networks and budget.
        start: A choice within the budget.

    Returns:
        Rows of the networks kept, rows of the best choice found, and a bound of the mean loss.
    """
    losses, num_tasks = program.losses, program.losses.shape[1]
    active = np.zeros(len(losses), dtype=bool)
    active[start] = True
    active[np.argsort(losses, axis=0, kind="stable")[:5].ravel()] = True
    bound, reduced = -np.inf, np.zeros(len(losses))
    for _ in range(_ROUNDS):
        prices = program.restricted(np.flatnonzero(active)).prices()
        if prices is None or time.monotonic() > program.deadline:
            break
        found, costs = _lagrangian(program, *prices)
        if found > bound:
            bound, reduced = found, costs
        new = np.flatnonzero(~active & (costs < -program.tolerance))
        if not len(new):
            break
        active[new[np.argsort(costs[new], kind="stable")[:_MANY]]] = True
    rows = np.flatnonzero(active)
    answer = program.restricted(rows).least_loss()
    if answer.rows is not None and program.mean_loss(rows[answer.rows]) < program.mean_loss(start):
        start = rows[answer.rows]
    most = num_tasks * (program.mean_loss(start) + 2 * program.tolerance)
    kept = bound + np.maximum(reduced, 0.0) <= most
    kept[start] = True
    return np.flatnonzero(kept), np.sort(start), bound / num_tasks


def _lagrangian(program: NetworkProgram, prices: _Floats, mu: float) -> tuple[float, _Floats]:
    """Bound of the sum of losses, and reduced costs (M,)."""
    members = np.isfinite(program.losses)
    gains = np.where(members, prices - np.where(members, program.losses, 0.0), 0.0)
    if not program.partition:
        gains = np.maximum(gains, 0.0)
    reduced = mu * program.costs - gains.sum(axis=1)
    spent = mu * program.budget * (1 + COST_TOLERANCE)
    return float(prices.sum() - spent + np.minimum(reduced, 0.0).sum()), reduced
