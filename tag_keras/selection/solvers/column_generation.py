"""Column generation: the best few groups for many tasks, out of all groups."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tag_keras.selection.solvers.budget_program import NetworkProgram
from tag_keras.selection.solvers.choice import choose_networks
from tag_keras.selection.solvers.local_search import climb_family, interchange, random_family
from tag_keras.selection.solvers.pool import Duals, GroupPool, Pricing
from tag_keras.selection.solvers.problem import Booleans, GroupProblem
from tag_keras.selection.solvers.tree import GroupTree

# Profits that differ by less are equal, because prices are no better. Scores differ by about 1.
_ACCURACY = 1e-7
# Weight of the best prices so far in the next ones; without it, many times more linear programs
# follow.
_SMOOTHING = 0.8
# Stages, as parts of the distance between the family's score and the best scores of all tasks: by
# how much the bound may exceed the score, and the accuracy of the prices. A coarse bound takes a
# small part of the time of an exact one, and prices come close to the best long before they are.
_STAGES = ((0.03, 0.01), (0.01, 0.003), (0.0, 0.001), (0.0, 0.0))
# At a whole number of groups, the linear program has many solutions. With a fraction more, it finds
# the one with the smallest price of a group, which leaves branch and bound the least to do.
_EXTRA_GROUPS = 0.1
# With more tasks than this, no proof is in sight. The prices for twice as many groups, which are
# smaller, then leave a better bound in the same time.
_MOST_TASKS = 60
_RANDOM_STARTS = 40
# Groups in an integer program that looks for a better family, and groups that a proof may need.
_MOST_IN_PROGRAM, _MOST_IN_PROOF = 400, 20_000
# Groups out of branch and bound that join the pool, and tied ones that the rule for ties compares.
_MOST_NEW_GROUPS = 1000


class ColumnSearch:
    """One search of a `ColumnSolver`: the best family so far, and a bound for every family."""

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
        # Whether there is a proof, and whether the rule for ties has seen all groups.
        self.optimal, self.complete = False, False

    def run(self, most_rounds: int = 1000, most_steps: int = 100_000) -> None:
        """Searches until there is a proof, or until the time is over.

        A round prices and proves; `most_steps` limits its linear programs.
        """
        if self.num_groups == 1:
            # All tasks in one group is the only family.
            self.bound, self.optimal, self.complete = self.value, True, True
            return
        self._start_from_random_families()
        stage = 0
        for _ in range(most_rounds):
            slack, error = _STAGES[stage]
            duals = self._price(most_steps, error * abs(self.value))
            if duals is None:
                break
            pricing = Pricing(self.problem, duals.tasks)
            self._improve(pricing)
            if slack:
                more = self._bound(pricing, duals, slack * abs(self.value))
            else:
                more = self._prove(pricing, duals)
            if not more:
                stage += 1
                if self.optimal or stage == len(_STAGES) or time.monotonic() > self.end:
                    break
        self.optimal = self.optimal or self._reached()
        # After an early end, the family may have groups that serve no task.
        for group in range(len(self.best) - 1, -1, -1):
            without = np.delete(self.best, group, axis=0)
            if len(without) and self._value(without) >= self.value:
                self.best = without

    def _value(self, family: Booleans) -> float:
        """Sum over tasks of the best score; -inf if the problem does not allow the family."""
        valid = len(family) <= self.num_groups and self.problem.admissible(family).all()
        times = family.sum(axis=0)
        valid &= (times == 1).all() if self.problem.partition else times.all()
        return float(self.problem.scores(family).max(axis=0).sum()) if valid else -np.inf

    def _offer(self, family: Booleans) -> None:
        """Keeps the family if it is better than the best so far."""
        if (value := self._value(family)) > self.value:
            self.best, self.value = family, value

    def _over(self, part: float) -> float:
        """The time when this fraction of the seconds is over."""
        return self.begin + part * self.seconds

    def _start_from_random_families(self) -> None:
        for _ in range(_RANDOM_STARTS):
            if time.monotonic() > self._over(0.1):
                break
            family = random_family(self.problem, self.num_groups, self.generator)
            family = climb_family(self.problem, family, self._over(0.15))
            if self._value(family) > -np.inf:
                self.pool.add_family(family)
                self._offer(family)

    # For any prices, the sum of the prices and `number` times the largest profit bounds every
    # fraction of families. Prices between those with the least bound so far and those of the linear
    # program are better than either (Wentges 1997, International Transactions in Operational
    # Research 4). The linear program shows how much better prices could be.
    def _price(self, most_steps: int, error: float) -> Duals | None:
        """Prices whose bound is the best up to `error`, as far as climbing can tell.

        None if the time is over.
        """
        if self._reached():
            # Every task has its best score in any group, so all prices are 0.
            return Duals(np.zeros(len(self.problem.alone)), 0.0)
        many = len(self.problem.alone) > _MOST_TASKS and error > 0
        number = self.num_groups + (self.num_groups if many else _EXTRA_GROUPS)
        best = math.inf
        error = max(error, number * _ACCURACY / 100)
        centre: Pricing | None = None
        for _ in range(most_steps):
            duals = self.pool.duals(number, self._over(0.9) - time.monotonic())
            if duals is None:
                break
            least, exact = duals.group + _ACCURACY / 100, Pricing(self.problem, duals.tasks)
            ahead = exact
            if centre is not None:
                between = _SMOOTHING * centre.prices + (1 - _SMOOTHING) * duals.tasks
                ahead = Pricing(self.problem, between)
            self.pool.climb(ahead, 40, self.generator)
            added = self.pool.add_profitable(ahead, least)
            bound = self._sum(ahead, number)
            if bound < best:
                centre, best = ahead, bound
            limit = float(duals.tasks.sum()) + number * duals.group + error
            if centre is not None and best <= limit:
                # Climbing from more groups makes it surer that no group has a larger profit.
                self.pool.climb(centre, 400, self.generator)
                best = self._sum(centre, number)
            if best <= limit or time.monotonic() > self._over(0.5):
                break
            added += self.pool.add_profitable(exact, least)
            for starts in (100, 400):
                if not added and self.pool.climb(exact, starts, self.generator):
                    added = self.pool.add_profitable(exact, least)
            if not added:
                return duals
        if centre is None:
            return None
        return Duals(centre.prices, max((best - float(centre.prices.sum())) / number, 0.0))

    def _sum(self, pricing: Pricing, number: float) -> float:
        """The bound of these prices for so many groups, as far as groups are known."""
        profits = pricing.margins(self.pool.scores).sum(axis=1)
        return float(pricing.prices.sum()) + number * float(profits.max(initial=0.0))

    def _improve(self, pricing: Pricing) -> None:
        """Looks for better families among the groups with the largest profits."""
        if self._reached():
            return
        profits = pricing.margins(self.pool.scores).sum(axis=1)
        rows = np.argsort(-profits, kind="stable")[:_MOST_IN_PROGRAM]
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

    def _bound(self, pricing: Pricing, duals: Duals, slack: float) -> bool:
        """Bounds every family, in the end by the best score plus `slack` if the prices allow it.

        True if there are new groups to go on with.
        """
        total = float(duals.tasks.sum())
        threshold = max((self.value + slack - total) / self.num_groups, duals.group + _ACCURACY)
        groups, profit = GroupTree(pricing, threshold).search(_MOST_NEW_GROUPS, self.end)
        self.bound = min(self.bound, total + self.num_groups * profit)
        self.pool.add(groups)
        return self.pool.add_profitable(pricing, threshold) > 0

    def _prove(self, pricing: Pricing, duals: Duals) -> bool:
        """Bounds every family, and chooses the best if all of its groups are known.

        True if there are new groups to go on with.
        """
        # If the prices are right, a family's sum of scores exceeds the best by at most this.
        gap = duals.tasks.sum() + self.num_groups * duals.group - self.value
        gap += self.num_groups * 3 * _ACCURACY + 2 * len(duals.tasks) * self.tolerance
        # A slightly lower threshold finds the groups for the integer program as well.
        threshold = duals.group + _ACCURACY
        threshold -= gap if gap < duals.group / 10 else 0.0
        tree = GroupTree(pricing, threshold)
        groups, profit = tree.search(_MOST_IN_PROOF, self.end)
        profit = max(profit, duals.group)
        total = float(duals.tasks.sum())
        self.bound = min(self.bound, total + self.num_groups * profit)
        # Every group of a better family has a profit above this: each other has at most `profit`.
        needed = self.value - 2 * len(duals.tasks) * self.tolerance - total
        needed -= (self.num_groups - 1) * profit
        converged = not tree.open and profit <= duals.group + 2 * _ACCURACY
        if converged and needed < threshold:
            tree = GroupTree(pricing, needed)
            groups, _ = tree.search(_MOST_IN_PROOF, self.end)
        complete = bool(not tree.open and needed >= tree.threshold)
        if not complete and not converged:
            order = np.argsort(-pricing.profits(groups), kind="stable")
            self.pool.add(groups[order[:_MOST_NEW_GROUPS]])
            return self.pool.add_profitable(pricing, duals.group + _ACCURACY / 100) > 0
        known = groups if complete else np.concatenate([groups, self.pool.members])
        near = self._near(pricing, known, needed)
        if not complete or (self._reached() and len(near) > _MOST_NEW_GROUPS):
            # Too many groups are tied: the rule for ties compares some of them.
            complete, near = False, near[:_MOST_NEW_GROUPS]
        self.complete = self._choose(near) and complete
        self.optimal = self.complete or self._reached()
        return False

    def _near(self, pricing: Pricing, members: Booleans, needed: float) -> Booleans:
        """Groups with a profit above `needed` that may serve a task, the largest profit first."""
        profits = pricing.profits(members)
        valid = profits > needed
        if not self.problem.partition:
            # Where further groups do not help, `needed` is 0 or less, and any group exceeds it. But
            # a group that serves tasks gets the profit needed from these tasks alone.
            margins = self.problem.scores(members) - pricing.prices
            valid &= margins.max(axis=1) > min(needed, 0.0)
        order = np.argsort(-profits, kind="stable")
        return members[order[valid[order]]]

    def _reached(self) -> bool:
        """Whether the best family reaches the bound, to the accuracy of the prices."""
        error = 3 * self.num_groups * _ACCURACY + len(self.problem.alone) * self.tolerance
        return bool(self.bound - self.value <= error)

    def _choose(self, groups: Booleans) -> bool:
        """Keeps the best family out of these groups by the rule for ties; true if proven."""
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

    No family of as many groups scores above `upper_bound`, which equals `score` if `optimal`.
    """

    groups: list[tuple[int, ...]]
    score: float
    upper_bound: float
    optimal: bool


class ColumnSolver:
    """Column generation (Gilmore and Gomory 1961, Operations Research 9) over all groups.

    A linear program over the known groups prices the tasks; groups with a profit at these prices
    join it. Climbing from group to group finds them, and where it ends, branch and bound, which
    misses none: then the prices bound every family. An integer program chooses among all groups
    whose profit is large enough for a best family. Only a few of all groups are ever made.

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
            num_groups: Largest number of groups, at least as many as in `start`.
            tolerance: Mean scores that differ by less are tied.
            time_limit: Seconds after which the best family and bound so far come back, or None.
        """
        end = math.inf if time_limit is None else time.monotonic() + time_limit
        search = self._search(num_groups, tolerance, end)
        # Among very many ties, the search may have missed a family of fewer groups.
        while search.optimal and not search.complete and len(search.best) > len(self._start):
            fewer = self._search(len(search.best) - 1, tolerance, end, most_rounds=1, most_steps=20)
            if not fewer.value >= search.value - len(self._top) * fewer.tolerance:
                break
            fewer.optimal, search = True, fewer
        groups = sorted(tuple(np.flatnonzero(row).tolist()) for row in search.best)
        score = float(self._original.scores(search.best).max(axis=0).mean())
        bound = float(self._top.mean()) + self._scale * search.bound / len(self._top)
        bound = score if search.optimal else max(score, bound)
        return Family(groups, score, bound, search.optimal)

    def sketch(self, num_groups: int) -> float:
        """The mean score of a family that is found in a second or two, without a proof."""
        search = self._search(num_groups, 0.0, time.monotonic() + 10.0, most_rounds=0)
        return float(self._original.scores(search.best).max(axis=0).mean())

    def _search(self, num_groups: int, tolerance: float, end: float, **limits: int) -> ColumnSearch:
        problem, tolerance, seconds = self._problem, tolerance / self._scale, end - time.monotonic()
        search = ColumnSearch(problem, self._pool, self._start, num_groups, tolerance, seconds)
        search.run(**limits)
        return search
