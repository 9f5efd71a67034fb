"""The fewest groups that cover all tasks, whatever they score."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from tag_keras.selection.solvers.problem import Booleans, GroupProblem
from tag_keras.selection.solvers.quiet import quiet

_Whole = npt.NDArray[np.int64]
_Group = tuple[int, ...]


class _Packing(NamedTuple):
    """U units of tasks to pack into groups: sizes and weights (U,), conflicts (U, U)."""

    units: list[_Group]
    sizes: _Whole
    # A group may be chosen when the weights of its units reach 2.
    weights: _Whole
    # Whether two units are apart; the first `num_apart` all are, and need a group each.
    conflicts: Booleans
    num_apart: int


# Leaving each task in one group turns a cover into a partition, except that some tasks may end up
# alone against the rules. Any partner mends that. So the fewest groups, with overlap or without,
# are a bin packing of the units with conflicts, and tasks alone matter in partitions only.
def fewest_groups(problem: GroupProblem, time_limit: float = 10.0) -> list[_Group]:
    """A smallest family of admissible groups that covers all tasks: sorted tuples of positions.

    Args:
        problem: Up to 100 tasks.
        time_limit: Seconds for integer programs. When they are over, the family may have a few
            groups more than needed, or an existing family may be missed.

    Raises:
        ValueError: If no family covers all tasks.
    """
    packing = _packing(problem)
    fewest = max(packing.num_apart, -(-len(problem.alone) // problem.max_size))
    end = time.monotonic() + time_limit
    most = min(len(packing.units), int(packing.weights.sum()) // 2)
    for number in range(fewest, most + 1):
        owners = _spread(packing, number, problem.max_size)
        if family := _family(problem, packing.units, owners):
            return family
        owners = _assign(packing, number, problem.max_size, end - time.monotonic())
        if family := _family(problem, packing.units, owners):
            return family
    raise ValueError(
        f"No family of groups {'without overlap ' if problem.partition else ''}covers all tasks: "
        "allow tasks alone, larger groups or overlap, or ask for less by `together` and `apart`."
    )


def _packing(problem: GroupProblem) -> _Packing:
    """First units that are all apart, then the others by size, tasks that may be alone first."""
    alone = {(task,) for task in np.flatnonzero(np.isfinite(problem.alone)).tolist()}
    units = sorted(problem.units, key=lambda unit: (-len(unit), unit not in alone))
    members = problem.members(units)
    conflicts: Booleans = members.astype(int) @ problem.apart @ members.T > 0
    clique: list[int] = []
    for unit in np.argsort(-conflicts.sum(axis=1), kind="stable").tolist():
        if conflicts[unit, clique].all():
            clique.append(unit)
    order = [*clique, *(unit for unit in range(len(units)) if unit not in clique)]
    units = [units[unit] for unit in order]
    sizes = np.array([len(unit) for unit in units])
    weights = sizes + [unit in alone for unit in units] if problem.partition else 2 * sizes
    return _Packing(units, sizes, weights, conflicts[np.ix_(order, order)], len(clique))


def _family(problem: GroupProblem, units: list[_Group], owners: _Whole | None) -> list[_Group]:
    """The groups that own the units; [] without owners, or if a group is not admissible."""
    if owners is None:
        return []
    groups = [
        sum((unit for unit, own in zip(units, owners, strict=True) if own == owner), ())
        for owner in set(owners.tolist())
    ]
    if not problem.partition:
        groups = [_with_partner(problem, group) for group in groups]
    valid = problem.admissible(problem.members(groups)).all()
    return sorted({tuple(sorted(group)) for group in groups}) if valid else []


def _with_partner(problem: GroupProblem, group: _Group) -> _Group:
    """The group, plus the smallest unit that makes it admissible if it is not."""
    candidates = [group, *(group + unit for unit in sorted(problem.units, key=len))]
    distinct = [one for one in candidates if len(set(one)) == len(one)]
    allowed = problem.admissible(problem.members(distinct))
    return distinct[int(allowed.argmax())] if allowed.any() else group


def _spread(packing: _Packing, number: int, max_size: int) -> _Whole | None:
    """The group of each unit: the lightest that can take it; None if no group can."""
    load, weight = np.zeros(number), np.zeros(number)
    owners = np.full(len(packing.units), -1)
    for unit, size in enumerate(packing.sizes):
        possible = load + size <= max_size
        possible[owners[:unit][packing.conflicts[unit, :unit]]] = False
        if not possible.any():
            return None
        owners[unit] = np.where(possible, weight, np.inf).argmin()
        load[owners[unit]] += size
        weight[owners[unit]] += packing.weights[unit]
    return owners


# Let x[u, g] = 1 if unit u is in group g, and sort the groups by their first units. Then unit u is
# in one of the groups 0..u, and each of the first units, which are all apart, is in its own group.
def _assign(packing: _Packing, number: int, max_size: int, seconds: float) -> _Whole | None:
    """The group of each unit by an integer program; None if it finds no solution in time."""
    if seconds <= 0:
        return None
    num_units = len(packing.units)
    upper = np.tri(num_units, number)
    lower = np.eye(num_units, number) * (np.arange(num_units) < packing.num_apart)[:, None]
    each_group = scipy.sparse.identity(number)
    constraints = [
        (scipy.sparse.kron(scipy.sparse.identity(num_units), np.ones(number)), 1, 1),
        (scipy.sparse.kron(packing.sizes, each_group), 0, max_size),
        (scipy.sparse.kron(packing.weights, each_group), 2, np.inf),
    ]
    if cliques := [*_cliques(packing.conflicts)]:
        constraints.append((scipy.sparse.kron(np.array(cliques), each_group), 0, 1))
    with quiet():
        result = scipy.optimize.milp(
            np.zeros(upper.size),
            integrality=np.ones(upper.size),
            bounds=scipy.optimize.Bounds(lower.ravel(), upper.ravel()),
            constraints=constraints,
            options={"time_limit": seconds},
        )
    return None if result.x is None else result.x.reshape(upper.shape).argmax(axis=1)


def _cliques(conflicts: Booleans) -> Iterator[_Whole]:
    """Sets of units that are all apart, as rows of 0 and 1; every pair apart is in one of them."""
    pairs = np.triu(conflicts)
    while pairs.any():
        clique = np.argwhere(pairs)[0].tolist()
        for unit in np.flatnonzero(conflicts[clique].all(axis=0)).tolist():
            if conflicts[unit, clique].all():
                clique.append(unit)
        pairs[np.ix_(clique, clique)] = False
        yield np.isin(np.arange(len(conflicts)), clique).astype(np.int64)
