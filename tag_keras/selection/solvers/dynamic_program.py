"""The exact choice of a few groups out of many: a dynamic program over sets of served tasks."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
# Of a group: its loss in units, its size, its row.
_Serving = list[tuple[int, int, int]]
# Calls of the search among ties, each well under a millisecond, after which the first family of
# those found so far is taken.
_TIE_STEPS = 200_000


# A family's value, the sum over tasks of the best score, is the largest sum over the ways to part
# the tasks into sets, one set served by each group. With sets of tasks as bits of an index,
#   served[U] = largest sum of the scores of U in a group that contains U, with helpers or without;
#   values[T, k] = value of the best k groups for T = max of served[U] + values[T - U, k - 1] over
# the U in T with the last task of T: any order of the groups will do. So only all have the last.
def choose_families(
    scores: _Floats, numbers: Sequence[int], tolerance: float, partition: bool = False
) -> list[list[int]]:
    """Rows of `scores` (G, T) that make the best family, for each of the numbers of groups.

    One table serves all numbers; its time grows like 3**T.

    Args:
        scores: Scores of tasks in groups, -inf for a task that is not in the group.
        numbers: Largest numbers of groups.
        tolerance: Difference of two means over tasks below which families are tied.
        partition: Whether the groups may not overlap.

    Returns:
        Rows in increasing order by number; none for a number that cannot cover all tasks.
    """
    # The groups that are best for some task leave nothing to gain for more.
    useful = scores.shape[1] if partition else len(set(scores.argmax(axis=0)))
    # Losses count thousandths of a sum's tolerance, which makes those of rounding zero.
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
    """The subsets of a set of tasks, not empty, that have its last task."""
    last = 1 << tasks.bit_length() - 1
    return last + np.flatnonzero(np.arange(last, tasks + 1) & ~tasks == 0)


def _serve(scores: _Floats, unit: float) -> tuple[_Floats, list[_Serving]]:
    """`served[U]` of the equations above, and the groups that reach it, or nearly.

    Returns:
        Array (2**T,), and for each set U a list of (loss against `served[U]` in units, size of the
        group, row of the group). With a tolerance of 1000 units, groups {0, 1} that lose 3 units
        and {0, 1, 2} that lose 0 are both kept for U = {0, 1}: the smaller one wins ties. A group
        {0, 1, 3} that loses 5 is not, because it is neither smaller nor better.
    """
    served = np.full(2 ** scores.shape[1], -np.inf)
    serving: list[_Serving] = [[]] * len(served)
    sizes = (scores > -np.inf).sum(axis=1)

    def visit(tasks: int, first: int, rows: npt.NDArray[np.intp], totals: _Floats) -> None:
        served[tasks] = totals.max(initial=-np.inf)
        losses = np.rint((served[tasks] - totals) / unit)
        # Of the groups in order of size, one is of use if it loses less than all before it.
        kept = losses < np.minimum.accumulate(np.append(1001.0, losses))[:-1]
        serving[tasks] = np.stack([losses, sizes[rows], rows], 1)[kept].astype(int).tolist()
        for task in range(first, scores.shape[1]):
            sums = totals + scores[rows, task]
            inside = sums > -np.inf
            visit(tasks | 1 << task, task + 1, rows[inside], sums[inside])

    visit(0, 0, np.argsort(sizes, kind="stable"), np.zeros(len(scores)))
    return served, serving


def _serve_exactly(scores: _Floats) -> tuple[_Floats, list[_Serving]]:
    """As `_serve` where a group serves all its members, and no other group has any of them."""
    members = scores > -np.inf
    sets = members @ (1 << np.arange(scores.shape[1]))
    served = np.full(2 ** scores.shape[1], -np.inf)
    served[sets] = np.where(members, scores, 0.0).sum(axis=1)
    serving: list[_Serving] = [[]] * len(served)
    for row, tasks in enumerate(sets.tolist()):
        serving[tasks] = [(0, tasks.bit_count(), row)]
    return served, serving


def _first(served: _Floats, serving: list[_Serving], values: _Floats, unit: float) -> list[int]:
    """Of the families within the tolerance of the best, the one that the tie rule puts first.

    It follows the equations above backwards, from all tasks, along every choice that does not lose
    more than what is left of the 1000 units of the tolerance (`slack`): a choice that loses 300
    leaves 700 for the rest.
    """

    # One more row put into two sorted lists keeps their order, so that the first family for some
    # tasks is made of a group and of the first family for what the group leaves.
    @functools.cache
    def search(tasks: int, num_groups: int, slack: float) -> tuple[int, list[int]]:
        sets = _subsets(tasks) if tasks else np.zeros(0, np.intp)
        totals = served[sets] + values[tasks - sets, num_groups - 1]
        losses = np.rint((values[tasks, num_groups] - totals) / unit)
        found: list[tuple[int, list[int]]] = [] if tasks else [(0, [])]
        near = losses <= slack
        for subset, lost in zip(sets[near].tolist(), losses[near].tolist(), strict=True):
            if found and sum(search.cache_info()[:2]) > _TIE_STEPS:
                break
            for loss, size, row in serving[subset]:
                if lost + loss <= slack:
                    rest = search(tasks - subset, num_groups - 1, slack - lost - loss)
                    found.append((rest[0] + size, sorted([*rest[1], row])))
        return min(found)

    if values[-1, -1] == -np.inf:
        return []
    # What it loses to take fewer groups; the fewest that lose too little to count are taken.
    losses = np.rint((values[-1, -1] - values[-1]) / unit)
    fewest = int((losses <= 1000).argmax())
    return search(len(served) - 1, fewest, 1000.0 - losses[fewest])[1]
