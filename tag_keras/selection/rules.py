"""What a user allows of groups, checked, and as the problem that the solvers take."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem, Score
from tag_keras.utils.checks import check, check_bool, check_choice, check_count, is_number

Singletons = Literal["forbid", "baseline"] | Mapping[str, float]
Names = Iterable[Sequence[str]]
# Of affinities and scores.
_LARGEST = 1e300


def build_problem(
    affinity: Affinity,
    singletons: Singletons,
    partition: bool,
    max_group_size: int | None,
    together: Names,
    apart: Names,
    score: Score = "mean",
) -> GroupProblem:
    """The problem that the arguments of `select_groups` describe.

    Raises:
        ValueError: If an argument is wrong, or if no group may hold some task.
    """
    wanted = "`affinity` should be an Affinity; make one by tag_keras.Affinity(tasks, mean)"
    check(isinstance(affinity, Affinity), wanted, type=type(affinity))
    tasks = affinity.tasks
    alone = _alone(tasks, singletons)
    check_bool("partition", partition)
    check_choice("score", score, ("mean", "sum"))
    wrong = ~np.isfinite(affinity.mean) & ~np.eye(len(tasks), dtype=bool)
    wanted = "`affinity` should be finite for all pairs of two tasks; measure for more steps"
    check(not wrong.any(), wanted, pairs=affinity.describe_pairs(wrong))
    # Sums of scores must be finite, too.
    wrong = (np.abs(affinity.mean) > _LARGEST) & ~np.eye(len(tasks), dtype=bool)
    wanted = f"`affinity` should be at most {_LARGEST:g} in size; scale all of it"
    check(not wrong.any(), wanted, pairs=affinity.describe_pairs(wrong))
    largest = len(tasks)
    if max_group_size is not None:
        largest = min(largest, check_count("max_group_size", max_group_size))
        wanted = '`max_group_size` should be at least 2 with singletons="forbid"'
        valid = max_group_size > 1 or singletons != "forbid"
        check(valid, wanted, max_group_size=max_group_size)
    units = _units(tasks, _positions("together", together, tasks))
    forbidden = _apart(tasks, units, _positions("apart", apart, tasks))
    problem = GroupProblem(affinity.mean, alone, partition, largest, units, forbidden, score)
    _check_units(tasks, problem)
    return problem


def _alone(tasks: tuple[str, ...], singletons: Singletons) -> Floats:
    """Scores (T,) of the tasks alone, -inf where that is forbidden."""
    wanted = '`singletons` should be "forbid", "baseline" or a dict of scores by task'
    rules = isinstance(singletons, str) and singletons in ("forbid", "baseline")
    known = rules or isinstance(singletons, Mapping)
    check(known, wanted, singletons=singletons)
    if not isinstance(singletons, Mapping):
        return np.full(len(tasks), 0.0 if singletons == "baseline" else -np.inf)
    unknown = [task for task in singletons if task not in tasks]
    check(not unknown, f"`singletons` should name tasks out of {tasks}", unknown=unknown)
    for task, score in singletons.items():
        wanted = f"`singletons` should give {task!r} a number of at most {_LARGEST:g} in size"
        check(is_number(score) and abs(float(score)) <= _LARGEST, wanted, score=score)
    return np.array([singletons.get(task, -np.inf) for task in tasks], np.float64)


def _positions(name: str, sets: Any, tasks: tuple[str, ...]) -> list[list[int]]:
    """The sets of names as sorted positions."""
    wanted = f'`{name}` should be a list of lists of task names, such as [["a", "b"]]'
    listed = isinstance(sets, Iterable) and not isinstance(sets, str | Mapping)
    check(listed, wanted, **{name: sets})
    sets = list(sets)
    listed = all(isinstance(names, list | tuple | set | frozenset) for names in sets)
    check(listed, wanted, **{name: sets})
    unknown = [task for names in sets for task in names if task not in tasks]
    check(not unknown, f"`{name}` should name tasks out of {tasks}", unknown=unknown)
    return [sorted({tasks.index(task) for task in names}) for names in sets]


def _units(tasks: tuple[str, ...], together: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """Connected components of the sets, every task in one of them."""
    unit = list(range(len(tasks)))
    for positions in together:
        joined = {unit[position] for position in positions}
        unit = [min(joined) if one in joined else one for one in unit]
    return tuple(
        tuple(task for task, one in enumerate(unit) if one == label) for label in sorted(set(unit))
    )


def _apart(
    tasks: tuple[str, ...], units: tuple[tuple[int, ...], ...], apart: list[list[int]]
) -> Booleans:
    """Pairs (T, T) that no group holds: those that are apart, and what goes with them."""
    unit_of = {task: unit for unit in units for task in unit}
    forbidden = np.zeros((len(tasks), len(tasks)), bool)
    for positions in apart:
        for first in positions:
            for second in (one for one in positions if one != first):
                valid = second not in unit_of[first]
                names = (tasks[first], tasks[second])
                wanted = f"`together` joins {names[0]!r} and {names[1]!r}, so `apart` cannot part"
                check(valid, f"{wanted} them; take them out of one", apart=names)
                forbidden[np.ix_(unit_of[first], unit_of[second])] = True
    return forbidden


def _check_units(tasks: tuple[str, ...], problem: GroupProblem) -> None:
    """Checks that each unit is in some group: by itself, or with one other unit."""
    for unit in problem.units:
        names = [tasks[task] for task in unit]
        wanted = f"`max_group_size` should be at least {len(unit)}, because `together` joins"
        valid = len(unit) <= problem.max_size
        check(valid, f"{wanted} {names}", max_group_size=problem.max_size)
        if len(unit) > 1 or np.isfinite(problem.alone[unit[0]]):
            continue
        partners = [
            other
            for other in problem.units
            if other != unit
            and len(other) < problem.max_size
            and not problem.apart[unit[0], other[0]]
        ]
        wanted = f"{names[0]!r} should have a group: it may not be alone, and no other task may"
        check(bool(partners), f"{wanted} join it; allow one or the other", tasks=tasks)
