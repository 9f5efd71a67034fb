"""The groups known to column generation: their profits, and the linear program of their prices."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem
from tag_keras.selection.solvers.quiet import quiet

# Columns that one call adds to the linear program.
_MOST_NEW_COLUMNS = 300


# Let u[t] be the price of task t and s[t] its score in a group G. The profit of G is the sum over
# its tasks of max(s[t] - u[t], 0), or in a partition, where a group serves all of its tasks, of
# s[t] - u[t]. For any prices, no family of k groups has a sum of best scores above
#   sum of u + k * (the largest profit of a group),
# because every group gives its tasks at most its profit above their prices. The prices that make
# this bound least are the dual solution of a linear program.
class Pricing:
    """Profits of groups for given prices.

    A score is a mean over the other members. So the profit of a group of g >= 2 tasks is a sum of
    `gains` divided by g - 1, and nothing else depends on the size. Prices (T,) count as scores do.
    """

    def __init__(self, problem: GroupProblem, prices: Floats) -> None:
        self.problem, self.prices = problem, prices
        # A member (column) adds this to g - 1 times the profit of a task (row).
        self.gains: Floats = problem.affinity.T - prices[:, None]
        np.fill_diagonal(self.gains, 0.0)
        self.units = problem.unit_members()

    def margins(self, scores: Floats) -> Floats:
        """The part (G, T) of each task in the profits of groups with these scores (G, T)."""
        least = -np.inf if self.problem.partition else 0.0
        return np.where(scores > -np.inf, np.maximum(scores - self.prices, least), 0.0)

    def profits(self, members: Booleans) -> Floats:
        """Profits (G,) of groups (G, T); -inf for a group that is not admissible."""
        totals = self.margins(self.problem.scores(members)).sum(axis=1)
        return np.where(self.problem.admissible(members), totals, -np.inf)

    def climb(self, members: Booleans, most_steps: int = 50) -> Booleans:
        """The groups (G, T) after changes by one unit at a time, as long as the profit grows."""
        members, number = members.copy(), len(self.prices)
        profits, climbing = self.profits(members), np.arange(len(members))
        for _ in range(most_steps):
            changed = members[climbing, None] ^ self.units
            values = self.profits(changed.reshape(-1, number)).reshape(len(climbing), -1)
            best = values.argmax(axis=1)
            rows = np.flatnonzero(values.max(axis=1, initial=-np.inf) > profits[climbing] + 1e-12)
            if not rows.size:
                break
            climbing, best = climbing[rows], best[rows]
            members[climbing] = changed[rows, best]
            profits[climbing] = values[rows, best]
        return members[profits > -np.inf]


class Duals(NamedTuple):
    """Dual solution of the linear program: prices of the tasks (T,), and the price of a group."""

    tasks: Floats
    group: float


class GroupPool:
    """Groups, and columns: a set of tasks that a group serves, with the sum of their scores.

    The groups `family` (K, T) cover all tasks.
    """

    def __init__(self, problem: GroupProblem, family: Booleans) -> None:
        number = len(problem.alone)
        self.problem = problem
        self.members, self.scores = np.zeros((0, number), bool), np.zeros((0, number))
        self.served, self.values = np.zeros((0, number), bool), np.zeros(0)
        self._groups: set[bytes] = set()
        self._columns: set[tuple[bytes, float]] = set()
        units = problem.unit_members()
        first, second = np.triu_indices(len(units))
        self.add(units[first] | units[second])
        self.add_family(family)

    def add(self, members: Booleans) -> int:
        """Adds the groups that are new and admissible, and returns their number."""
        members = members[self.problem.admissible(members)]
        new = members[_new(self._groups, map(bytes, members))]
        self.members = np.concatenate([self.members, new])
        self.scores = np.concatenate([self.scores, self.problem.scores(new)])
        return len(new)

    def add_family(self, family: Booleans) -> None:
        """Adds groups that cover all tasks; each serves the tasks that it is best for."""
        self.add(family)
        scores = self.problem.scores(family)
        serving = scores.argmax(axis=0) == np.arange(len(family))[:, None]
        self._add_columns(serving, scores)

    def climb(self, pricing: Pricing, number: int, generator: np.random.Generator) -> int:
        """Adds groups by climbing from the best `number` and half as many random ones.

        Returns how many are new.
        """
        profits = pricing.margins(self.scores).sum(axis=1)
        good = self.members[np.argsort(-profits, kind="stable")[:number]]
        # Start from large groups, too: climbing rarely reaches them from small ones.
        density = generator.uniform(0.0, 1.0, (number // 2, 1))
        chosen = generator.random((number // 2, len(pricing.units))) < density
        return self.add(pricing.climb(np.concatenate([good, chosen @ pricing.units])))

    def add_profitable(self, pricing: Pricing, least: float) -> int:
        """Adds columns of known groups with a profit above `least`; returns their number."""
        margins = pricing.margins(self.scores)
        profits = margins.sum(axis=1)
        rows = np.argsort(-profits, kind="stable")[:_MOST_NEW_COLUMNS]
        rows = rows[profits[rows] > least]
        serving = self.members[rows] if self.problem.partition else margins[rows] > 0
        return self._add_columns(serving, self.scores[rows])

    def _add_columns(self, served: Booleans, scores: Floats) -> int:
        values = np.where(served, scores, 0.0).sum(axis=1)
        # Two groups that serve the same tasks may both come in; the better one wins.
        new = _new(self._columns, zip(map(bytes, served), values.tolist(), strict=True))
        new &= served.any(axis=1)
        self.served = np.concatenate([self.served, served[new]])
        self.values = np.concatenate([self.values, values[new]])
        return int(new.sum())

    def duals(self, num_groups: float, most_seconds: float) -> Duals | None:
        """The dual solution where fractions of columns, `num_groups` in sum, serve each task once.

        None if the time ends first.
        """
        with quiet():
            result = scipy.optimize.linprog(
                -self.values,
                A_ub=np.ones((1, len(self.values))),
                b_ub=[num_groups],
                A_eq=scipy.sparse.csc_array(self.served.T.astype(np.float64)),
                b_eq=np.ones(self.served.shape[1]),
                method="highs",
                options={} if most_seconds == np.inf else {"time_limit": max(most_seconds, 0.0)},
            )
        if result.status != 0:
            return None
        return Duals(-result.eqlin.marginals, max(-float(result.ineqlin.marginals[0]), 0.0))


def _new(known: set[Any], keys: Iterable[Any]) -> Booleans:
    """Whether each key is new to `known`, which then has it."""
    new = []
    for key in keys:
        new.append(key not in known)
        known.add(key)
    return np.array(new, bool)
