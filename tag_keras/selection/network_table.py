"""Tables of measured networks: what each network gives its tasks, and what it costs."""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.selection import network_rows
from tag_keras.selection.network_rows import Costs, Group, Rows
from tag_keras.selection.rules import Singletons
from tag_keras.utils.tasks import check_task_names

_Row = tuple[dict[str, float], float]
# The paper's tasks: semantic segmentation, depth, normals, keypoints, edges.
_STANDLEY = ("s", "d", "n", "k", "e")


def read_text(
    path: str | os.PathLike[str], tasks: Sequence[str] | None
) -> tuple[Sequence[str], list[_Row]]:
    """Reads a text table; `NetworkTable.load` describes the layout.

    Returns:
        Task names, and for each network its losses by task, and its cost.

    Raises:
        ValueError: If the file is not such a table; the message names file and line.
    """
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not a text file ({error}).") from None
    cells = [[cell.strip() for cell in line.rstrip("\r").split("\t")] for line in lines]
    if cells == [[""]]:
        raise ValueError(f"{where} is empty; it should have a line for each network.")
    header = all(cell and not _is_number(cell) for cell in cells[0])
    names = _column_names(where, cells[0], header, tasks)
    rows: list[_Row] = []
    for number, line in enumerate(cells[header:], 1 + header):
        losses, cost = _losses(f"{where}, line {number}", line, names)
        if "cost" in names or number > 1 + header:
            rows.append((losses, cost))
        elif len(losses) < len(names):
            raise ValueError(
                f"{where}, line {number} should have a loss for each task, that of a network of "
                "half the size for this task alone; a table without these needs a column `cost`."
            )
        else:
            rows += [({task: loss}, 0.5) for task, loss in losses.items()]
    return [name for name in names if name != "cost"], rows


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Puts the name of a file before the message of a `ValueError`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where} does not hold a table of networks: {error}") from None


def _column_names(
    where: str, first: list[str], header: bool, tasks: Sequence[str] | None
) -> Sequence[str]:
    given = [name for name in first if name != "cost"]
    if header and len(set(first)) < len(first):
        raise ValueError(f"{where}, line 1 should have unique names. Received: {first}.")
    if header and tasks is not None and list(tasks) != given:
        raise ValueError(f"{where} names the tasks {given}. Received: tasks={list(tasks)}.")
    if header:
        return first
    if tasks is None and len(first) != len(_STANDLEY):
        raise ValueError(
            f"{where} should name its tasks in line 1, since it has {len(first)} columns and not "
            f"the five of {_STANDLEY}; or give `tasks`."
        )
    names = _STANDLEY if tasks is None else tuple(tasks)
    if len(names) != len(first):
        raise ValueError(
            f"{where}, line 1 has {len(first)} columns. Received: tasks={list(names)}."
        )
    return names


def _losses(where: str, cells: list[str], names: Sequence[str]) -> _Row:
    if len(cells) != len(names):
        raise ValueError(
            f"{where} should have {len(names)} columns as line 1 has, separated by tabs, and blank "
            f"for a task that the network does not have. Received: {len(cells)}."
        )
    values = {}
    for name, cell in zip(names, cells, strict=True):
        if cell and not (_is_number(cell) and math.isfinite(float(cell))):
            tabs = "; columns are separated by tabs" if len(names) == 1 else ""
            raise ValueError(
                f"{where} should have a finite number for {name!r}{tabs}. Found: {cell!r}."
            )
        if cell:
            values[name] = float(cell)
    if "cost" in names and "cost" not in values:
        raise ValueError(f"{where} should have a cost.")
    cost = values.pop("cost", 1.0) if "cost" in names else 1.0
    if not values:
        raise ValueError(f"{where} has no loss of any task.")
    return values, cost


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class NetworkTable:
    """Candidate networks with a score for each of their tasks (Standley et al. 2020, 1905.07553).

    Whatever the scores are, `select_networks` chooses by them: losses of networks after a whole
    training (the paper's optimal selection), after a short one (its early stopping approximation,
    ESA, needs nothing but such a table), estimates out of pairs (`higher_order`), affinities
    (`from_affinity`), or accuracies.

    Args:
        tasks: Task names, in the user's order; T is their number.
        networks: Groups of task names, one for each of M networks. Two networks may have the same
            tasks if they differ in cost.
        scores: Array (M, T): loss or score of each task in each network, finite; NaN for a task
            that the network does not have.
        costs: Array (M,): what each network costs, in any unit. Defaults to 1 each.

    Raises:
        ValueError: If an argument has another shape or contradicts the others; the message names
            the network and the task.

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
        self.networks = network_rows.checked_networks(self.tasks, networks)
        self.scores = network_rows.checked_scores(self.tasks, self.networks, scores)
        self.costs = network_rows.checked_costs(self.networks, costs)
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
    def from_losses(cls, losses: Rows, tasks: Sequence[str] | None = None) -> "NetworkTable":
        """A table out of what one has by hand.

        Args:
            losses: Either by network, a tuple of names, its losses by task; or a list of networks,
                each given by its losses by task, or by these and its cost: `({"a": 0.2}, 0.5)`.
                The cost is 1 where none is given.
            tasks: Task names in the order wanted. Defaults to the order of the largest network.

        Returns:
            The table, networks in the order given.

        Raises:
            ValueError: If a network's tasks and its losses' differ, or as the class does.

        Example:

        ```python
        full = {"a": 0.25, "b": 0.4}
        half = ({"b": 0.2}, 0.5)
        table = tag_keras.NetworkTable.from_losses([full, half])
        tag_keras.NetworkTable.from_losses({("a", "b"): full, ("b",): half[0]})  # costs 1 each
        ```
        """
        rows = network_rows.rows_by_hand(losses)
        if tasks is None:
            tasks = network_rows.order(list(row) for row, _ in rows)
        return cls(
            tasks,
            [list(row) for row, _ in rows],
            [[row.get(task, math.nan) for task in tasks] for row, _ in rows],
            [cost for _, cost in rows],
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
            rows: Results. Networks with the same set of tasks are runs of one network.
            split: Split to read. Choose on `"validation"`, so that `"test"` can judge the choice.
            tasks: Task names in the order wanted. Defaults to the order of the largest network.
            costs: Cost by tuple of names, in any order. Defaults to 1 each.

        Returns:
            The table, networks in the order in which they first appear.

        Raises:
            ValueError: If there are no results on the split, if a network lacks a task's, or if
                `costs` lacks a network.
        """
        order, networks = network_rows.rows_of_results(list(rows), split, tasks, costs)
        return cls.from_losses(networks, order)

    @classmethod
    def from_affinity(
        cls,
        affinity: Affinity,
        costs: Costs = None,
        singletons: Singletons = "forbid",
    ) -> "NetworkTable":
        """All groups of up to 15 tasks: select by parameters, operations or latency.

        A task's score in a group is the mean affinity of the group's other tasks onto it, as in
        `select_groups`; `select_networks(table, budget, sense="max")` chooses by it.

        Args:
            affinity: Affinities. The diagonal is not used.
            costs: Cost of a group: a function of its tuple of names, in the order of the tasks, or
                a mapping from all such tuples. Defaults to 1 each.
            singletons: As in `select_groups`: `"forbid"` leaves out groups of one task,
                `"baseline"` and a dict give them scores.

        Returns:
            The table, groups sorted by the positions of their tasks.

        Raises:
            ValueError: If there are too many tasks, if an affinity of two tasks is not finite, or
                if `costs` lacks a group.

        Example:

        ```python
        affinity = tag_keras.Affinity(["a", "b", "c"], [[0, 3, -1], [2, 0, -2], [1, -3, 0]])
        table = tag_keras.NetworkTable.from_affinity(affinity, lambda group: 10 + 2 * len(group))
        tag_keras.select_networks(table, budget=30, sense="max")
        ```
        """
        members, scores = network_rows.rows_of_groups(affinity, singletons)
        names = np.array(affinity.tasks, dtype=object)
        networks = [tuple(names[row]) for row in members]
        given = network_rows.costs_of(networks, costs)
        return cls(affinity.tasks, networks, scores, given)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        tasks: Sequence[str] | None = None,
        split: str = "validation",
    ) -> "NetworkTable":
        """Reads results.json, or a text table in the layout of Standley et al.

        A text table has a column for each task, separated by tabs, and a line for each network,
        blank for a task that the network does not have. Its first line holds the losses of as many
        networks of half the size, one for each task, at a cost of 0.5; the others cost 1. Above it
        may be a line with the names of the tasks. If one of these names is `cost`, that column
        holds the costs, and every line is one network.

        Args:
            path: File; results.json is told by its suffix `.json`.
            tasks: Names of the columns, or the order wanted for results.json. A text table of five
                columns without names has the paper's tasks s, d, n, k and e.
            split: Split to read out of results.json.

        Returns:
            The table, networks in the order of the file.

        Raises:
            ValueError: If the file holds something else; the message names file and line.
        """
        where = os.fspath(path)
        if where.endswith(".json"):
            rows = results.load_results(path)
            with naming(where):
                return cls.from_results(rows, split, tasks)
        names, networks = read_text(path, tasks)
        with naming(where):
            return cls.from_losses(networks, names)

    def higher_order(self) -> "NetworkTable":
        """Higher order approximation (HOA) of Standley et al. 2020: networks from pairs.

        A task's loss in a network of three or more tasks is replaced by the mean of its losses in
        the pairs with each of the others. Networks of one and two tasks stay as they were measured.

        Returns:
            A table of the same networks.

        Raises:
            ValueError: If a pair that is needed is not in the table.
        """
        scores = np.array(self.scores)
        for row, network in enumerate(self.networks):
            for task in network if len(network) > 2 else ():
                pairs = [self._pair(row, task, other) for other in network if other != task]
                column = self.tasks.index(task)
                scores[row, column] = self.scores[pairs, column].mean()
        return NetworkTable(self.tasks, self.networks, scores, self.costs)

    def find(self, network: Sequence[str], cost: float) -> int:
        """The row of the network with these tasks, in any order, and this cost."""
        for row, names in enumerate(self.networks):
            if {*names} == {*network} and math.isclose(self.costs[row], cost):
                return row
        raise ValueError(f"The table should have a network {tuple(network)} at a cost of {cost:g}.")

    def _pair(self, row: int, task: str, other: str) -> int:
        """The row of a pair: at the cost of `row` if there are several."""
        rows = [index for index, network in enumerate(self.networks) if {*network} == {task, other}]
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
