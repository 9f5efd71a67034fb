"""All groups above a profit, by branch and bound: the proof that column generation needs."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.pool import Pricing
from tag_keras.selection.solvers.problem import Booleans, Floats

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


_Whole = npt.NDArray[np.int64]
# Nodes whose bounds are computed together: few enough for the processor's caches.
_BATCH = 128
# With more open nodes, those are taken that leave the fewest.
_MOST_OPEN = 2_000_000
# Limits of the classes of open nodes, as parts of the threshold above it.
_CLASSES = np.concatenate([np.arange(0.01, 0.1, 0.01), np.geomspace(0.1, 10.0, 15)])
# So many nodes of a batch are looked at to improve the shares.
_SAMPLE = 16


class _Nodes(NamedTuple):
    """Open nodes of one depth: the tasks taken (N, T), a bound of the profit of all groups below
    (N,), and the largest size of those that can be above the threshold (N,)."""

    members: Booleans
    bounds: Floats
    sizes: _Whole

    def take(self, rows: Any) -> "_Nodes":
        return _Nodes(self.members[rows], self.bounds[rows], self.sizes[rows])


class GroupTree:
    """Groups whose profit is above a threshold; unit after unit is taken in or left out.

    Args:
        pricing: Profits.
        threshold: Only groups with a profit above it are found.
    """

    def __init__(self, pricing: Pricing, threshold: float) -> None:
        self.pricing, self.problem, self.threshold = pricing, pricing.problem, threshold
        gains = np.maximum(pricing.gains, 0.0)
        # First those that have much to give or to gain: the fewest nodes of the orders tried.
        weight = pricing.units @ (gains.sum(axis=0) + gains.sum(axis=1))
        self.units = [list(self.problem.units[row]) for row in np.argsort(-weight, kind="stable")]
        self.left = [
            np.array([task for unit in self.units[depth:] for task in unit], np.intp)
            for depth in range(len(self.units) + 1)
        ]
        self.highest = [highest(pricing.gains[:, left], left) for left in self.left]
        self.lowest = [-highest(-pricing.gains[:, left], left) for left in self.left]
        self.shares: dict[int, PairShares] = {}
        number = len(pricing.prices)
        root = _Nodes(
            np.zeros((1, number), bool),
            np.array([np.inf]),
            np.array([self.problem.max_size]),
        )
        # A search that is cut off is as good as the best nodes left. So they come in classes by
        # their bounds: the best class first, and in it the deepest nodes.
        self.classes = threshold + max(threshold, 0.1) * _CLASSES
        self.open: dict[tuple[int, int], list[_Nodes]] = {(len(_CLASSES), 0): [root]}
        self.number = 1

    def search(self, most: int, deadline: float) -> tuple[Booleans, float]:
        """Finds the groups, or some of them if there are `most` or the time is over.

        Args:
            most: The search ends when it has found so many.
            deadline: Time, as `time.monotonic` has it, at which the search ends.

        Returns:
            Groups (G, T), and a number that no profit exceeds, which is the threshold if there
            are no groups above it and the search came to its end.
        """
        alone = np.eye(len(self.pricing.prices), dtype=bool)
        found = [alone[self.pricing.profits(alone) > self.threshold]]
        while self.open and sum(map(len, found)) < most and time.monotonic() < deadline:
            found.append(self._expand())
        groups = np.concatenate(found)
        bounds = [nodes.bounds.max() for batches in self.open.values() for nodes in batches]
        best = self.pricing.profits(groups).max(initial=self.threshold)
        return groups, float(max(best, *bounds, self.threshold))

    def _expand(self) -> Booleans:
        """Branches on a batch of nodes; returns the groups found there."""
        depth, nodes = self._pop()
        unit = self.units[depth]
        apart = (nodes.members & self.problem.apart[unit].any(axis=0)).any(axis=1)
        taken = nodes.take(~apart)
        members = taken.members.copy()
        members[:, unit] = True
        if depth + 1 < len(self.units):
            self._push(depth + 1, _joined([taken._replace(members=members), nodes]))
        return members[self._profits(members) > self.threshold]

    def _pop(self) -> tuple[int, _Nodes]:
        """Takes out a batch of nodes of one depth: the best, or with too many open, the deepest."""
        few = self.number < _MOST_OPEN
        key = max(self.open) if few else max(self.open, key=lambda key: (key[1], key[0]))
        batches, number = self.open[key], 0
        taken = []
        while batches and number < _BATCH:
            taken.append(batches.pop())
            number += len(taken[-1].bounds)
        nodes = _joined(taken)
        if number > _BATCH:
            batches.append(nodes.take(slice(_BATCH, None)))
            nodes = nodes.take(slice(_BATCH))
        if not batches:
            del self.open[key]
        self.number -= len(nodes.bounds)
        return key[1], nodes

    def _sums(self, members: Booleans) -> Floats:
        """Sums of the gains (N, T) of every task from the members."""
        sums: Floats = members @ self.pricing.gains.T
        return sums

    def _profits(self, members: Booleans) -> Floats:
        sums = self._sums(members)
        sizes = members.sum(axis=1)
        least = -np.inf if self.problem.partition else 0.0
        totals = np.where(members, np.maximum(sums, least), 0.0).sum(axis=1)
        # Groups of one task are not found here.
        valid = (sizes > 1) & (sizes <= self.problem.max_size)
        return np.where(valid, totals / np.maximum(sizes - 1, 1), -np.inf)

    def _push(self, depth: int, nodes: _Nodes) -> None:
        bounds, sizes = self._bounds(depth, nodes)
        bounds = np.minimum(bounds, nodes.bounds)
        nodes = nodes._replace(bounds=bounds, sizes=sizes).take(bounds > self.threshold)
        places = np.searchsorted(self.classes, nodes.bounds)
        for place in np.unique(places).tolist():
            self.open.setdefault((place, depth), []).append(nodes.take(places == place))
        self.number += len(places)

    def _bounds(self, depth: int, nodes: _Nodes) -> tuple[Floats, _Whole]:
        """Bounds (N,) of the profits below the nodes, and the largest sizes that reach them."""
        taken = nodes.members.sum(axis=1)
        most = int(min(len(self.left[depth]), (nodes.sizes - taken).max()))
        if most < 1:
            return np.full(len(taken), -np.inf), taken
        open_nodes = self._open_nodes(depth, nodes, most)
        bounds = self._shares(depth, open_nodes).bounds(open_nodes)
        reaching = bounds > self.threshold
        largest = taken + most - reaching[:, ::-1].argmax(axis=1)
        return bounds.max(axis=1), largest

    def _shares(self, depth: int, nodes: OpenNodes) -> PairShares:
        """Shares for the tasks left at this depth, better with every batch of nodes."""
        if depth not in self.shares:
            left = self.left[depth]
            # To begin with, those of the depth before, which has all of these tasks.
            before = self.shares.get(depth - 1)
            shares = before.shares[-len(left) :, -len(left) :] if before else None
            gains = self.pricing.gains[np.ix_(left, left)]
            self.shares[depth] = PairShares(gains, self.problem.partition, shares)
        some = slice(None, None, -(-len(nodes.sums) // _SAMPLE))
        sample = OpenNodes(*(part[some] for part in nodes))
        self.shares[depth] = self.shares[depth].improved(sample, self.threshold)
        return self.shares[depth]

    # Of a node with the tasks I taken, with the sums a[t] of their gains, and with the tasks D
    # left, let m more be taken, the set X. Then the profit is 1 / (|I| + m - 1) times the sum of
    #   max(a[t] + sum of W[t, i] over i in X, 0)   over t in I, and the same over t in X.
    # For t in X it is bounded by the shares. For t in I the sum over X lies between that of the m
    # smallest and that of the m largest W[t, i] of D, and there the maximum, which is convex, is at
    # most its chord: slope * (a[t] + sum) + constant. So each i in X adds the sum over I of
    # slope[t] W[t, i], whichever the others are, and the bound is the sum of the constants and of
    # the m largest of what the tasks of D have. (In a partition there is no maximum, and all slopes
    # are 1.)
    def _open_nodes(self, depth: int, nodes: _Nodes, most: int) -> OpenNodes:
        """What the bounds of nodes with up to so many more tasks are made of."""
        left, partition = self.left[depth], self.problem.partition
        taken = nodes.members.sum(axis=1)
        more, all_sums = np.arange(1, most + 1), self._sums(nodes.members)
        # The tasks taken, in front of others up to the same number.
        inside = np.argsort(~nodes.members, axis=1, kind="stable")[:, : taken.max()]
        real = np.arange(inside.shape[1]) < taken[:, None]
        sums = np.take_along_axis(all_sums, inside, axis=1)
        # Axes: node, number of tasks more, task.
        high = sums[:, None] + self.highest[depth][inside, 1 : most + 1].transpose(0, 2, 1)
        low = sums[:, None] + self.lowest[depth][inside, 1 : most + 1].transpose(0, 2, 1)
        slopes = np.clip(high / np.maximum(high - low, 1e-9), 0.0, 1.0)
        slopes[(low >= 0) | partition] = 1.0
        slopes *= real[:, None]
        at_low = low if partition else np.maximum(low, 0.0)
        constants = (at_low * real[:, None] + slopes * (sums[:, None] - low)).sum(axis=2)
        added = slopes @ self.pricing.gains[:, left][inside]
        if self.problem.apart.any():
            apart = nodes.members @ self.problem.apart[:, left]
            added[np.broadcast_to(apart[:, None], added.shape)] = NEVER
        sizes = taken[:, None] + more
        constants[(sizes < 2) | (sizes > nodes.sizes[:, None])] = -np.inf
        return OpenNodes(constants, added, all_sums[:, left], np.maximum(sizes - 1.0, 1.0))


def _joined(parts: Sequence[_Nodes]) -> _Nodes:
    return _Nodes(*map(np.concatenate, zip(*parts, strict=True)))
