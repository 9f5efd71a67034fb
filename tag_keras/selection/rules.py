"""A user's rules for groups, checked and turned into the problem of the solvers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem, Score
from tag_keras.utils.checks import check, check_bool, check_choice, check_count, is_number

Singletons = Literal["forbid", "baseline"] | Mapping[str, float]
TaskLists = Iterable[Sequence[str]]
# Largest size of an affinity or a score: sums of them must be finite, too.
LARGEST = 1e300


def build_problem(
    affinity: Affinity,
    singletons: Singletons,
    partition: bool = False,
    max_group_size: int | None = None,
    together: TaskLists = (),
    apart: TaskLists = (),
    score: Score = "mean",
) -> GroupProblem:
    """Checks arguments of `select_groups`, and turns them into the problem that they describe."""
    if not isinstance(affinity, Affinity):
        raise ValueError(
            "`affinity` should be an Affinity; make one by tag_keras.Affinity(tasks, mean). "
            f"Received: type={type(affinity)}."
        )
    tasks = affinity.tasks
    alone = _scores_alone(tasks, singletons)
    check_bool("partition", partition)
    check_choice("score", score, ("mean", "sum"))
    others = ~np.eye(len(tasks), dtype=bool)
    for wrong, wanted in (
        (~np.isfinite(affinity.mean), "finite for all pairs of two tasks; measure for more steps"),
        (np.abs(affinity.mean) > LARGEST, f"at most {LARGEST:g} in size; scale all of it"),
    ):
        pairs = affinity.describe_pairs(wrong & others)
        check(not pairs, f"`affinity` should be {wanted}", pairs=pairs)
    largest = len(tasks)
    if max_group_size is not None:
        largest = min(largest, check_count("max_group_size", max_group_size))
        check(
            max_group_size > 1 or singletons != "forbid",
            '`max_group_size` should be at least 2 with singletons="forbid"',
            max_group_size=max_group_size,
        )
    units = _units(tasks, _positions("together", together, tasks))
    forbidden = _forbidden_pairs(tasks, units, _positions("apart", apart, tasks))
    problem = GroupProblem(affinity.mean, alone, partition, largest, units, forbidden, score)
    _check_units(tasks, problem)
    return problem


def _scores_alone(tasks: tuple[str, ...], singletons: Singletons) -> Floats:
    """Scores (T,) of the tasks alone, -inf where that is forbidden."""
    if isinstance(singletons, str) and singletons in ("forbid", "baseline"):
        return np.full(len(tasks), 0.0 if singletons == "baseline" else -np.inf)
    if not isinstance(singletons, Mapping):
        raise ValueError(
            '`singletons` should be "forbid", "baseline" or a dict of scores by task. '
            f"Received: singletons={singletons!r}."
        )
    unknown = [task for task in singletons if task not in tasks]
    check(not unknown, f"`singletons` should name tasks out of {tasks}", unknown=unknown)
    for task, score in singletons.items():
        check(
            is_number(score) and abs(float(score)) <= LARGEST,
            f"`singletons` should give {task!r} a number of at most {LARGEST:g} in size",
            score=score,
        )
    return np.array([singletons.get(task, -np.inf) for task in tasks], np.float64)


def _positions(name: str, lists: Any, tasks: tuple[str, ...]) -> list[list[int]]:
    """Sorted positions of the tasks in each list of the argument `name`."""
    listed = isinstance(lists, Iterable) and not isinstance(lists, str | Mapping)
    lists = list(lists) if listed else lists
    listed = listed and all(isinstance(names, list | tuple | set | frozenset) for names in lists)
    wanted = f'`{name}` should be a list of lists of task names, such as [["a", "b"]]'
    check(listed, wanted, **{name: lists})
    unknown = [task for names in lists for task in names if task not in tasks]
    check(not unknown, f"`{name}` should name tasks out of {tasks}", unknown=unknown)
    return [sorted({tasks.index(task) for task in names}) for names in lists]


def _units(tasks: tuple[str, ...], together: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """Sets of tasks that the lists of `together` join; every task is in one set."""
    unit = list(range(len(tasks)))
    for positions in together:
        joined = {unit[position] for position in positions}
        unit = [min(joined) if label in joined else label for label in unit]
    return tuple(
        tuple(task for task, own in enumerate(unit) if own == label) for label in sorted(set(unit))
    )


def _forbidden_pairs(
    tasks: tuple[str, ...], units: tuple[tuple[int, ...], ...], apart: list[list[int]]
) -> Booleans:
    """Pairs (T, T) that no group holds: tasks that are apart, and all of their units."""
    unit_of = {task: unit for unit in units for task in unit}
    forbidden = np.zeros((len(tasks), len(tasks)), bool)
    pairs = (itertools.permutations(positions, 2) for positions in apart)
    for first, second in itertools.chain.from_iterable(pairs):
        if second in unit_of[first]:
            names = (tasks[first], tasks[second])
            raise ValueError(
                f"`together` joins {names[0]!r} and {names[1]!r}, so `apart` cannot part them; "
                f"take them out of one. Received: apart={names!r}."
            )
        forbidden[np.ix_(unit_of[first], unit_of[second])] = True
    return forbidden


def _check_units(tasks: tuple[str, ...], problem: GroupProblem) -> None:
    """Checks that each unit may form a group, by itself or with one other unit."""
    for unit in problem.units:
        names = [tasks[task] for task in unit]
        if len(unit) > problem.max_size:
            raise ValueError(
                f"`max_group_size` should be at least {len(unit)}, because `together` joins "
                f"{names}. Received: max_group_size={problem.max_size}."
            )
        has_partner = any(
            len(other) < problem.max_size and not problem.apart[unit[0], other[0]]
            for other in problem.units
            if other != unit
        )
        if len(unit) == 1 and not np.isfinite(problem.alone[unit[0]]) and not has_partner:
            raise ValueError(
                f"{names[0]!r} should have a group: it may not be alone, and no other task may "
                f"join it; allow one or the other. Received: tasks={tasks!r}."
            )
