"""What a user gives as a table of networks, checked: names, losses, costs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_keras.affinity import Affinity
from tag_keras.results import Row
from tag_keras.selection.rules import Singletons, build_problem
from tag_keras.selection.solvers.problem import Booleans, Floats, all_groups
from tag_keras.utils.checks import check

Group = tuple[str, ...]
Losses = Mapping[str, float]
Rows = Mapping[Group, Losses] | Sequence[Losses | tuple[Losses, float]]
Costs = Callable[[Group], float] | Mapping[Group, float] | None


def order(networks: Iterable[Sequence[str]]) -> Group:
    """Task names in the order of the largest network, then in that of the others."""
    largest_first = sorted(networks, key=len, reverse=True)
    return tuple(dict.fromkeys(task for network in largest_first for task in network))


def rows_by_hand(losses: Rows) -> list[tuple[Losses, float]]:
    """Losses by task, and the cost, of each network out of what `from_losses` takes."""
    if isinstance(losses, Mapping):
        for network, row in losses.items():
            if not isinstance(network, tuple):
                raise ValueError(
                    f'`losses` should have tuples of task names as keys, such as ("a",). '
                    f"Received: {network!r}."
                )
            if not isinstance(row, Mapping) or sorted(map(str, network)) != sorted(map(str, row)):
                raise ValueError(
                    f"`losses` should give {network} the loss of each of its tasks, in a dict. "
                    f"Received: {row!r}."
                )
        return [(row, 1.0) for row in losses.values()]
    if not isinstance(losses, list | tuple):
        raise ValueError(
            "`losses` should be a dict of losses by network, or a list of networks; "
            "`NetworkTable.from_affinity` makes a table of affinities. "
            f"Received: {type(losses).__name__}."
        )
    rows: list[tuple[Losses, float]] = []
    if not losses:
        raise ValueError("`losses` should have at least one network. Received: losses=[].")
    for number, given in enumerate(losses):
        pair: Any = (given, 1.0) if isinstance(given, Mapping) else given
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], Mapping):
            raise ValueError(
                f"`losses[{number}]` should be a dict of losses by task, or such a dict and a "
                f"cost. Received: {given!r}."
            )
        rows.append(pair)
    return rows


def rows_of_results(
    rows: Sequence[Row],
    split: str,
    tasks: Sequence[str] | None,
    costs: Mapping[Group, float] | None,
) -> tuple[Group, list[tuple[Losses, float]]]:
    """Task names, and mean losses and cost of each set of tasks that a network was trained on."""
    found: dict[frozenset[str], dict[str, list[float]]] = {}
    for row in rows:
        if row.split == split:
            losses = found.setdefault(frozenset(row.tasks), {})
            losses.setdefault(row.task, []).append(row.loss)
    if not found:
        splits = sorted({row.split for row in rows})
        raise ValueError(f"There is no result on {split!r}. Splits found: {splits}.")
    names = tuple(tasks or order(row.tasks for row in rows if row.split == split))
    networks = [tuple(sorted(network, key=[*names, *network].index)) for network in found]
    for network, losses in zip(networks, found.values(), strict=True):
        if lacking := [task for task in network if task not in losses]:
            raise ValueError(f"The network {network} has no result on {split!r} for: {lacking}.")
    means = [
        {task: float(np.mean(losses[task])) for task in network}
        for network, losses in zip(networks, found.values(), strict=True)
    ]
    return names, list(zip(means, costs_of(networks, costs), strict=True))


def costs_of(networks: Sequence[Group], costs: Costs) -> list[Any]:
    """Cost of each network; in a mapping, its names may be in any order."""
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


def rows_of_groups(affinity: Affinity, singletons: Singletons) -> tuple[Booleans, Floats]:
    """Members (G, T) and scores (G, T) of all groups, sorted by positions; NaN for the others."""
    problem = build_problem(affinity, singletons, False, None, together=(), apart=())
    num_tasks = len(affinity.tasks)
    check(num_tasks <= 15, "`affinity` should have at most 15 tasks", num_tasks=num_tasks)
    members = all_groups(num_tasks)
    members = members[problem.admissible(members)]
    return members, np.where(members, problem.scores(members), np.nan)


def checked_networks(tasks: Group, networks: Sequence[Sequence[str]]) -> tuple[Group, ...]:
    """Networks as tuples of names in the order of `tasks`."""
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


def checked_scores(tasks: Group, networks: tuple[Group, ...], scores: npt.ArrayLike) -> Floats:
    """Scores as a read-only array (M, T), NaN exactly for the tasks that a network lacks."""
    shape = (len(networks), len(tasks))
    array = _array("scores", scores, shape)
    for row, network in enumerate(networks):
        for task, score in zip(tasks, array[row], strict=True):
            if (task in network) != math.isfinite(score) or math.isinf(score):
                wanted = "a finite score" if task in network else "NaN"
                raise ValueError(
                    f"`scores[{row}]` should have {wanted} for {task!r}, since the network is "
                    f"{network}. Received: {score:g}."
                )
    return array


def checked_costs(networks: tuple[Group, ...], costs: npt.ArrayLike | None) -> Floats:
    """Costs as a read-only array (M,)."""
    array = _array("costs", np.ones(len(networks)) if costs is None else costs, (len(networks),))
    for row, cost in enumerate(array):
        if not 0 < cost < math.inf:
            raise ValueError(
                f"`costs[{row}]` should be positive and finite. Received: {cost:g} for "
                f"{networks[row]}."
            )
    return array


def _array(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError):
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
