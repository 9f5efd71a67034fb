"""Tables of candidate networks: the score of each network on its tasks, and its cost."""

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.selection import table_inputs
from tag_keras.selection.rules import LARGEST, Singletons, build_problem
from tag_keras.selection.solvers.problem import Floats, all_groups
from tag_keras.selection.table_inputs import Costs, Group, LossesByHand
from tag_keras.utils.checks import check
from tag_keras.utils.tasks import check_task_names

# Products and quotients of costs must be finite, and not 0.
_MOST_COST = 1e100


class NetworkTable:
    """Candidate networks with a score for each of their tasks (Standley et al. 2020, 1905.07553).

    `select_networks` chooses by any scores: losses after a whole training (the paper's optimal
    selection) or after a short one (its early stopping approximation, ESA), estimates out of pairs
    (`higher_order`), affinities (`from_affinity`), or accuracies.

    Args:
        tasks: T task names, in the user's order.
        networks: Groups of task names, one for each of M networks. Two networks may have the same
            tasks if they differ in cost.
        scores: Array (M, T): finite loss or score of each task in each network; NaN for a task that
            the network does not have.
        costs: Array (M,): cost of each network, in any unit. Defaults to 1 each.

    Raises:
        ValueError: If an argument is wrong; the message names the network and the task.

    Example:

    ```python
    table = tag_keras.NetworkTable(
        ["a", "b"], [["a"], ["b"], ["a", "b"]], [[0.3, math.nan], [math.nan, 0.2], [0.25, 0.4]]
    )
    tag_keras.select_networks(table, budget=2, sense="min").groups  # (("a", "b"), ("b",))
    ```
    """

    def __init__(
        self,
        tasks: Sequence[str],
        networks: Sequence[Sequence[str]],
        scores: npt.ArrayLike,
        costs: npt.ArrayLike | None = None,
    ) -> None:
        self.tasks = check_task_names(tasks)
        self.networks = _checked_networks(self.tasks, networks)
        self.scores = _checked_scores(self.tasks, self.networks, scores)
        self.costs = _checked_costs(self.networks, costs)
        rows: dict[tuple[Group, float], int] = {}
        for row, (network, cost) in enumerate(zip(self.networks, self.costs, strict=True)):
            # Costs that were added up may differ in the last digit.
            first = rows.setdefault((network, float(f"{cost:.9g}")), row)
            if first != row:
                raise ValueError(
                    f"`networks` should differ in tasks or cost. Received: networks[{first}] and "
                    f"networks[{row}], both {network} at a cost of {cost:g}."
                )

    @classmethod
    def from_losses(
        cls, losses: LossesByHand, tasks: Sequence[str] | None = None
    ) -> "NetworkTable":
        """A table from losses by hand.

        Args:
            losses: Dict from networks, as tuples of names, to losses by task; or a list with an
                entry for each network, its losses by task or these and its cost, such as
                `({"a": 0.2}, 0.5)`. Costs default to 1.
            tasks: Task names in the order wanted. Defaults to the order of the largest network.

        Returns:
            The table, networks in the order given.

        Raises:
            ValueError: If `losses` is wrong; the message names the network and the task.

        Example:

        ```python
        full = {"a": 0.25, "b": 0.4}
        half = ({"b": 0.2}, 0.5)
        table = tag_keras.NetworkTable.from_losses([full, half])
        tag_keras.NetworkTable.from_losses({("a", "b"): full, ("b",): half[0]})  # costs 1 each
        ```
        """
        networks = table_inputs.networks_by_hand(losses)
        if tasks is None:
            tasks = table_inputs.task_order(list(by_task) for by_task, _ in networks)
        return cls(
            tasks,
            [list(by_task) for by_task, _ in networks],
            [[by_task.get(task, math.nan) for task in tasks] for by_task, _ in networks],
            [cost for _, cost in networks],
        )

    @classmethod
    def from_results(
        cls,
        rows: Iterable[results.Row],
        split: str = "validation",
        tasks: Sequence[str] | None = None,
        costs: Mapping[Group, float] | None = None,
    ) -> "NetworkTable":
        """A table of the networks in results.json, losses averaged over runs and seeds.

        Args:
            rows: Results. Networks with the same set of tasks count as runs of one network.
            split: Split to read. Choose on `"validation"`, so that `"test"` can judge the choice.
            tasks: Task names in the order wanted. Defaults to the order of the largest network.
            costs: Cost by tuple of names, in any order. Defaults to 1 each.

        Returns:
            The table, networks in the order in which they first appear.

        Raises:
            ValueError: If the split has no results, or a network lacks a task's result or a cost.
        """
        names, networks = table_inputs.networks_of_results(list(rows), split, tasks, costs)
        return cls.from_losses(networks, names)

    @classmethod
    def from_affinity(
        cls, affinity: Affinity, costs: Costs = None, singletons: Singletons = "forbid"
    ) -> "NetworkTable":
        """All groups of up to 15 tasks, to select under a budget of parameters, time or latency.

        A task's score in a group is the mean affinity of the group's other tasks onto it, as in
        `select_groups`; `select_networks(table, budget, sense="max")` chooses by it.

        Args:
            affinity: Affinities. The diagonal is not used.
            costs: Cost of a group: a function of its tuple of names, in the order of the tasks, or
                a mapping from all such tuples, names in any order. Defaults to 1 each.
            singletons: `"forbid"` leaves out groups of one task, `"baseline"` scores them 0, and a
                dict gives the scores of the tasks that may be alone.

        Returns:
            The table, groups sorted by the positions of their tasks.

        Raises:
            ValueError: If tasks are too many, an affinity is not finite, or a cost is missing.

        Example:

        ```python
        affinity = tag_keras.Affinity(["a", "b", "c"], [[0, 3, -1], [2, 0, -2], [1, -3, 0]])
        table = tag_keras.NetworkTable.from_affinity(affinity, lambda group: 10 + 2 * len(group))
        tag_keras.select_networks(table, budget=30, sense="max")
        ```
        """
        problem = build_problem(affinity, singletons)
        num_tasks = len(affinity.tasks)
        check(num_tasks <= 15, "`affinity` should have at most 15 tasks", num_tasks=num_tasks)
        members = all_groups(num_tasks)
        members = members[problem.admissible(members)]
        names = np.array(affinity.tasks, dtype=object)
        networks = [tuple(names[group]) for group in members]
        scores = np.where(members, problem.scores(members), np.nan)
        return cls(affinity.tasks, networks, scores, table_inputs.costs_of(networks, costs))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        tasks: Sequence[str] | None = None,
        split: str = "validation",
    ) -> "NetworkTable":
        """Reads results.json, or a text table in the layout of Standley et al.

        A text table has a column for each task, separated by tabs, and a line for each network,
        blank for a task that the network does not have. In the first line, each loss belongs to a
        network of half the size for that task alone, at a cost of 0.5; the other networks cost 1.
        The names of the tasks may stand in a line above. If one of them is `cost`, that column
        holds the costs, and every line is one network.

        Args:
            path: File; the suffix `.json` marks results.json.
            tasks: Names of the columns, or the order wanted for results.json. Without names, five
                columns are the paper's tasks s, d, n, k and e.
            split: Split to read out of results.json.

        Returns:
            The table, networks in the order of the file.

        Raises:
            ValueError: If the file holds something else; the message names file and line.
        """
        where = os.fspath(path)
        is_results = where.endswith(".json")
        if is_results:
            rows = results.load_results(path)
        else:
            names, networks = table_inputs.networks_of_text(path, tasks)
        try:
            if is_results:
                return cls.from_results(rows, split, tasks)
            return cls.from_losses(networks, names)
        except ValueError as error:
            raise ValueError(f"{where} does not hold a table of networks: {error}") from None

    def higher_order(self) -> "NetworkTable":
        """Higher order approximation (HOA) of Standley et al. 2020: networks from pairs.

        In the returned table, the loss of a task in a network of three or more is the mean of its
        losses in the pairs with each of the others. Networks of one and two tasks keep theirs. If
        the table has no larger network, as where only pairs were trained, all groups whose pairs it
        has are added, at the cost that these pairs have in common.

        Raises:
            ValueError: If the table lacks a pair of a larger network; or if it has no larger one,
                and more than 15 tasks, or no three tasks whose pairs have a cost in common.
        """
        of_pair: dict[frozenset[str], list[int]] = {}
        for row, network in enumerate(self.networks):
            of_pair.setdefault(frozenset(network), []).append(row)
        table = self
        if len(self.tasks) > 2 and all(len(network) < 3 for network in self.networks):
            table = self._with_larger(of_pair)
        scores = np.array(table.scores)
        for row, network in enumerate(table.networks):
            for task in network if len(network) > 2 else ():
                pairs = [
                    table._pair(row, task, other, of_pair) for other in network if other != task
                ]
                column = table.tasks.index(task)
                scores[row, column] = table.scores[pairs, column].mean()
        return NetworkTable(table.tasks, table.networks, scores, table.costs)

    def _with_larger(self, of_pair: Mapping[frozenset[str], Sequence[int]]) -> "NetworkTable":
        """The table, and after it all groups whose pairs it has at one cost, with scores of 0."""
        number = len(self.tasks)
        if number > 15:
            raise ValueError(
                "The table should have the networks to estimate: of more than 15 tasks, not all "
                "groups are made. Add those that you want, with losses of 0. Received: "
                f"{number} tasks, and networks of one and two only."
            )
        costs = {
            pair: {float(f"{self.costs[row]:.9g}") for row in rows}
            for pair, rows in of_pair.items()
        }
        networks, prices = list(self.networks), list(self.costs)
        names = np.array(self.tasks, dtype=object)
        for members in all_groups(number):
            group = tuple(names[members])
            pairs = [costs.get(frozenset(pair), set()) for pair in itertools.combinations(group, 2)]
            for cost in sorted(set.intersection(*pairs)) if len(group) > 2 else ():
                networks.append(group)
                prices.append(cost)
        if len(networks) == len(self.networks):
            raise ValueError(
                "The table should have the pairs of at least three tasks, at one cost, to estimate "
                f"larger networks from. Received: the networks {self.networks} at the costs "
                f"{self.costs.tolist()}."
            )
        inside = [[task in network for task in self.tasks] for network in networks]
        scores = np.where(inside, 0.0, np.nan)
        scores[: len(self.networks)] = self.scores
        return NetworkTable(self.tasks, networks, scores, prices)

    def find(self, network: Sequence[str], cost: float) -> int:
        """The row of a network in the table.

        Args:
            network: Tasks of the network, in any order.
            cost: Its cost.

        Raises:
            ValueError: If there is no such network.
        """
        for row, names in enumerate(self.networks):
            if set(names) == set(network) and math.isclose(self.costs[row], cost):
                return row
        raise ValueError(f"The table should have a network {tuple(network)} at a cost of {cost:g}.")

    def _pair(
        self, row: int, task: str, other: str, of_pair: Mapping[frozenset[str], Sequence[int]]
    ) -> int:
        """The row of a pair; of several, the one at the cost of the network in `row`."""
        rows = of_pair.get(frozenset((task, other)), [])
        alike = [index for index in rows if math.isclose(self.costs[index], self.costs[row])]
        if len(alike or rows) == 1:
            return (alike or rows)[0]
        pair = tuple(sorted((task, other), key=self.tasks.index))
        found = f"{len(rows)} of other costs" if rows else "none"
        raise ValueError(
            f"The table should have a network of the pair {pair}, which the estimate for "
            f"{self.networks[row]} needs. Received: {found}."
        )

    def __repr__(self) -> str:
        return f"NetworkTable(tasks={self.tasks}, {len(self.networks)} networks)"


def _checked_networks(tasks: Group, networks: Sequence[Sequence[str]]) -> tuple[Group, ...]:
    if not isinstance(networks, list | tuple) or not networks:
        raise ValueError(
            "`networks` should be a list of at least one network, each a tuple of task names. "
            f"Received: networks={networks!r}."
        )
    for row, network in enumerate(networks):
        valid = isinstance(network, list | tuple) and len(network) > 0
        if not valid or not all(task in tasks and network.count(task) == 1 for task in network):
            raise ValueError(
                f"`networks[{row}]` should be a tuple of different names out of {tasks}. "
                f"Received: {network!r}."
            )
    return tuple(tuple(task for task in tasks if task in network) for network in networks)


def _checked_scores(tasks: Group, networks: tuple[Group, ...], scores: npt.ArrayLike) -> Floats:
    array = _checked_array("scores", scores, (len(networks), len(tasks)))
    for row, network in enumerate(networks):
        for task, score in zip(tasks, array[row], strict=True):
            inside = task in network
            if not (abs(score) <= LARGEST if inside else math.isnan(score)):
                wanted = f"a finite score for {task!r}, at most {LARGEST:g} in size,"
                raise ValueError(
                    f"`scores[{row}]` should have {wanted if inside else f'NaN for {task!r},'} "
                    f"since the network is {network}. Received: {score:g}."
                )
    return array


def _checked_costs(networks: tuple[Group, ...], costs: npt.ArrayLike | None) -> Floats:
    number = len(networks)
    array = _checked_array("costs", np.ones(number) if costs is None else costs, (number,))
    for row, cost in enumerate(array):
        if not 1 / _MOST_COST <= cost <= _MOST_COST:
            raise ValueError(
                f"`costs[{row}]` should be positive and finite, from {1 / _MOST_COST:g} to "
                f"{_MOST_COST:g}. Received: {cost:g} for {networks[row]}."
            )
    return array


def _checked_array(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"`{name}` should be an array of numbers of shape {shape}. Received: {values!r:.80}."
        ) from None
    if array.shape != shape:
        raise ValueError(
            f"`{name}` should have the shape {shape}, a row for each network. "
            f"Received: shape {array.shape}."
        )
    array.setflags(write=False)
    return array
