"""Selection of groups by inter-task affinities: one grouping, or the best for every number."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.rules import Singletons, TaskLists, build_problem
from tag_keras.selection.solvers.column_generation import ColumnSolver
from tag_keras.selection.solvers.cover import fewest_groups
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.selection.solvers.problem import Floats, GroupProblem, Score, all_groups
from tag_keras.utils.checks import check, check_count, check_seconds

# Above this number of tasks the table of the dynamic program would be too large.
TABLE_TASKS = 15
# A power of two, so that dividing by it is exact. Smaller affinities get another unit.
_SMALL = 2.0**-600


def select_groups(
    affinity: Affinity,
    num_groups: int,
    singletons: Singletons = "forbid",
    *,
    score: Score = "mean",
    partition: bool = False,
    max_group_size: int | None = None,
    together: TaskLists = (),
    apart: TaskLists = (),
    time_limit: float | None = 60.0,
) -> Grouping:
    """Network selection of TAG (Fifty et al. 2021, arXiv 2109.04617) and Standley et al. 2020.

    Among all families of at most `num_groups` groups that cover every task, overlapping or not
    (arXiv 1905.07553), this finds one with the largest mean over tasks of the best score, and
    proves it. Families within 1e-9 of the largest absolute affinity are tied, where affinities too
    low to serve a task in a good family do not count, nor one that is far too large and serves a
    task in them all: the fewest groups win, then the fewest memberships, then the first in the
    order of tasks. If very many are tied, the rules compare the
    first ones found. From 16 tasks on, the proof holds to a millionth of the mean difference
    between affinities, and of families that differ by about the tolerance itself, any may come
    back.

    Args:
        affinity: Affinities of up to 100 tasks. The diagonal is not used.
        num_groups: Largest number of groups, and so of networks; fewer if more do not help.
        singletons: Groups of one task. `"forbid"` allows none, as in the paper; `"baseline"` scores
            them 0, for affinities measured with `baseline=True` only; a dict gives scores by task,
            in the unit of the affinities, and forbids the tasks that it lacks.
        score: A task's score in a group: `"mean"`, as in the paper, or `"sum"` of the affinities of
            the group's other tasks onto it. The sum takes up to 15 tasks, and affinities that add
            up as differences of losses do, such as those of `anchor_affinity`; a task alone then
            scores 0, so use `singletons="baseline"`.
        partition: Whether groups may not overlap: each task is in the one group that serves it.
        max_group_size: Largest number of tasks in a group. Defaults to no limit.
        together: Lists of tasks; a group holds all tasks of a list, or none.
        apart: Lists of tasks; a group holds at most one task of a list.
        time_limit: Seconds after which the best grouping so far comes back, with `optimal` false
            and the upper bound so far. None searches until there is a proof. Up to 15 tasks there
            is no limit; the search ends within a second, or a few where very many are tied.

    Returns:
        The best `Grouping`.

    Raises:
        ValueError: If an argument is out of range, an affinity of two tasks is not finite, there
            are too many tasks for `score`, or no allowed family covers all tasks.

    Example:

    ```python
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    grouping = tag_keras.select_groups(tag_keras.Affinity(["a", "b", "c"], mean), num_groups=2)
    grouping.groups  # (("a", "b"), ("a", "c")): "a" helps "c", and is served beside "b"
    ```
    """
    number = check_count("num_groups", num_groups)
    problem = build_problem(affinity, singletons, partition, max_group_size, together, apart, score)
    check_seconds("time_limit", time_limit)
    start = _smallest_cover(problem, "num_groups", number)
    return _solve(affinity.tasks, problem, start, [number], time_limit)[0]


def selection_frontier(
    affinity: Affinity,
    max_groups: int,
    singletons: Singletons = "forbid",
    *,
    score: Score = "mean",
    partition: bool = False,
    max_group_size: int | None = None,
    together: TaskLists = (),
    apart: TaskLists = (),
    time_limit: float | None = 60.0,
) -> tuple[Grouping, ...]:
    """The best grouping for every number of groups: what each further network gains.

    Up to 15 tasks this takes about as long as `select_groups` for one number: half a second for 15.

    Args:
        affinity: Affinities of up to 100 tasks. The diagonal is not used.
        max_groups: Largest number of groups of the last grouping.
        singletons: `"forbid"` allows no group of one task, `"baseline"` scores one 0, and a dict
            gives the scores of the tasks that may be alone.
        score: Whether a task scores the `"mean"` of its group's affinities onto it, or their
            `"sum"`, for up to 15 tasks.
        partition: Whether each task is in one group only.
        max_group_size: Most tasks in a group, or None.
        together: Lists of tasks that share all their groups.
        apart: Lists of tasks that share no group.
        time_limit: Seconds for each number of groups, for more than 15 tasks only, or None.

    Returns:
        The groupings of `select_groups` for 1, 2, .. `max_groups` groups, without the first numbers
        if they cannot cover all tasks: the first grouping is for `max_groups + 1` minus the length.
        Where more groups do not help, the last grouping repeats.

    Raises:
        ValueError: If an argument is out of range, or so many groups cannot cover all tasks.

    Example:

    ```python
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    frontier = tag_keras.selection_frontier(affinity, max_groups=3)
    [round(grouping.score, 3) for grouping in frontier]  # [0.0, 0.133, 0.133]: two are enough
    ```
    """
    last = check_count("max_groups", max_groups)
    problem = build_problem(affinity, singletons, partition, max_group_size, together, apart, score)
    check_seconds("time_limit", time_limit)
    start = _smallest_cover(problem, "max_groups", last)
    return tuple(_solve(affinity.tasks, problem, start, range(len(start), last + 1), time_limit))


def _smallest_cover(problem: GroupProblem, name: str, most: int) -> list[tuple[int, ...]]:
    """A smallest family that covers all tasks, of at most `most` groups."""
    num_tasks = len(problem.alone)
    check(num_tasks <= 100, "`affinity` should have at most 100 tasks", num_tasks=num_tasks)
    if problem.score == "sum" and num_tasks > TABLE_TASKS:
        raise ValueError(
            f"`score='sum'` takes up to {TABLE_TASKS} tasks, as the search for more bounds means. "
            f"Received: num_tasks={num_tasks}."
        )
    cover = fewest_groups(problem)
    if len(cover) > most:
        raise ValueError(
            f"`{name}` should be at least {len(cover)}: fewer groups that are allowed do not cover "
            f"all tasks. Received: {name}={most}."
        )
    return cover


def _solve(
    tasks: tuple[str, ...],
    problem: GroupProblem,
    start: list[tuple[int, ...]],
    numbers: Sequence[int],
    time_limit: float | None,
) -> list[Grouping]:
    """The best grouping for each number of groups; every number suffices to cover all tasks."""
    if 0 < problem.largest() < _SMALL:
        # Differences of such numbers would be rounded.
        larger = (np.where(problem.used(), problem.affinity, 0.0) / _SMALL, problem.alone / _SMALL)
        problem = dataclasses.replace(problem, affinity=larger[0], alone=larger[1])
        return [
            dataclasses.replace(one, score=one.score * _SMALL, upper_bound=one.upper_bound * _SMALL)
            for one in _solve(tasks, problem, start, numbers, time_limit)
        ]
    lowered, surplus = problem.lowered()
    if surplus.any():
        found = _solve(tasks, lowered, start, numbers, time_limit)
        return [_with_scores_of(problem, one) for one in found]
    if found := _with_sums_lowered(tasks, problem, start, numbers, time_limit):
        return found
    if len(tasks) > TABLE_TASKS:
        return _generate(tasks, problem, start, numbers, time_limit)
    members = all_groups(len(tasks))
    members = members[problem.admissible(members)]

    def solve(problem: GroupProblem, numbers: Sequence[int]) -> list[Grouping]:
        scores, tolerance = problem.scores(members), _tolerance(problem)
        families = choose_families(scores, numbers, tolerance, problem.partition)
        return [_grouping(tasks, scores[rows], tolerance) for rows in families]

    groupings = dict(zip(numbers, solve(problem, numbers), strict=True))
    clipped = dict.fromkeys(numbers, problem)
    # A better family leaves out more of the large affinities, which hide a better one still.
    while True:
        alike: dict[bytes, list[int]] = {}
        for number in numbers:
            closer = _closer(clipped[number], groupings[number].score)
            if closer is not clipped[number]:
                alike.setdefault(closer.affinity.tobytes(), []).append(number)
                clipped[number] = closer
        if not alike:
            return [groupings[number] for number in numbers]
        for some in alike.values():
            groupings |= zip(some, solve(clipped[some[0]], some), strict=True)


def _with_sums_lowered(
    tasks: tuple[str, ...],
    problem: GroupProblem,
    start: list[tuple[int, ...]],
    numbers: Sequence[int],
    time_limit: float | None,
) -> list[Grouping]:
    """The groupings of a problem of sums, found with less of its far too large affinities.

    A family loses by that at most what all of them lose. So one that is best with less and loses
    all of it, since every task is served beside all such sources, is best. If one does not: none.
    """
    limit = problem.usual_limit()
    huge = problem.used() & (problem.affinity > limit)
    if problem.score != "sum" or not huge.any():
        return []
    lowered = dataclasses.replace(problem, affinity=np.minimum(problem.affinity, limit))
    found = _solve(tasks, lowered, start, numbers, time_limit)
    needed = {
        task: {tasks[source] for source in np.flatnonzero(huge[:, target])}
        for target, task in enumerate(tasks)
    }
    if all(needed[task] <= {*one.groups[one.serves[task]]} for one in found for task in tasks):
        return [_with_scores_of(problem, one) for one in found]
    return []


def _with_scores_of(problem: GroupProblem, grouping: Grouping) -> Grouping:
    """The grouping with the scores that it has in another problem of the same families."""
    groups = [tuple(map(grouping.tasks.index, group)) for group in grouping.groups]
    score = float(problem.scores(problem.members(groups)).max(axis=0).mean())
    bound = score + (grouping.upper_bound - grouping.score)
    return dataclasses.replace(grouping, score=score, upper_bound=bound)


def _closer(problem: GroupProblem, score: float) -> GroupProblem:
    """The problem without what serves in no family of this score, if it was large; or the same."""
    clipped = problem.clipped(score)
    return clipped if clipped.largest() < problem.largest() / 2 else problem


def _tolerance(problem: GroupProblem) -> float:
    """Mean scores that differ by less are tied."""
    # Enough for sums, too: rounding changes 15 sums of 14 affinities by at most 1e-12 of the
    # largest affinity, and the tolerance of their total is 15e-9 of it, in thousandths.
    return 1e-9 * (problem.largest() or 1.0)


def _generate(
    tasks: tuple[str, ...],
    problem: GroupProblem,
    start: list[tuple[int, ...]],
    numbers: Sequence[int],
    time_limit: float | None,
) -> list[Grouping]:
    """The best grouping for each number of groups, by column generation."""
    common, groupings = ColumnSolver(problem, start), list[Grouping]()
    for number in numbers:
        # With overlap, a group gains no more beside others: once one more does not help, none do.
        last = groupings[-1] if groupings and not problem.partition else None
        if last and last.optimal and len(last.groups) < number - 1:
            groupings.append(last)
            continue
        clipped, solver = problem, common
        # In the unit of far too large affinities, differences of others would be rounding errors.
        while clipped.is_uneven():
            closer = _closer(clipped, solver.sketch(number))
            if closer is clipped:
                break
            clipped, solver = closer, ColumnSolver(closer, start)
        tolerance = _tolerance(clipped)
        family = solver.solve(number, tolerance, time_limit)
        scores = problem.scores(problem.members(family.groups))
        found = _grouping(tasks, scores, tolerance, family.upper_bound, family.optimal)
        if groupings and found.score < groupings[-1].score:
            # The time was too short to find the groups of the number before again.
            bound = max(groupings[-1].score, family.upper_bound)
            found = dataclasses.replace(groupings[-1], upper_bound=bound, optimal=False)
        groupings.append(found)
    # A bound for families of more groups holds for fewer groups, too.
    for row in range(len(groupings) - 2, -1, -1):
        bound = min(groupings[row].upper_bound, groupings[row + 1].upper_bound)
        groupings[row] = dataclasses.replace(groupings[row], upper_bound=bound)
    return groupings


def score_in_group(affinity: Affinity, group: Sequence[str], task: str, score: Score) -> float:
    """The score of a task in a group: the mean or sum of the others' affinities; 0 alone."""
    others = [affinity.tasks.index(other) for other in group if other != task]
    column = affinity.mean[others, affinity.tasks.index(task)]
    return float(column.mean() if others and score == "mean" else column.sum())


def _grouping(
    tasks: tuple[str, ...],
    scores: Floats,
    tolerance: float,
    upper_bound: float | None = None,
    optimal: bool = True,
) -> Grouping:
    """The grouping of a family with scores (G, T), -inf where a task is not in a group."""
    best = scores.max(axis=0)
    serves = (scores >= best - tolerance / 1000).argmax(axis=0)
    names = np.array(tasks, dtype=object)
    score = float(best.mean())
    return Grouping(
        tasks,
        groups=tuple(tuple(names[row > -np.inf]) for row in scores),
        serves=dict(zip(tasks, serves.tolist(), strict=True)),
        score=score,
        upper_bound=score if upper_bound is None else upper_bound,
        optimal=optimal,
    )
