"""The best few groups out of all groups of many tasks, by column generation."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tag_keras.selection.solvers.budget_program import NetworkProgram
from tag_keras.selection.solvers.choice import choose_networks
from tag_keras.selection.solvers.local_search import climb_family, interchange, random_family
from tag_keras.selection.solvers.pool import Duals, GroupPool, Pricing
from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem
from tag_keras.selection.solvers.tree import GroupTree

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


class ColumnSearch:
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
        # Whether the best family is proven to be it, and the rule for ties has seen all groups.
        self.optimal, self.complete = False, False

    def run(self, most_rounds: int = 1000, most_steps: int = 100_000) -> None:
        """Searches until the proof, or until time is over.

        Args:
            most_rounds: Largest number of rounds of pricing and proving.
            most_steps: Largest number of linear programs in a round.
        """
        if self.num_groups == 1:
            # There is no other family than all tasks in one group.
            self.bound, self.optimal, self.complete = self.value, True, True
            return
        self._start_from_random_families()
        for _ in range(most_rounds):
            duals = self._price(most_steps)
            if duals is None:
                break
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
        self.optimal = self.optimal or self._reached()
        # What time left unfinished may have groups that serve nobody.
        for group in range(len(self.best) - 1, -1, -1):
            without = np.delete(self.best, group, axis=0)
            if len(without) and self._value(without) >= self.value:
                self.best = without

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

    def _price(self, most_steps: int) -> Duals | None:
        """Prices at which no group that climbing finds has a profit; None if the time is over."""
        if self._reached():
            # Every task has the best score that it could have in any group, and prices are at 0.
            return Duals(np.zeros(len(self.problem.alone)), 0.0)
        smooth: Floats | None = None
        for step in range(1, most_steps + 1):
            duals = self.pool.duals(self.num_groups + _MORE, self._over(0.9) - time.monotonic())
            if duals is None or time.monotonic() > self._over(0.5):
                return duals
            last = duals.tasks if smooth is None else smooth
            smooth = _SMOOTHING * last + (1 - _SMOOTHING) * duals.tasks
            least = duals.group + _ACCURACY / 100
            ahead, pricing = (Pricing(self.problem, prices) for prices in (smooth, duals.tasks))
            if step % 10 == 0:
                self.pool.climb(ahead, 40, self.generator)
            added = self.pool.add_profitable(ahead, least)
            added += self.pool.add_profitable(pricing, least)
            # The more groups to climb from, the dearer, and the surer that there is none.
            for number in (100, 400):
                if not added and self.pool.climb(pricing, number, self.generator):
                    added = self.pool.add_profitable(pricing, least)
            if not added or step == most_steps:
                return duals
        return None

    def _improve(self, pricing: Pricing) -> None:
        """Looks for better families among the groups of the largest profit."""
        if self._reached():
            return
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
        complete = bool(not tree.open and needed >= tree.threshold)
        if not complete and not converged:
            self.pool.add(groups[np.argsort(-pricing.profits(groups), kind="stable")[:_MOST_NEW]])
            return self.pool.add_profitable(pricing, duals.group + _ACCURACY / 100) > 0
        known = groups if complete else np.concatenate([groups, self.pool.members])
        near = self._near(pricing, known, needed)
        if not complete or (self._reached() and len(near) > _MOST_NEW):
            # So many groups are tied that only some of them take part in the rule for ties.
            complete, near = False, near[:_MOST_NEW]
        self.complete = self._choose(near) and complete
        self.optimal = self.complete or self._reached()
        return False

    def _near(self, pricing: Pricing, members: Booleans, needed: float) -> Booleans:
        """Groups with a profit above that needed, the largest first, that may serve a task.

        Where further groups are of no use, that is no profit or less, and any group has it. But one
        that serves tasks has the profit needed from these tasks alone.
        """
        profits = pricing.profits(members)
        valid = profits > needed
        if not self.problem.partition:
            margins = self.problem.scores(members) - pricing.prices
            valid &= margins.max(axis=1) > min(needed, 0.0)
        order = np.argsort(-profits, kind="stable")
        return members[order[valid[order]]]

    def _reached(self) -> bool:
        """Whether the best family is as good as the bound, to the accuracy of the prices."""
        error = 3 * self.num_groups * _ACCURACY + len(self.problem.alone) * self.tolerance
        return bool(self.bound - self.value <= error)

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
        return choice.optimal

    def _program(self, members: Booleans, deadline: float) -> NetworkProgram:
        scores = self.problem.scores(members)
        losses = np.where(scores > -np.inf, -scores, np.inf)
        costs, budget = np.ones(len(members)), float(self.num_groups)
        partition = self.problem.partition
        return NetworkProgram(losses, costs, budget, self.tolerance, partition, deadline)


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
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        search = self._search(num_groups, tolerance, end)
        # Of families that are tied with many others, one of fewer groups may not have been met.
        while search.optimal and not search.complete and len(search.best) > len(self._start):
            fewer = self._search(len(search.best) - 1, tolerance, end, most_rounds=1, most_steps=50)
            if not fewer.value >= search.value - len(self._top) * fewer.tolerance:
                break
            fewer.optimal, search = True, fewer
        groups = sorted(tuple(np.flatnonzero(row).tolist()) for row in search.best)
        score = float(self._original.scores(search.best).max(axis=0).mean())
        bound = float(self._top.mean()) + self._scale * search.bound / len(self._top)
        bound = score if search.optimal else max(score, bound)
        return Family(groups, score, bound, search.optimal)

    def _search(self, num_groups: int, tolerance: float, end: float, **limits: int) -> ColumnSearch:
        seconds = end - time.monotonic()
        search = ColumnSearch(
            self._problem, self._pool, self._start, num_groups, tolerance / self._scale, seconds
        )
        search.run(**limits)
        return search
