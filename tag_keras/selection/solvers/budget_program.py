"""Integer and linear programs over networks under a budget."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tag_keras.selection.solvers.problem import Floats, Rows
from tag_keras.selection.solvers.quiet import quiet

# Values and costs have units in which a tie is a thousand times the error of the solver, 1e-6.
_TIE = 1e-3
# Mean losses within this fraction of the largest loss are equal.
RELATIVE_TIE = 1e-9
# Costs within this fraction of the budget are equal: 0.1 + 0.2 is within a budget of 0.3.
COST_TOLERANCE = 1e-9

# Linear constraints: coefficients of the variables, and their largest sum.
Held = Sequence[tuple[Floats, float]]


class Answer(NamedTuple):
    """Rows of the networks or None, a bound of the objective, and whether there is a proof."""

    rows: Rows | None
    bound: float
    proven: bool


class NetworkProgram:
    """Choices of networks that cover every task, as the 0/1 solutions of linear inequalities.

    The p-median problem: y[m] says whether network m is chosen, z[m, t] <= y[m] whether it serves
    task t; one network serves each task. In a partition, a network serves all of its tasks, and
    there is no z. The variables are all y, then all z.

    Args:
        losses: Array (M, T), inf for a task that the network does not have.
        costs: Array (M,).
        budget: Largest sum of costs; the unit of costs.
        tolerance: Mean losses that differ by no more are tied.
        partition: Whether no task may be in two of the networks.
        deadline: Time of `time.monotonic` at which programs end without a proof.
        number: Number of networks to choose; None allows any number.
    """

    def __init__(
        self,
        losses: Floats,
        costs: Floats,
        budget: float,
        tolerance: float,
        partition: bool,
        deadline: float = math.inf,
        number: int | None = None,
    ) -> None:
        self.losses, self.costs, self.budget = losses, costs, budget
        self.tolerance, self.partition = tolerance, partition
        self.deadline, self.number = deadline, number
        # The solver meets its equations within 1e-7, so its bound is as accurate.
        self.accuracy = 100 * tolerance
        self._unit = losses.shape[1] * tolerance / _TIE
        self._least = losses.min(axis=0)
        # No choice has a mean loss below this.
        self.least = float(self._least.mean())
        members = np.isfinite(losses)
        self.sizes = members.sum(axis=1)
        # Place of each network in the order of task positions, then of rows.
        lists = [(np.flatnonzero(row).tolist(), m) for m, row in enumerate(members)]
        self.order = np.argsort([m for _, m in sorted(lists)])
        above = np.where(members, losses - self._least, 0.0) / self._unit
        network, task = np.nonzero(members)
        self._number = len(losses) + (0 if partition else len(network))
        if partition:
            self.value = above.sum(axis=1)
            self._rows = [(_matrix(task, network, len(losses)), 1.0, 1.0)]
        else:
            self.value = np.concatenate([np.zeros(len(losses)), above[network, task]])
            pairs = np.arange(len(network))
            served = _matrix(task, len(losses) + pairs, self._number)
            serves = _matrix(pairs, len(losses) + pairs, self._number)
            chosen = _matrix(pairs, network, self._number)
            self._rows = [(served, 1.0, 1.0), (serves - chosen, -np.inf, 0.0)]
        if number is not None:
            count = self.over_networks(np.ones(len(losses)))
            self._rows.append((_sparse(count[None]), float(number), float(number)))
        self.cost = self.over_networks(costs * (_TIE / (budget * COST_TOLERANCE)))

    def restricted(self, rows: Rows, number: int | None = None) -> "NetworkProgram":
        """The program of these networks only, with `number` of them to choose."""
        limits = (self.budget, self.tolerance, self.partition, self.deadline)
        return NetworkProgram(self.losses[rows], self.costs[rows], *limits, number)

    # Let S be the sum of the losses of some choice, and gap its distance to the sum of the least
    # losses. A choice as good serves no task with a loss above its least one plus the gap.
    def clipped(self, loss: float) -> "NetworkProgram":
        """The program, where losses that serve in no choice of this mean loss are lowered.

        They still serve in none, by a distance well above every tolerance, so the best choices and
        their losses stay as they are. `loss` is one that a choice has. The same program comes back
        if its largest loss, the unit of the tolerance, would not be ten times less.
        """
        members = np.isfinite(self.losses)
        sizes = np.abs(self.losses[members])
        # Where all tasks have their least loss, the usual size of losses keeps others apart.
        usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
        usual = max(usual, float(np.abs(self._least).max()))
        gap = 2 * self.losses.shape[1] * max(loss - self.least, 0.0) + usual
        losses = np.where(members, np.minimum(self.losses, self._least + gap), np.inf)
        largest = float(np.abs(losses[members]).max())
        if largest >= sizes.max() / 10:
            return self
        limits = (self.budget, RELATIVE_TIE * largest, self.partition, self.deadline)
        return NetworkProgram(losses, self.costs, *limits, self.number)

    def over_networks(self, coefficients: npt.ArrayLike) -> Floats:
        """Coefficients of all variables: as given for the networks' own, then 0."""
        given = np.asarray(coefficients, np.float64)
        return np.concatenate([given, np.zeros(self._number - len(given))])

    def mean_loss(self, rows: Rows) -> float:
        """Mean over tasks of the least loss, computed without the solver and its errors."""
        return float(self.losses[rows].min(axis=0).mean())

    def total_cost(self, rows: Rows) -> float:
        return float(self.costs[rows].sum())

    def in_order(self, rows: Rows) -> list[int]:
        """The rows sorted by the positions of their tasks."""
        return sorted(rows.tolist(), key=self.order.__getitem__)

    def affordable(self, rows: Rows) -> bool:
        return self.total_cost(rows) <= self.budget * (1 + COST_TOLERANCE)

    def least_loss(self) -> Answer:
        """The networks of the least mean loss within the budget, and a bound of that loss."""
        answer = self.minimise(self.value)
        return answer._replace(bound=self.least + answer.bound * self.tolerance / _TIE)

    def cheapest_cover(self) -> Answer:
        """The cheapest networks that have every task, within the budget or not."""
        members = _sparse(np.isfinite(self.losses).T)
        covers = scipy.optimize.LinearConstraint(members, 1.0, 1.0 if self.partition else np.inf)
        return self._solve(self.costs * (1e5 / self.costs.max()), [covers])

    def within_cost(self, cost: float) -> tuple[Floats, float]:
        """The constraint that the cost is at most `cost`, up to the tolerance of costs."""
        return self.cost, cost * _TIE / (self.budget * COST_TOLERANCE) + _TIE

    def within_loss(self, loss: float) -> tuple[Floats, float]:
        """The constraint that the mean loss is at most `loss`."""
        return self.value, (loss - self.least) * _TIE / self.tolerance

    def minimise(
        self,
        objective: Floats,
        held: Held = (),
        excluded: Sequence[Rows] = (),
        bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 1.0),
    ) -> Answer:
        """Solves one program within the budget.

        Args:
            objective: Coefficients (N,) of the variables.
            held: Further constraints: coefficients (N,), each with its largest sum.
            excluded: Choices that are left out, with every choice that contains one of them.
            bounds: Lower and upper bounds of the networks' variables, arrays (M,) or numbers.
        """
        held = [(self.cost, _TIE / COST_TOLERANCE + _TIE), *held]
        constraints = [scipy.optimize.LinearConstraint(*row) for row in self._rows]
        constraints += [
            scipy.optimize.LinearConstraint(row[None], -np.inf, most) for row, most in held
        ]
        constraints += [self._excluding(rows) for rows in excluded]
        while True:
            answer = self._solve(objective, constraints, bounds)
            if answer.rows is None or self.affordable(answer.rows):
                return answer
            # An error of the solver made it too dear, and so is every choice that contains it.
            constraints.append(self._excluding(answer.rows))

    def _solve(
        self,
        objective: Floats,
        constraints: list[scipy.optimize.LinearConstraint],
        bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 1.0),
    ) -> Answer:
        number = len(self.losses)
        lower, upper = np.zeros(len(objective)), np.ones(len(objective))
        lower[:number], upper[:number] = bounds
        for presolve in (True, False):
            with quiet():
                result = scipy.optimize.milp(
                    objective,
                    integrality=np.arange(len(objective)) < number,
                    bounds=scipy.optimize.Bounds(lower, upper),
                    constraints=constraints,
                    options={"mip_rel_gap": 0.0, "presolve": presolve} | self._time_left(),
                )
            # Presolve sometimes calls programs with many ties infeasible.
            if result.status != 2:
                break
        bound = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
        if result.x is None:
            # Status 2 is a proof that there is no solution, 1 a limit.
            return Answer(None, bound, result.status == 2)
        rows = np.flatnonzero(result.x[:number] > 0.5)
        having = np.isfinite(self.losses[rows]).sum(axis=0)
        if self.partition and (having > 1).any():
            # HiGHS of scipy 1.11 returns overlapping networks where there is no solution.
            return self._solve(objective, [*constraints, self._excluding(rows)], bounds)
        if not (having > 0).all():
            return Answer(None, bound, False)
        return Answer(rows, bound, result.status == 0)

    def prices(self) -> tuple[Floats, float] | None:
        """Dual values of the linear program: prices of the tasks (T,), and of a unit of cost."""
        equal = [row for row in self._rows if row[1] == row[2]]
        # A range of about 1 for the losses and for the costs suits a linear program best.
        scale = max(float(self.value.max()), 1.0)
        matrix = scipy.sparse.vstack([row for row, _, _ in equal])
        # A penalty pays for each equation that the networks cannot meet, so there is a solution.
        each = np.arange(matrix.shape[0])
        penalty = np.full(len(each), 1e3 * self.losses.shape[1])
        within = scipy.sparse.csr_array(self.cost[None] * (COST_TOLERANCE / _TIE))
        upper = scipy.sparse.vstack([within, *(row for row, low, _ in self._rows if low < 0)])
        limits = np.zeros(upper.shape[0])
        limits[0] = 1 + COST_TOLERANCE
        with quiet():
            result = scipy.optimize.linprog(
                np.concatenate([self.value / scale, penalty]),
                A_ub=scipy.sparse.hstack([upper, scipy.sparse.csr_array((len(limits), len(each)))]),
                b_ub=limits,
                A_eq=scipy.sparse.hstack([matrix, _matrix(each, each, len(each))]),
                b_eq=np.concatenate([np.full(row.shape[0], low) for row, low, _ in equal]),
                bounds=[(0, 1)] * self._number + [(0, None)] * len(each),
                method="highs",
                options=self._time_left(),
            )
        if result.status != 0:
            return None
        scale *= self._unit
        tasks = result.eqlin.marginals[: len(self._least)] * scale + self._least
        return tasks, max(-float(result.ineqlin.marginals[0]), 0.0) * scale / self.budget

    def _excluding(self, rows: Rows) -> scipy.optimize.LinearConstraint:
        inside = np.zeros(self._number)
        inside[rows] = 1.0
        return scipy.optimize.LinearConstraint(inside[None], -np.inf, len(rows) - 1.0)

    def _time_left(self) -> dict[str, float]:
        if self.deadline == math.inf:
            return {}
        return {"time_limit": max(self.deadline - time.monotonic(), 0.0)}


def _sparse(array: npt.ArrayLike) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.asarray(array, np.float64))


def _matrix(rows: Rows, columns: Rows, width: int) -> scipy.sparse.csr_array:
    """A matrix with ones at these entries."""
    shape = (int(rows.max()) + 1, width)
    return scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape)
