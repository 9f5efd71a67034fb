"""The exact choice of networks under a budget, by integer programs."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

_Floats = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.intp]

# The solver takes what is within 1e-6 of what it looks for. So values and costs are put in units of
# which 0.001, a thousand such errors, is what counts as a tie.
_TIE = 1e-3
# Costs within this fraction of the budget are equal: 0.1 + 0.2 is within a budget of 0.3.
COST_TOLERANCE = 1e-9


Held = Sequence[tuple[_Floats, float]]


class Answer(NamedTuple):
    """Rows of networks, none if there are none; a bound of the objective; whether it is proven."""

    rows: _Rows | None
    bound: float
    proven: bool


class NetworkProgram:
    """Networks that have every task, as the 0/1 solutions of linear inequalities.

    The p-median problem: y[m] says whether network m is chosen, z[m, t] <= y[m] whether it serves
    task t, which one network does. Without overlap, a network serves all of its tasks, and there
    is no z. The variables are all y, then all z.

    Args:
        losses: Array (M, T), inf for a task that the network does not have.
        costs: Array (M,).
        budget: Largest sum of costs; the unit of costs.
        tolerance: Mean losses that differ by no more are tied.
        partition: Whether no task may be in two of the networks.
        deadline: Time, as `time.monotonic` has it, at which programs end without a proof.
        number: How many networks are chosen; None leaves that open.
    """

    def __init__(
        self,
        losses: _Floats,
        costs: _Floats,
        budget: float,
        tolerance: float,
        partition: bool,
        deadline: float = math.inf,
        number: int | None = None,
    ) -> None:
        self.losses, self.costs, self.budget = losses, costs, budget
        self.tolerance, self.partition = tolerance, partition
        self.deadline, self.number = deadline, number
        # The solver fulfils its equations within 1e-7, and its bound is as good as that.
        self.accuracy = 100 * tolerance
        self._unit = losses.shape[1] * tolerance / _TIE
        self._least = losses.min(axis=0)
        # No choice has a mean loss below this.
        self.least = float(self._least.mean())
        self.sizes = np.isfinite(losses).sum(axis=1)
        # Place of each network in the order of task positions, then of rows.
        lists = [(np.flatnonzero(row).tolist(), m) for m, row in enumerate(np.isfinite(losses))]
        self.order = np.argsort([m for _, m in sorted(lists)])
        members = np.isfinite(losses)
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

    def restricted(self, rows: _Rows, number: int | None = None) -> "NetworkProgram":
        """The same without all other networks, and with this many chosen."""
        losses, costs = self.losses[rows], self.costs[rows]
        return NetworkProgram(
            losses, costs, self.budget, self.tolerance, self.partition, self.deadline, number
        )

    def over_networks(self, coefficients: npt.ArrayLike) -> _Floats:
        """Coefficients of all variables out of those of the networks."""
        given = np.asarray(coefficients, np.float64)
        return np.concatenate([given, np.zeros(self._number - len(given))])

    def mean_loss(self, rows: _Rows) -> float:
        """Mean over tasks of the least loss, by itself: no error of the solver is in it."""
        return float(self.losses[rows].min(axis=0).mean())

    def total_cost(self, rows: _Rows) -> float:
        return float(self.costs[rows].sum())

    def in_order(self, rows: _Rows) -> list[int]:
        """These rows by the positions of their tasks."""
        return sorted(rows.tolist(), key=self.order.__getitem__)

    def affordable(self, rows: _Rows) -> bool:
        return self.total_cost(rows) <= self.budget * (1 + COST_TOLERANCE)

    def least_loss(self) -> Answer:
        """The networks of the least mean loss within the budget, and a bound of that loss."""
        answer = self.minimise(self.value)
        above = answer.bound * self.tolerance / _TIE
        return answer._replace(bound=self.least + above)

    def cheapest_cover(self) -> Answer:
        """The cheapest networks that have every task, within the budget or not."""
        members = np.isfinite(self.losses)
        most = 1.0 if self.partition else np.inf
        return self._solve(
            self.costs * (1e5 / self.costs.max()),
            [scipy.optimize.LinearConstraint(_sparse(members.T), 1.0, most)],
        )

    def within_cost(self, cost: float) -> tuple[_Floats, float]:
        """What holds the cost: coefficients of the variables, and their largest sum."""
        return self.cost, cost * _TIE / (self.budget * COST_TOLERANCE) + _TIE

    def within_loss(self, loss: float) -> tuple[_Floats, float]:
        """What holds the mean loss: coefficients of the variables, and their largest sum."""
        return self.value, (loss - self.least) * _TIE / self.tolerance

    def minimise(
        self,
        objective: _Floats,
        held: Held = (),
        excluded: Sequence[_Rows] = (),
        bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 1.0),
    ) -> Answer:
        """Solves one program within the budget.

        Args:
            objective: Coefficients (N,) of the variables.
            held: Further coefficients (N,), each with the largest sum that it allows.
            excluded: Choices that are left out, and with them whatever contains them.
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
            # Dearer than the budget by an error of the solver, and so is whatever contains it.
            constraints.append(self._excluding(answer.rows))

    def _solve(
        self,
        objective: _Floats,
        constraints: list[scipy.optimize.LinearConstraint],
        bounds: tuple[npt.ArrayLike, npt.ArrayLike] = (0.0, 1.0),
    ) -> Answer:
        number = len(self.losses)
        lower, upper = np.zeros(len(objective)), np.ones(len(objective))
        lower[:number], upper[:number] = bounds
        for presolve in (True, False):
            result = scipy.optimize.milp(
                objective,
                integrality=np.arange(len(objective)) < number,
                bounds=scipy.optimize.Bounds(lower, upper),
                constraints=constraints,
                options={"mip_rel_gap": 0.0, "presolve": presolve} | self._time_left(),
            )
            # Presolve sometimes takes programs of many ties for infeasible.
            if result.status != 2:
                break
        bound = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
        if result.x is None:
            # 2 is a proof that there is no solution, 1 a limit.
            return Answer(None, bound, result.status == 2)
        rows = np.flatnonzero(result.x[:number] > 0.5)
        having = np.isfinite(self.losses[rows]).sum(axis=0)
        if self.partition and (having > 1).any():
            # HiGHS of scipy 1.11 does this where there is no solution. What contains them overlaps.
            return self._solve(objective, [*constraints, self._excluding(rows)], bounds)
        if not (having > 0).all():
            return Answer(None, bound, False)
        return Answer(rows, bound, result.status == 0)

    def prices(self) -> tuple[_Floats, float] | None:
        """Dual values of the linear program: of the tasks (T,), and of a unit of cost."""
        equal = [row for row in self._rows if row[1] == row[2]]
        # A range of about 1 for the losses and for the costs suits a linear program best.
        scale = max(float(self.value.max()), 1.0)
        matrix = scipy.sparse.vstack([row for row, _, _ in equal])
        # What the networks cannot fulfil is bought at a price, so that there is a solution.
        each = np.arange(matrix.shape[0])
        penalty = np.full(len(each), 1e3 * self.losses.shape[1])
        within = scipy.sparse.csr_array(self.cost[None] * (COST_TOLERANCE / _TIE))
        upper = scipy.sparse.vstack([within, *(row for row, low, _ in self._rows if low < 0)])
        limits = np.zeros(upper.shape[0])
        limits[0] = 1 + COST_TOLERANCE
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

    def _excluding(self, rows: _Rows) -> scipy.optimize.LinearConstraint:
        inside = np.zeros(self._number)
        inside[rows] = 1.0
        return scipy.optimize.LinearConstraint(inside[None], -np.inf, len(rows) - 1.0)

    def _time_left(self) -> dict[str, float]:
        if self.deadline == math.inf:
            return {}
        return {"time_limit": max(self.deadline - time.monotonic(), 0.0)}


def _sparse(array: npt.ArrayLike) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.asarray(array, np.float64))


def _matrix(rows: _Rows, columns: _Rows, width: int) -> scipy.sparse.csr_array:
    """A matrix with ones at these entries."""
    shape = (int(rows.max()) + 1, width)
    return scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape)
