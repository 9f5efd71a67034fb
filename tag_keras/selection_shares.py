"""A bound of what tasks can gain from each other in a group, whichever of them are in it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection_problem import Booleans, Floats

# Less than any gain; a sum of many is still finite.
NEVER = -1e30
# Steps of the subgradient, the length of the first in mean gains, and what each leaves of it.
_STEPS, _LENGTH, _SHRINKING = 5, 0.4, 0.7


class OpenNodes(NamedTuple):
    """N nodes of branch and bound, at which 1 to M more of the D tasks left may be taken.

    Args:
        constants: (N, M), what the tasks taken have at most from each other and from the number of
            those to come; -inf if there cannot be so many.
        added: (N, M, D), what a task left adds to that if it is taken.
        sums: (N, D), what a task left gains from the tasks taken.
        divisors: (N, M), what the total is divided by.
    """

    constants: Floats
    added: Floats
    sums: Floats
    divisors: Floats


# Let X be the m tasks to be taken of those left, W[t, i] what t gains from i, and a[t] what it
# gains from the tasks taken before. They have the sum over t in X of
#   max(a[t] + sum of W[t, i] over i in X, 0).
# For numbers S with S[t, i] = -S[i, t], the sum of S[t, i] over t and i in X is 0. So this can be
# added to each term, whether t is served (its maximum is the first) or not (it is the second):
#   max(a[t] + sum of (W + S)[t, i] over i in X, sum of S[t, i] over i in X),
# and each of the sums is at most that of the m - 1 largest numbers of the row. With S = 0 every
# task counts its own best partners, though they are not the same; the S that makes the bound least
# has them agree, as the multipliers of a Lagrangian relaxation do. (In a partition all are served.)
class PairShares:
    """Bounds of the profits below open nodes, with shares S in the gains of pairs.

    Args:
        gains: Array (D, D), what a task (row) gains from another (column) of those left.
        partition: Whether a group serves all of its tasks.
        shares: Antisymmetric array (D, D); 0 by default.
    """

    def __init__(self, gains: Floats, partition: bool, shares: Floats | None = None) -> None:
        self.gains, self.partition = gains, partition
        self.shares = np.zeros_like(gains) if shares is None else shares
        own = np.arange(len(gains))
        self._served = highest(gains + self.shares, own)
        self._unserved = highest(self.shares, own)

    def bounds(self, nodes: OpenNodes) -> Floats:
        """Bounds (N, M) of the profits with 1 to M more tasks."""
        return _bounds(nodes, self._values(nodes)[0])

    def improved(self, nodes: OpenNodes, threshold: float) -> "PairShares":
        """Shares with lower bounds for nodes like these, by a subgradient method.

        Args:
            nodes: Open nodes.
            threshold: The mean excess of their bounds above it is made less.
        """
        best, least, shares = self, np.inf, self
        length = _LENGTH * np.abs(self.gains).mean() * np.sqrt(len(self.gains))
        for _ in range(_STEPS):
            excess, slope = shares._slope(nodes, threshold)
            if excess < least:
                best, least = shares, excess
            size = np.linalg.norm(slope)
            if size == 0:
                break
            shares = PairShares(self.gains, self.partition, shares.shares - slope * (length / size))
            length *= _SHRINKING
        return best

    def _values(self, nodes: OpenNodes) -> tuple[Floats, Booleans]:
        """What each task left has at most (N, M, D), and whether that is as one served."""
        most = nodes.added.shape[1]
        served = nodes.sums[:, None] + self._served[:, :most].T
        unserved = np.full((most, 1), -np.inf) if self.partition else self._unserved[:, :most].T
        return np.maximum(served, unserved) + nodes.added, served >= unserved

    def _slope(self, nodes: OpenNodes, threshold: float) -> tuple[float, Floats]:
        """The mean excess of the nodes' bounds, and how it changes with the shares (D, D)."""
        values, is_served = self._values(nodes)
        bounds = _bounds(nodes, values)
        # As many partners as the highest bound has, which is one less than it has tasks.
        rows, partners = np.arange(len(bounds)), bounds.argmax(axis=1)
        excess = np.maximum(bounds[rows, partners] - threshold, 0.0)
        chosen = _ranks(values[rows, partners]) <= partners[:, None]
        served, unserved = (
            _ranks(gains - np.diag(np.full(len(gains), np.inf)))
            for gains in (self.gains + self.shares, self.shares)
        )
        among = np.where(is_served[rows, partners][..., None], served, unserved)
        counted = chosen[..., None] & (among < partners[:, None, None])
        weights = (excess > 0) / nodes.divisors[rows, partners]
        slope = np.tensordot(weights, counted.astype(float), 1) / len(rows)
        return float(excess.mean()), slope - slope.T


def highest(gains: Floats, tasks: npt.NDArray[np.intp]) -> Floats:
    """Sums of the 0, 1, 2, .. largest gains (T, D + 1) of each task, not counting its own.

    Args:
        gains: Array (T, D).
        tasks: The rows (D,) of the tasks that the columns stand for.
    """
    gains = gains.copy()
    # A task is no partner of its own. So it comes last, and never among as many as the others are.
    gains[tasks, np.arange(len(tasks))] = NEVER
    return np.cumsum(np.pad(-np.sort(-gains, axis=1), ((0, 0), (1, 0))), axis=1)


def _bounds(nodes: OpenNodes, values: Floats) -> Floats:
    most, number = values.shape[1:]
    last = np.arange(number) >= number - np.arange(1, most + 1)[:, None]
    chosen = np.einsum("nmd,md->nm", np.sort(values, axis=2), last.astype(float))
    bounds: Floats = (nodes.constants + chosen) / nodes.divisors
    return bounds


def _ranks(values: Floats) -> npt.NDArray[np.intp]:
    """Places of the numbers of each row, the largest first."""
    order = np.argsort(-values, axis=-1, kind="stable")
    return np.argsort(order, axis=-1, kind="stable")
