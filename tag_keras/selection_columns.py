"""The best few groups out of all groups of many tasks, by column generation."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tag_keras.network_choice import choose_networks
from tag_keras.network_program import NetworkProgram
from tag_keras.selection_pool import Duals, GroupPool
from tag_keras.selection_pricing import Pricing
from tag_keras.selection_problem import Booleans, Floats, GroupProblem
from tag_keras.selection_search import climb_family, interchange, random_family
from tag_keras.selection_tree import GroupTree

_Rows = npt.NDArray[np.intp]
# Profits that differ by less are equal: the prices of the linear program are no better. Scores are
# scaled to differences of about 1.
_ACCURACY = 1e-7
# Part of the prices before that stays in the next ones; without, it takes many times the programs.
_SMOOTHING = 0.8
# At a whole number of groups, the prices of the linear program are not unique. Those for a bit more
# have the smallest price of a group, at which branch and bound has the least to do.
_MORE = 0.1
# Random starts; groups for an integer program on the way; groups that a proof may need; and groups
# of branch and bound that join those at hand.
_STARTS, _FEW, _MANY, _MOST_NEW = 40, 400, 20_000, 1000


class Family(NamedTuple):
    """Groups, as sorted tuples of positions, with the mean over tasks of their best scores.

    No family of as many groups scores above `upper_bound`; `optimal` says that the score is that.
    """

    groups: list[tuple[int, ...]]
    score: float
    upper_bound: float
    optimal: bool


class ColumnSolver:
    """The best groups out of all groups of many tasks; few of these are ever made.

    Column generation (Gilmore and Gomory 1961, Operations Research 9): a linear program over the
    groups at hand prices the tasks; groups with a profit at these prices join it. They are found
    by climbing from group to group, and where that ends, by branch and bound, which misses none, so
    that the prices bound every family. An integer program then chooses among all groups that are
    near enough to the bound to be in a best family.

    Args:
        problem: T tasks.
        start: Groups, as positions, that cover all tasks.
    """

    def __init__(self, problem: GroupProblem, start: Sequence[tuple[int, ...]]) -> None:
        self._original = problem
        self._problem, self._top, self._scale = problem.scaled()
        self._start = problem.members(start)
        self._pool = GroupPool(self._problem, self._start)

    def solve(self, num_groups: int, tolerance: float, time_limit: float | None) -> Family:
        """The best family of at most `num_groups` groups.

        Args:
            num_groups: Largest number of groups, at least that of `start`.
            tolerance: Mean scores that differ by less are tied.
            time_limit: Seconds, after which the best family and bound so far are returned; None
                is no limit.
        """
        seconds = math.inf if time_limit is None else time_limit
        search = _Search(
            self._problem, self._pool, self._start, num_groups, tolerance / self._scale, seconds
        )
        search.run()
        groups = sorted(tuple(np.flatnonzero(row).tolist()) for row in search.best)
        score = float(self._original.scores(search.best).max(axis=0).mean())
        bound = float(self._top.mean()) + self._scale * search.bound / len(self._top)
        bound = score if search.optimal else max(score, bound)
        return Family(groups, score, bound, search.optimal)


class _Search:
    """One search of a `ColumnSolver`: the best family so far, and a bound of every family."""

    def __init__(
        self,
        problem: GroupProblem,
        pool: GroupPool,
        start: Booleans,
        num_groups: int,
        tolerance: float,
        seconds: float,
    ) -> None:
        self.problem, self.pool, self.num_groups = problem, pool, num_groups
        self.tolerance, self.seconds, self.begin = tolerance, seconds, time.monotonic()
        self.end = self.begin + seconds
        self.generator = np.random.default_rng(0)
        self.best, self.value, self.bound = start, self._value(start), 0.0
        self.optimal = False

    def run(self) -> None:
        self._start_from_random_families()
        while not self.optimal and (duals := self._price()):
            pricing = Pricing(self.problem, duals.tasks)
            self._improve(pricing)
            # The sum of scores that families may have, above the best one, if the prices are right.
            gap = duals.tasks.sum() + self.num_groups * duals.group - self.value
            gap += self.num_groups * 3 * _ACCURACY + 2 * len(duals.tasks) * self.tolerance
            # A little deeper than the prices need, it finds those for the integer program, too.
            threshold = duals.group + _ACCURACY
            threshold -= gap if gap < duals.group / 10 else 0.0
            if not self._prove(pricing, duals, threshold):
                break

    def _value(self, family: Booleans) -> float:
        """Sum over tasks of the best score; -inf if that is no family of the problem."""
        valid = len(family) <= self.num_groups and self.problem.admissible(family).all()
        times = family.sum(axis=0)
        valid &= (times == 1).all() if self.problem.partition else times.all()
        return float(self.problem.scores(family).max(axis=0).sum()) if valid else -np.inf

    def _offer(self, family: Booleans) -> None:
        """Takes the family if it is better than the best one."""
        if (value := self._value(family)) > self.value:
            self.best, self.value = family, value

    def _over(self, part: float) -> float:
        """Time at which this part of the seconds is over."""
        return self.begin + part * self.seconds

    def _start_from_random_families(self) -> None:
        for _ in range(_STARTS):
            if time.monotonic() > self._over(0.1):
                break
            family = random_family(self.problem, self.num_groups, self.generator)
            family = climb_family(self.problem, family, self._over(0.15))
            if self._value(family) > -np.inf:
                self.pool.add_family(family)
                self._offer(family)

    def _price(self) -> Duals | None:
        """Prices at which no group that climbing finds has a profit; None if the time is over."""
        smooth: Floats | None = None
        for step in range(1, 100_000):
            duals = self.pool.duals(self.num_groups + _MORE, self._over(0.9) - time.monotonic())
            if duals is None or time.monotonic() > self._over(0.5):
                return duals
            last = duals.tasks if smooth is None else smooth
            smooth = _SMOOTHING * last + (1 - _SMOOTHING) * duals.tasks
            least = duals.group + _ACCURACY / 100
            ahead, pricing = (Pricing(self.problem, prices) for prices in (smooth, duals.tasks))
            if step % 10 == 0:
                self._climb(ahead, 40)
            added = self.pool.add_profitable(ahead, least)
            added += self.pool.add_profitable(pricing, least)
            # The more groups to climb from, the dearer, and the surer that there is none.
            for number in (100, 400):
                if not added and self._climb(pricing, number):
                    added = self.pool.add_profitable(pricing, least)
            if not added:
                return duals
        return None

    def _climb(self, pricing: Pricing, number: int) -> int:
        """Adds what climbing finds from good and from random groups; returns their number."""
        profits = pricing.margins(self.pool.scores).sum(axis=1)
        good = self.pool.members[np.argsort(-profits, kind="stable")[:number]]
        density = self.generator.uniform(0.0, 1.0, (number // 2, 1))
        chosen = self.generator.random((number // 2, len(pricing.units))) < density
        return self.pool.add(pricing.climb(np.concatenate([good, chosen @ pricing.units])))

    def _improve(self, pricing: Pricing) -> None:
        """Looks for better families among the groups of the largest profit."""
        profits = pricing.margins(self.pool.scores).sum(axis=1)
        rows = np.argsort(-profits, kind="stable")[:_FEW]
        members = np.concatenate([self.best, self.pool.members[rows]])
        deadline = min(self._over(0.95), time.monotonic() + self.seconds / 6)
        if not self.problem.partition:
            found = interchange(self.problem.scores(members), np.arange(len(self.best)), deadline)
            self._offer(members[np.unique(found)])
        answer = self._program(members, deadline).least_loss()
        if answer.rows is not None:
            self._offer(members[answer.rows])
        self._offer(climb_family(self.problem, self.best, deadline))
        self.pool.add_family(self.best)

    def _prove(self, pricing: Pricing, duals: Duals, threshold: float) -> bool:
        """Bounds every family, and chooses the best if all of its groups are known.

        Returns:
            Whether there are new groups to go on with.
        """
        tree = GroupTree(pricing, threshold)
        groups, profit = tree.search(_MANY, self.end)
        profit = max(profit, duals.group)
        total = float(duals.tasks.sum())
        self.bound = min(self.bound, total + self.num_groups * profit)
        # Every group of a better family has a profit above this: the others have at most `profit`.
        needed = self.value - 2 * len(duals.tasks) * self.tolerance - total
        needed -= (self.num_groups - 1) * profit
        converged = not tree.open and profit <= duals.group + 2 * _ACCURACY
        if converged and needed < threshold:
            tree = GroupTree(pricing, needed)
            groups, _ = tree.search(_MANY, self.end)
        proven = self.bound - self.value <= self.num_groups * 3 * _ACCURACY
        if not tree.open and needed >= tree.threshold and not (proven and len(groups) > _MOST_NEW):
            self.optimal = self._choose(groups)
            return False
        groups = groups[np.argsort(-pricing.profits(groups), kind="stable")[:_MOST_NEW]]
        if proven:
            # So many groups are tied that only some of them take part in the rule for ties.
            self._choose(groups)
            self.optimal = True
            return False
        self.pool.add(groups)
        return self.pool.add_profitable(pricing, duals.group + _ACCURACY / 100) > 0

    def _choose(self, groups: Booleans) -> bool:
        """Takes the best family out of these groups, and of the tied ones that of the tie rule.

        Returns:
            Whether it is proven to be the best of them.
        """
        members = np.unique(np.concatenate([self.best, groups]), axis=0)
        best = (members[:, None] == self.best).all(axis=2).any(axis=1)
        choice = choose_networks(self._program(members, self.end), np.flatnonzero(best))
        self.best = members[choice.rows]
        self.value = self._value(self.best)
        self.bound = min(self.bound, max(self.value, -choice.bound * self.best.shape[1]))
        return choice.optimal

    def _program(self, members: Booleans, deadline: float) -> NetworkProgram:
        scores = self.problem.scores(members)
        losses = np.where(scores > -np.inf, -scores, np.inf)
        costs, budget = np.ones(len(members)), float(self.num_groups)
        partition = self.problem.partition
        return NetworkProgram(losses, costs, budget, self.tolerance, partition, deadline)
