"""Branch and bound: all groups with a profit above a threshold, the proof of column generation."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.pool import Pricing
from tag_keras.selection.solvers.problem import Booleans, Floats

_Whole = npt.NDArray[np.int64]
# Less than any gain; a sum of many is still finite.
NEVER = -1e30
# The subgradient method: number of steps, length of the first in mean gains, factor to the next.
_SHARE_STEPS, _FIRST_LENGTH, _LENGTH_FACTOR = 5, 0.4, 0.7
# Nodes of a batch from which the shares improve.
_MOST_SAMPLED = 16
# Nodes whose bounds are computed together: few enough for the processor's caches.
_BATCH = 128
# With more open nodes than this, the deepest go first, because they leave the fewest.
_MOST_OPEN = 2_000_000
# Limits of the classes of open nodes: excess of a bound, relative to the threshold.
_CLASSES = np.concatenate([np.arange(0.01, 0.1, 0.01), np.geomspace(0.1, 10.0, 15)])


class OpenNodes(NamedTuple):
    """N nodes of branch and bound, where a group may take 1 to M more of the D tasks left.

    The bound with m more tasks is (constant + parts of m tasks left) / divisor.

    Args:
        constants: Array (N, M): largest gain of the tasks taken, as far as it depends only on how
            many more come; -inf where so many cannot come.
        added: Array (N, M, D): what each task left adds to that.
        sums: Array (N, D): gain of each task left from the tasks taken.
        divisors: Array (N, M): divisor of the total.
    """

    constants: Floats
    added: Floats
    sums: Floats
    divisors: Floats


# Let X be the m tasks that a group still takes, W[t, i] the gain of t from i, and a[t] the gain of
# t from the tasks taken before. The tasks of X have the profit
#   sum over t in X of max(a[t] + sum of W[t, i] over i in X, 0).
# For numbers S with S[t, i] = -S[i, t], the sum of S[t, i] over t and i in X is 0. Added to each
# term, they leave the profit the same:
#   max(a[t] + sum of (W + S)[t, i] over i in X, sum of S[t, i] over i in X),
# the first if t is served, the second if not. Each sum is at most the sum of the m - 1 largest
# numbers of its row. With S = 0, every task counts its own best partners; the S with the least
# bound makes the tasks agree, as multipliers of a Lagrangian relaxation do. (In a partition all
# tasks are served.)
class PairShares:
    """Bounds of the profits below open nodes, with shares S in the gains of pairs.

    Args:
        gains: Array (D, D): gain of a task left (row) from another (column).
        partition: Whether a group serves all of its tasks.
        shares: Antisymmetric array (D, D). Defaults to 0.
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
        """Shares with a lower mean excess of the bounds over `threshold`, by subgradients."""
        best, least, shares = self, np.inf, self
        length = _FIRST_LENGTH * np.abs(self.gains).mean() * np.sqrt(len(self.gains))
        for _ in range(_SHARE_STEPS):
            excess, slope = shares._slope(nodes, threshold)
            if excess < least:
                best, least = shares, excess
            size = np.linalg.norm(slope)
            if size == 0:
                break
            shares = PairShares(self.gains, self.partition, shares.shares - slope * (length / size))
            length *= _LENGTH_FACTOR
        return best

    def _values(self, nodes: OpenNodes) -> tuple[Floats, Booleans]:
        """The largest part of each task left (N, M, D), and whether the task is served for it."""
        most = nodes.added.shape[1]
        served = nodes.sums[:, None] + self._served[:, :most].T
        unserved = np.full((most, 1), -np.inf) if self.partition else self._unserved[:, :most].T
        return np.maximum(served, unserved) + nodes.added, served >= unserved

    def _slope(self, nodes: OpenNodes, threshold: float) -> tuple[float, Floats]:
        """The mean excess of the nodes' bounds, and its subgradient (D, D) by the shares."""
        values, is_served = self._values(nodes)
        bounds = _bounds(nodes, values)
        # The highest bound has one partner fewer than it has tasks.
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
    """Sums (T, D + 1) of the 0, 1, 2, .. largest of each task's gains (T, D), without its own.

    `tasks` (D,) gives the row of each column's task.
    """
    gains = gains.copy()
    # A task is not its own partner: it comes last, after all the others.
    gains[tasks, np.arange(len(tasks))] = NEVER
    return np.cumsum(np.pad(-np.sort(-gains, axis=1), ((0, 0), (1, 0))), axis=1)


def _bounds(nodes: OpenNodes, values: Floats) -> Floats:
    most, number = values.shape[1:]
    last = np.arange(number) >= number - np.arange(1, most + 1)[:, None]
    chosen = np.einsum("nmd,md->nm", np.sort(values, axis=2), last.astype(float))
    bounds: Floats = (nodes.constants + chosen) / nodes.divisors
    return bounds


def _ranks(values: Floats) -> npt.NDArray[np.intp]:
    """The rank of each number in its row, 0 for the largest."""
    order = np.argsort(-values, axis=-1, kind="stable")
    return np.argsort(order, axis=-1, kind="stable")


class _Nodes(NamedTuple):
    """N open nodes of one depth: the tasks taken (N, T), bounds and sizes (N,)."""

    members: Booleans
    # Bounds of the profits of all groups below each node.
    bounds: Floats
    # Largest sizes of groups below whose profit can exceed the threshold.
    sizes: _Whole

    def take(self, rows: Any) -> "_Nodes":
        return _Nodes(self.members[rows], self.bounds[rows], self.sizes[rows])


class GroupTree:
    """Branch and bound over the units: each is taken into a group or left out, one after another.

    Args:
        pricing: Profits at the prices of the tasks.
        threshold: The tree looks for groups with a profit above this.
    """

    def __init__(self, pricing: Pricing, threshold: float) -> None:
        self.pricing, self.problem, self.threshold = pricing, pricing.problem, threshold
        gains = np.maximum(pricing.gains, 0.0)
        # Units with the largest gains come first: of the orders tried, this makes the fewest nodes.
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
            np.zeros((1, number), bool), np.array([np.inf]), np.array([self.problem.max_size])
        )
        # A search that ends early is as good as the best node left. So the class of the best bounds
        # comes first, and its deepest nodes.
        self.classes = threshold + max(threshold, 0.1) * _CLASSES
        self.open: dict[tuple[int, int], list[_Nodes]] = {(len(_CLASSES), 0): [root]}
        self.number = 1

    def search(self, most: int, deadline: float) -> tuple[Booleans, float]:
        """Finds the groups; only some of them if it ends early.

        Args:
            most: Number of groups after which the search ends.
            deadline: Time of `time.monotonic` at which the search ends.

        Returns:
            Groups (G, T), and a bound for every profit: the threshold if a full search found none.
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
        """Removes a batch of nodes of one depth: the best, or the deepest if too many are open."""
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

    def _profits(self, members: Booleans) -> Floats:
        sums, sizes = members @ self.pricing.gains.T, members.sum(axis=1)
        least = -np.inf if self.problem.partition else 0.0
        totals = np.where(members, np.maximum(sums, least), 0.0).sum(axis=1)
        # `search` adds the groups of one task.
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
        """Bounds (N,) of the profits below the nodes, and sizes (N,) as in `_Nodes`."""
        taken = nodes.members.sum(axis=1)
        most = int(min(len(self.left[depth]), (nodes.sizes - taken).max()))
        if most < 1:
            return np.full(len(taken), -np.inf), taken
        open_nodes = self._open_nodes(depth, nodes, most)
        bounds = self._shares(depth, open_nodes).bounds(open_nodes)
        reaching = bounds > self.threshold
        return bounds.max(axis=1), taken + most - reaching[:, ::-1].argmax(axis=1)

    def _shares(self, depth: int, nodes: OpenNodes) -> PairShares:
        """Shares for the tasks left at this depth, better with every batch of nodes."""
        if depth not in self.shares:
            left = self.left[depth]
            # Start with the shares of the depth before, which has all of these tasks.
            before = self.shares.get(depth - 1)
            shares = before.shares[-len(left) :, -len(left) :] if before else None
            gains = self.pricing.gains[np.ix_(left, left)]
            self.shares[depth] = PairShares(gains, self.problem.partition, shares)
        some = slice(None, None, -(-len(nodes.sums) // _MOST_SAMPLED))
        sample = OpenNodes(*(part[some] for part in nodes))
        self.shares[depth] = self.shares[depth].improved(sample, self.threshold)
        return self.shares[depth]

    # Let I be the tasks that a node has taken, a[t] the sums of their gains, D the tasks left, and
    # X the m more tasks to take. The profit is 1 / (|I| + m - 1) times the sum of
    #   max(a[t] + sum of W[t, i] over i in X, 0)   over t in I, and the same over t in X.
    # The shares bound the part of t in X. For t in I, the sum over X lies between the sums of the m
    # smallest and of the m largest W[t, i] of D. In between, the maximum, which is convex, is at
    # most its chord: slope * (a[t] + sum) + constant. So each i in X adds the sum over I of
    # slope[t] W[t, i], whatever the rest of X, and the bound is the sum of the constants and of the
    # m largest parts of tasks in D. (In a partition there is no maximum, and all slopes are 1.)
    def _open_nodes(self, depth: int, nodes: _Nodes, most: int) -> OpenNodes:
        """The nodes with up to `most` more tasks, in the terms of their bounds."""
        left, partition = self.left[depth], self.problem.partition
        taken = nodes.members.sum(axis=1)
        more, all_sums = np.arange(1, most + 1), nodes.members @ self.pricing.gains.T
        # Per node the tasks taken, padded with others to the same number.
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
