"""The best few groups out of all groups of many tasks, by column generation."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tag_keras.column_search import ColumnSearch
from tag_keras.selection_pool import GroupPool
from tag_keras.selection_problem import GroupProblem


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
