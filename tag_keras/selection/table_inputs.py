"""Inputs of a `NetworkTable`, each turned into networks: pairs of losses by task and a cost."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tag_keras.results import Row

Group = tuple[str, ...]
Losses = Mapping[str, float]
Network = tuple[Losses, float]
LossesByHand = Mapping[Group, Losses] | Sequence[Losses | Network]
Costs = Callable[[Group], float] | Mapping[Group, float] | None

# The five tasks of Standley et al.: semantic segmentation, depth, normals, keypoints, edges.
_STANDLEY = ("s", "d", "n", "k", "e")


def task_order(networks: Iterable[Sequence[str]]) -> Group:
    """Task names in the order of the largest network, then of the others."""
    largest_first = sorted(networks, key=len, reverse=True)
    return tuple(dict.fromkeys(task for network in largest_first for task in network))


def networks_by_hand(losses: LossesByHand) -> list[Network]:
    if isinstance(losses, Mapping):
        for network, by_task in losses.items():
            if not isinstance(network, tuple):
                raise ValueError(
                    '`losses` should have tuples of task names as keys, such as ("a",). '
                    f"Received: {network!r}."
                )
            is_dict = isinstance(by_task, Mapping)
            if not is_dict or sorted(map(str, network)) != sorted(map(str, by_task)):
                raise ValueError(
                    f"`losses` should give {network} the loss of each of its tasks, in a dict. "
                    f"Received: {by_task!r}."
                )
        return [(by_task, 1.0) for by_task in losses.values()]
    if not isinstance(losses, list | tuple):
        raise ValueError(
            "`losses` should be a dict of losses by network, or a list of networks; "
            "`NetworkTable.from_affinity` makes a table of affinities. "
            f"Received: {type(losses).__name__}."
        )
    if not losses:
        raise ValueError("`losses` should have at least one network. Received: losses=[].")
    networks: list[Network] = []
    for number, given in enumerate(losses):
        pair: Any = (given, 1.0) if isinstance(given, Mapping) else given
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], Mapping):
            raise ValueError(
                f"`losses[{number}]` should be a dict of losses by task, or such a dict and a "
                f"cost. Received: {given!r}."
            )
        networks.append(pair)
    return networks


def networks_of_results(
    rows: Sequence[Row],
    split: str,
    tasks: Sequence[str] | None,
    costs: Mapping[Group, float] | None,
) -> tuple[Group, list[Network]]:
    """Task names, and one network for each set of tasks, with mean losses over runs and seeds."""
    rows_of_split = [row for row in rows if row.split == split]
    if not rows_of_split:
        splits = sorted({row.split for row in rows})
        raise ValueError(f"There is no result on {split!r}. Splits found: {splits}.")
    names = tuple(tasks or task_order(row.tasks for row in rows_of_split))
    found: dict[Group, dict[str, list[float]]] = {}
    for row in rows_of_split:
        network = tuple(sorted({*row.tasks}, key=[*names, *row.tasks].index))
        found.setdefault(network, {}).setdefault(row.task, []).append(row.loss)
    means = []
    for network, losses in found.items():
        if lacking := [task for task in network if task not in losses]:
            raise ValueError(f"The network {network} has no result on {split!r} for: {lacking}.")
        means.append({task: float(np.mean(losses[task])) for task in network})
    return names, list(zip(means, costs_of([*found], costs), strict=True))


def costs_of(networks: Sequence[Group], costs: Costs) -> list[Any]:
    """Cost of each network: 1 by default, by a function, or by its names in any order."""
    if costs is None:
        return [1.0] * len(networks)
    if callable(costs):
        return [costs(network) for network in networks]
    by_tasks = {frozenset(names): cost for names, cost in costs.items()}
    for network in networks:
        if frozenset(network) not in by_tasks:
            raise ValueError(
                f"`costs` should have a cost for {network}. Received: costs of {len(costs)} "
                f"networks, where {len(networks)} are needed."
            )
    return [by_tasks[frozenset(network)] for network in networks]


def networks_of_text(
    path: str | os.PathLike[str], tasks: Sequence[str] | None
) -> tuple[Sequence[str], list[Network]]:
    """Task names and networks of a text table, whose layout `NetworkTable.load` describes."""
    where = os.fspath(path)
    try:
        # Editors of Windows begin a file with a mark.
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not a text file ({error}).") from None
    cells = [[cell.strip() for cell in line.rstrip("\r").split("\t")] for line in lines]
    if cells == [[""]]:
        raise ValueError(f"{where} is empty; it should have a line for each network.")
    has_header = all(cell and not _is_number(cell) for cell in cells[0])
    names = _column_names(where, cells[0], has_header, tasks)
    networks: list[Network] = []
    for number, line in enumerate(cells[has_header:], 1 + has_header):
        losses, cost = _network_of_line(f"{where}, line {number}", line, names)
        if "cost" in names or number > 1 + has_header:
            networks.append((losses, cost))
        elif len(losses) < len(names):
            raise ValueError(
                f"{where}, line {number} should have a loss for each task, that of a network of "
                "half the size for this task alone; a table without these needs a column `cost`."
            )
        else:
            networks += [({task: loss}, 0.5) for task, loss in losses.items()]
    return [name for name in names if name != "cost"], networks


def _column_names(
    where: str, first: list[str], has_header: bool, tasks: Sequence[str] | None
) -> Sequence[str]:
    if has_header:
        given = [name for name in first if name != "cost"]
        if len(set(first)) < len(first):
            raise ValueError(f"{where}, line 1 should have unique names. Received: {first}.")
        if tasks is not None and list(tasks) != given:
            raise ValueError(f"{where} names the tasks {given}. Received: tasks={list(tasks)}.")
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


def _network_of_line(
    where: str, cells: list[str], names: Sequence[str]
) -> tuple[dict[str, float], float]:
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
                f"{where} should have a finite number for {name!r}{tabs}. Found: {cell!r:.80}."
            )
        if cell:
            values[name] = float(cell)
    if "cost" in names and "cost" not in values:
        raise ValueError(f"{where} should have a cost.")
    cost = values.pop("cost", 1.0)
    if not values:
        raise ValueError(f"{where} has no loss of any task.")
    return values, cost


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
