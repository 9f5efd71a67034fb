"""The exact choice of a few groups out of many: a dynamic program over sets of served tasks."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag_keras.selection.solvers.problem import Floats

# Groups that serve a set of tasks: the loss of each in units, its size, its row.
_Serving = list[tuple[int, int, int]]
# After so many calls of the search among ties, each under a millisecond, the first so far wins.
_MOST_TIE_STEPS = 200_000


# The value of a family is the sum over tasks of the best score: the largest sum over the ways to
# part the tasks into sets, one set served by each group. With sets of tasks as bits of an index,
#   served[U] = largest sum of the scores of U in a group that contains U, with or without helpers;
#   values[T, k] = value of the best k groups for T = max of served[U] + values[T - U, k - 1] over
# the U in T with the last task of T, because the order of the groups does not matter. So of the
# sets T with the last of all tasks, only the set of all tasks needs a value.
def choose_families(
    scores: Floats, numbers: Sequence[int], tolerance: float, partition: bool = False
) -> list[list[int]]:
    """The best family for each of several numbers of groups, in a time that grows like 3**T.

    Args:
        scores: Scores (G, T) of tasks in groups, -inf for a task that is not in the group.
        numbers: Largest numbers of groups, one for each family, in increasing order.
        tolerance: Families whose means over tasks differ by less are tied.
        partition: Whether the groups may not overlap.

    Returns:
        For each number, the rows of `scores` in its family; [] if so many cannot cover all tasks.
    """
    # With a best group for each task, more groups gain nothing.
    useful = scores.shape[1] if partition else len(set(scores.argmax(axis=0)))
    # Losses are in thousandths of the tolerance of a sum, so that rounding errors count 0.
    unit = scores.shape[1] * tolerance / 1000
    served, serving = _serve_exactly(scores) if partition else _serve(scores, unit)
    values = np.full((len(served), min(max(numbers), useful) + 1), -np.inf)
    values[0] = 0.0
    for tasks in [*range(1, len(served) // 2), len(served) - 1]:
        sets = _subsets(tasks)
        values[tasks, 1:] = (served[sets, None] + values[tasks - sets, :-1]).max(axis=0)
    families = {
        number: _first(served, serving, values[:, : number + 1], unit)
        for number in {min(number, useful) for number in numbers}
    }
    return [families[min(number, useful)] for number in numbers]


def _subsets(tasks: int) -> npt.NDArray[np.intp]:
    """The subsets of a set of tasks that contain its last task."""
    last = 1 << tasks.bit_length() - 1
    return last + np.flatnonzero(np.arange(last, tasks + 1) & ~tasks == 0)


def _serve(scores: Floats, unit: float) -> tuple[Floats, list[_Serving]]:
    """`served[U]` (2**T,) of the equations above, and the groups that reach it within 1000 units.

    For U = {0, 1}, the list keeps a group {0, 1} that loses 3 units and a group {0, 1, 2} that
    loses 0, because the smaller one wins ties. It drops a group {0, 1, 3} that loses 5.
    """
    served = np.full(2 ** scores.shape[1], -np.inf)
    serving: list[_Serving] = [[]] * len(served)
    sizes = (scores > -np.inf).sum(axis=1)

    def visit(tasks: int, first: int, rows: npt.NDArray[np.intp], totals: Floats) -> None:
        served[tasks] = totals.max(initial=-np.inf)
        losses = np.rint((served[tasks] - totals) / unit)
        # In order of size, a group helps only if it loses less than all before it.
        kept = losses < np.minimum.accumulate(np.append(1001.0, losses))[:-1]
        serving[tasks] = np.stack([losses, sizes[rows], rows], 1)[kept].astype(int).tolist()
        for task in range(first, scores.shape[1]):
            sums = totals + scores[rows, task]
            inside = sums > -np.inf
            visit(tasks | 1 << task, task + 1, rows[inside], sums[inside])

    visit(0, 0, np.argsort(sizes, kind="stable"), np.zeros(len(scores)))
    return served, serving


def _serve_exactly(scores: Floats) -> tuple[Floats, list[_Serving]]:
    """As `_serve`, in a partition: a group serves all of its tasks, and no others."""
    members = scores > -np.inf
    sets = members @ (1 << np.arange(scores.shape[1]))
    served = np.full(2 ** scores.shape[1], -np.inf)
    served[sets] = np.where(members, scores, 0.0).sum(axis=1)
    serving: list[_Serving] = [[]] * len(served)
    for row, tasks in enumerate(sets.tolist()):
        serving[tasks] = [(0, tasks.bit_count(), row)]
    return served, serving


def _first(served: Floats, serving: list[_Serving], values: Floats, unit: float) -> list[int]:
    """The first family by the tie rule, out of those within the tolerance of the best.

    It follows the equations above backwards from the set of all tasks. The choices along a way may
    lose 1000 units in sum, the tolerance; `slack` of them remain.
    """

    # Adding the same row to two sorted lists keeps their order. So the first family for a set of
    # tasks consists of a group and the first family for the tasks that the group does not serve.
    @functools.cache
    def search(tasks: int, num_groups: int, slack: float) -> tuple[int, list[int]]:
        sets = _subsets(tasks) if tasks else np.zeros(0, np.intp)
        totals = served[sets] + values[tasks - sets, num_groups - 1]
        losses = np.rint((values[tasks, num_groups] - totals) / unit)
        found: list[tuple[int, list[int]]] = [] if tasks else [(0, [])]
        near = losses <= slack
        for subset, lost in zip(sets[near].tolist(), losses[near].tolist(), strict=True):
            if found and sum(search.cache_info()[:2]) > _MOST_TIE_STEPS:
                break
            for loss, size, row in serving[subset]:
                if lost + loss <= slack:
                    rest = search(tasks - subset, num_groups - 1, slack - lost - loss)
                    found.append((rest[0] + size, sorted([*rest[1], row])))
        return min(found)

    if values[-1, -1] == -np.inf:
        return []
    # The fewest groups that lose no more than the tolerance.
    losses = np.rint((values[-1, -1] - values[-1]) / unit)
    fewest = int((losses <= 1000).argmax())
    return search(len(served) - 1, fewest, 1000.0 - losses[fewest])[1]
