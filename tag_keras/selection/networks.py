"""Selection of networks: the best ones of a table under a budget."""

import dataclasses
import math
import time
from typing import Literal

import numpy as np

from tag_keras.selection.grouping import Grouping
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.solvers.budget_program import RELATIVE_TIE, NetworkProgram
from tag_keras.selection.solvers.choice import Choice, choose_networks
from tag_keras.selection.solvers.problem import Booleans, Floats, Rows
from tag_keras.selection.table_inputs import LossesByHand
from tag_keras.utils.checks import (
    check,
    check_bool,
    check_choice,
    check_number,
    check_seconds,
    is_number,
)

Sense = Literal["max", "min"]


@dataclasses.dataclass(frozen=True)
class NetworkSelection(Grouping):
    """Networks chosen from a table: a `Grouping` with their rows and their cost.

    With `sense="min"`, `score` is a mean loss, and no choice has a loss below `upper_bound`.

    Args:
        tasks: Task names, in the user's order.
        groups: Tuples of task names, the tasks of each chosen network.
        serves: By task, the index of the group that serves it.
        score: Mean over tasks of the best score that a chosen network gives the task.
        upper_bound: No choice within the budget scores better than this.
        optimal: Whether the choice is proven to be the best.
        networks: By group, the row of its network in the table.
        cost: Sum of the networks' costs.
    """

    networks: tuple[int, ...]
    cost: float

    def __post_init__(self) -> None:
        super().__post_init__()
        networks, cost = self.networks, self.cost
        check(
            isinstance(networks, list | tuple)
            and all(type(row) is int and row >= 0 for row in networks)
            and len(set(networks)) == len(networks) == len(self.groups),
            "`networks` should give each group a row of its own",
            networks=networks,
            groups=self.groups,
        )
        valid = isinstance(cost, float | int) and is_number(cost) and cost > 0
        check(valid, "`cost` should be a positive number", cost=cost)
        object.__setattr__(self, "networks", tuple(networks))

    def scores_on(
        self, table: NetworkTable, other: NetworkTable, best: Sense | None = None
    ) -> dict[str, float]:
        """Scores of the chosen networks in another table, such as their losses on test data.

        Args:
            table: Table out of which the networks were chosen.
            other: Table with at least the same networks, by their tasks and cost, in any order.
            best: `None` takes each task from the network that serves it. `"min"` and `"max"` take
                the best of the chosen networks in `other`, as the published totals of Standley et
                al. 2020 do; if `other` is test data, these then decide between the networks.

        Returns:
            Score by task. The paper's total is their sum.

        Raises:
            ValueError: If the tables do not have the networks, or `best` is something else.
        """
        check(best in (None, "min", "max"), '`best` should be None, "min" or "max"', best=best)
        for name, value in {"table": table, "other": other}.items():
            valid = isinstance(value, NetworkTable)
            check(valid, f"`{name}` should be a NetworkTable", type=type(value))
        rows = []
        for group, row in zip(self.groups, self.networks, strict=True):
            valid = row < len(table.networks) and set(table.networks[row]) == set(group)
            check(valid, "`table` should be the one of the selection", network=row, group=group)
            rows.append(other.find(group, table.costs[row]))
        given = {task: other.scores[rows, other.tasks.index(task)] for task in self.serves}
        if best is None:
            return {task: float(given[task][index]) for task, index in self.serves.items()}
        choose = np.nanmin if best == "min" else np.nanmax
        return {task: float(choose(scores)) for task, scores in given.items()}


def select_networks(
    table: NetworkTable | LossesByHand,
    budget: float,
    sense: Sense,
    *,
    partition: bool = False,
    time_limit: float | None = 60.0,
) -> NetworkSelection:
    """Network selection under a budget (Standley et al. 2020, arXiv 1905.07553), exact.

    A task's score is the best among the chosen networks that have the task. Among all choices
    that cover every task and cost at most `budget` in sum, this finds one with the best mean over
    tasks, and proves it. (The paper reports sums: T times this mean.) A linear program leaves few
    choices, which are listed; integer programs choose where there are more. Choices
    within 1e-9 of the largest absolute score are tied, where scores too bad to serve a task in a
    good choice do not count: the least cost wins (costs within 1e-9 of the budget are equal), then
    the fewest networks, then the fewest memberships, then the first in the order of tasks, and for
    equal tasks in the order of the table. Of choices that differ by about the tolerance itself, the
    error of the solver, any may come back.

    The paper's 36 networks take some 10 milliseconds, all groups of 15 tasks 0.2 to 5 seconds.

    Args:
        table: Measured networks, or anything that `NetworkTable.from_losses` takes.
        budget: Largest sum of costs.
        sense: `"min"` for losses, `"max"` for accuracies or affinities.
        partition: Whether each task has to be in exactly one of the networks.
        time_limit: Seconds after which the best choice so far comes back, perhaps not the first of
            its ties, and with `optimal=False` if it is not proven. None waits for a proof.

    Returns:
        The best `NetworkSelection`, groups sorted by the positions of their tasks. The proof holds
        to the accuracy of the solver, 1e-7 of the largest absolute score.

    Raises:
        ValueError: If an argument is out of range, a task has no network, or the budget is too
            small; the message names the task, or the least sufficient budget.

    Example:

    ```python
    table = tag_keras.NetworkTable.from_losses(
        [{"a": 0.3}, {"b": 0.2}, {"a": 0.25, "b": 0.4}, ({"b": 0.22}, 0.5)]
    )
    selection = tag_keras.select_networks(table, budget=1.5, sense="min")
    selection.groups, selection.cost  # ((("a", "b"), ("b",)), 1.5)
    ```
    """
    if not isinstance(table, NetworkTable):
        table = NetworkTable.from_losses(table)
    check_budget(table, budget, sense)
    check_bool("partition", partition)
    check_seconds("time_limit", time_limit)
    # In a unit that is a power of 2, which rounds nothing: differences of tiny losses would be.
    unit = int(np.frexp(np.nanmax(np.abs(table.scores)))[1])
    losses = np.ldexp(losses_of(table, sense), -unit)
    largest = float(np.abs(losses[np.isfinite(losses)]).max())
    # More networks than tasks do not help.
    dearest = float(np.sort(table.costs)[-len(table.tasks) :].sum())
    program = NetworkProgram(
        losses,
        table.costs,
        # Less than half the cheapest network does not even buy that.
        budget=max(min(budget, dearest), float(table.costs.min()) / 2),
        tolerance=RELATIVE_TIE * (largest or 1.0),
        partition=partition,
        deadline=math.inf if time_limit is None else time.monotonic() + time_limit,
    )
    rows, bound, optimal = _choose(program, _cover(program, table, budget))
    serves = losses[rows].argmin(axis=0)
    sign = 1.0 if sense == "min" else -1.0
    return NetworkSelection(
        tasks=table.tasks,
        groups=tuple(table.networks[row] for row in rows),
        serves=dict(zip(table.tasks, serves.tolist(), strict=True)),
        # Adding 0 turns -0.0 into 0.0.
        score=sign * float(np.ldexp(losses[rows].min(axis=0).mean(), unit)) + 0.0,
        upper_bound=sign * float(np.ldexp(bound, unit)) + 0.0,
        optimal=optimal,
        networks=tuple(rows),
        cost=float(table.costs[rows].sum()),
    )


def check_budget(table: NetworkTable, budget: float, sense: Sense) -> None:
    """Checks `budget` and `sense`, and that each task has a network."""
    check_choice("sense", sense, ("max", "min"))
    check_number("budget", budget, "a positive number", lambda number: number > 0)
    lacking = [task for task in table.tasks if not any(task in net for net in table.networks)]
    check(
        not lacking,
        f"`table` should have a network for each task, and has none for {lacking}",
        networks=len(table.networks),
    )


def losses_of(table: NetworkTable, sense: Sense) -> Floats:
    """The scores (M, T) as losses: less is better, inf for a task that a network lacks."""
    scores = table.scores if sense == "min" else -table.scores
    return np.where(np.isnan(scores), np.inf, scores)


def _choose(program: NetworkProgram, rows: Rows) -> Choice:
    """The best choice, in the unit of the losses that can serve in it; `rows` are any choice."""
    choice = None
    # A better choice leaves out more of the large losses, which hide a better one still.
    while True:
        closer = program.clipped(program.mean_loss(rows))
        if choice is not None and closer is program:
            return choice
        program = closer
        choice = choose_networks(program, rows)
        rows = np.array(choice.rows)


def _cover(program: NetworkProgram, table: NetworkTable, budget: float) -> Rows:
    """Networks within the budget that cover all tasks."""
    rows = _greedy_cover(np.isfinite(program.losses), program.costs, program.partition)
    if rows is not None and program.affordable(rows):
        return rows
    answer = program.cheapest_cover()
    how = "exactly one of the networks" if program.partition else "one of the networks"
    if answer.rows is not None and program.affordable(answer.rows):
        return answer.rows
    if not answer.proven:
        raise ValueError(
            "`time_limit` should be longer: no networks with all tasks were found within the "
            f"budget. Received: budget={budget!r}."
        )
    if answer.rows is None:
        raise ValueError(
            f"`table` should have networks that leave each task in {how}. "
            f"Received: networks={table.networks}."
        )
    cheapest = program.in_order(answer.rows)
    raise ValueError(
        f"`budget` should be at least {program.total_cost(answer.rows):.10g}, for "
        f"{[table.networks[row] for row in cheapest]}, so that each task is in {how}. "
        f"Received: budget={budget!r}."
    )


def _greedy_cover(members: Booleans, costs: Floats, partition: bool) -> Rows | None:
    """Covers all tasks by the network with the least cost for each new task, one after another.

    None if no network is left for the other tasks, as in a partition.
    """
    left = np.ones(members.shape[1], dtype=bool)
    rows: list[int] = []
    while left.any():
        new = (members & left).sum(axis=1)
        if partition:
            new[(members & ~left).any(axis=1)] = 0
        if not new.any():
            return None
        rows.append(int((new / costs).argmax()))
        left &= ~members[rows[-1]]
    return np.array(rows)
