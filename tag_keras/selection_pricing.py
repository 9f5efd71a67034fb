"""Profits of groups under prices of the tasks: what column generation asks for."""

import numpy as np

from tag_keras.selection_problem import Booleans, Floats, GroupProblem


# With u[t] the price of task t and s[t] its score in a group G, the profit of G is the sum over the
# tasks of G of max(s[t] - u[t], 0). (In a partition a group serves all of its tasks, and the
# maximum is the difference itself.) No family of k groups has a sum of best scores above
#   sum of u + k * (the largest profit of a group),
# whatever u is: every group gives its tasks at most its profit above their prices. The prices that
# make this least are the dual solution of a linear program.
class Pricing:
    """Profits of groups for given prices.

    Since a score is a mean over the other members, the profit of a group of g >= 2 tasks is a sum
    of `gains` divided by g - 1, and nothing else depends on the size.

    Args:
        problem: T tasks.
        prices: Array (T,).
    """

    def __init__(self, problem: GroupProblem, prices: Floats) -> None:
        self.problem, self.prices = problem, prices
        # What a member (column) adds to g - 1 times the profit of a task (row).
        self.gains: Floats = problem.affinity.T - prices[:, None]
        np.fill_diagonal(self.gains, 0.0)
        self.units = problem.unit_members()

    def margins(self, scores: Floats) -> Floats:
        """What each task adds to the profit of the groups with `scores` (G, T): array (G, T)."""
        least = -np.inf if self.problem.partition else 0.0
        return np.where(scores > -np.inf, np.maximum(scores - self.prices, least), 0.0)

    def profits(self, members: Booleans) -> Floats:
        """Profits (G,) of groups (G, T); -inf for a group that is not admissible."""
        totals = self.margins(self.problem.scores(members)).sum(axis=1)
        return np.where(self.problem.admissible(members), totals, -np.inf)

    def climb(self, members: Booleans, most_steps: int = 50) -> Booleans:
        """The groups (G, T), each changed by a unit at a time for as long as its profit grows."""
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
