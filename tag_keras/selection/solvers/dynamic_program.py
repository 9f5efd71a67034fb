"""The exact choice of a few groups out of many: a dynamic program over sets of served tasks."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from tag_keras.selection.solvers.problem import Floats, Rows

# The groups that serve a set of tasks: the loss of each in units, its size, its row.
_Serve = Callable[[int], list[tuple[int, int, int]]]
# After so many calls of the search among ties, each under a millisecond, the first so far wins.
_MOST_TIE_STEPS = 200_000
# So many tasks are parted in all ways at once, and so many numbers are in one array.
_TOGETHER, _LARGEST_ARRAY = 10, 2**19


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
        scores: Scores (G, T) of tasks in different groups, -inf for a task outside of the group.
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
    members = scores > -np.inf
    sets = members @ (1 << np.arange(scores.shape[1]))
    if partition:
        # A group serves all of its tasks, and no others.
        served = np.full(2 ** scores.shape[1], -np.inf)
        served[sets] = np.where(members, scores, 0.0).sum(axis=1)
    else:
        served = _serve(scores, sets)
    values = _values(served, min(max(numbers), useful))
    serving = _serving(scores, sets, served, unit, partition)
    first = _first(served, serving, values, unit)
    families = {number: first(number) for number in {min(number, useful) for number in numbers}}
    return [families[min(number, useful)] for number in numbers]


def _serve(scores: Floats, sets: Rows) -> Floats:
    """`served` (2**T,) of the equations above, for groups that are the `sets` (G,)."""
    number = scores.shape[1]
    first = max(number - _TOGETHER, 0)
    table = np.full((2**number, number), -np.inf)
    table[sets] = scores
    # Axes: which of the first tasks the group has, which of the others, and whose score it is.
    table = table.reshape(2 ** (number - first), 2**first, number).swapaxes(0, 1)
    # All pairs of others that are served, and others in the group.
    others = np.arange(2 ** (number - first))
    inside, groups = np.nonzero(others[:, None] & others == others[:, None])
    starts = np.flatnonzero(np.diff(inside, prepend=-1))
    sums = np.zeros((2**first, len(groups)))
    for task in range(first, number):
        pairs = np.flatnonzero(inside >> task - first & 1)
        sums[:, pairs] += table[:, groups[pairs], task]
    served = np.empty((2 ** (number - first), 2**first))
    for part in range(2**first):
        rows = np.flatnonzero(np.arange(2**first) & part == part)
        tasks = [task for task in range(first) if part >> task & 1]
        totals = sums[rows] + table[rows][:, :, tasks].sum(axis=2)[:, groups]
        served[:, part] = np.maximum.reduceat(totals.max(axis=0), starts)
    return served.ravel()


def _values(served: Floats, most: int) -> Floats:
    """`values` (2**T, most + 1) of the equations above, for many sets of one size at once."""
    values = np.full((len(served), most + 1), -np.inf)
    values[0] = 0.0
    number = len(served).bit_length() - 1
    sets = np.append(np.arange(1, len(served) // 2), len(served) - 1)
    members = sets[:, None] >> np.arange(number) & 1
    for size in range(1, number + 1):
        rows = np.flatnonzero(members.sum(axis=1) == size)
        for part in np.array_split(rows, -(-len(rows) * 2**size * most // _LARGEST_ARRAY)):
            bits = 1 << np.nonzero(members[part])[1].reshape(-1, size)
            subsets = bits[:, -1:]
            for bit in bits.T[:-1]:
                subsets = np.concatenate([subsets, subsets | bit[:, None]], axis=1)
            rest = values[sets[part, None] - subsets, :-1]
            values[sets[part], 1:] = (served[subsets, None] + rest).max(axis=1)
    return values


def _serving(scores: Floats, sets: Rows, served: Floats, unit: float, partition: bool) -> _Serve:
    """Gives the groups that reach `served` within 1000 units.

    For the tasks {0, 1}, these are a group {0, 1} that loses 3 units and a group {0, 1, 2} that
    loses 0, because the smaller one wins ties; not a group {0, 1, 3} that loses 5.
    """
    sizes = (scores > -np.inf).sum(axis=1)
    by_size = np.argsort(sizes, kind="stable")
    places = np.full(len(served), len(sets))
    places[sets[by_size]] = np.arange(len(sets))

    @functools.cache
    def serving(tasks: int) -> list[tuple[int, int, int]]:
        larger = np.array([tasks]) if partition else tasks + _subsets(len(served) - 1 - tasks)
        rows = by_size[np.sort(places[larger])[: np.count_nonzero(places[larger] < len(sets))]]
        inside = [task for task in range(scores.shape[1]) if tasks >> task & 1]
        losses = np.rint((served[tasks] - scores[np.ix_(rows, inside)].sum(axis=1)) / unit)
        # In order of size, a group helps only if it loses less than all before it.
        kept = losses < np.minimum.accumulate(np.append(1001.0, losses))[:-1]
        columns = (losses[kept].astype(int), sizes[rows[kept]], rows[kept])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    return serving


def _subsets(tasks: int) -> Rows:
    """All subsets of a set of tasks, in increasing order."""
    subsets = np.zeros(1, np.intp)
    for task in range(tasks.bit_length()):
        if tasks >> task & 1:
            subsets = np.concatenate([subsets, subsets + (1 << task)])
    return subsets


def _first(
    served: Floats, serving: _Serve, values: Floats, unit: float
) -> Callable[[int], list[int]]:
    """Gives the first family of up to so many groups by the tie rule; [] if there is none.

    Its mean is within the tolerance of the best. The search follows the equations above backwards
    from the set of all tasks. The choices along a way may lose 1000 units in sum, the tolerance;
    `slack` of them remain.
    """

    limit = 0

    # Adding the same row to two sorted lists keeps their order. So the first family for a set of
    # tasks consists of a group and the first family for the tasks that the group does not serve.
    @functools.cache
    def search(tasks: int, num_groups: int, slack: float) -> tuple[int, list[int]]:
        if not tasks:
            return 0, []
        last = 1 << tasks.bit_length() - 1
        sets = last + _subsets(tasks - last)
        totals = served[sets] + values[tasks - sets, num_groups - 1]
        losses = np.rint((values[tasks, num_groups] - totals) / unit)
        found: list[tuple[int, list[int]]] = []
        near = losses <= slack
        for subset, lost in zip(sets[near].tolist(), losses[near].tolist(), strict=True):
            if found and sum(search.cache_info()[:2]) > limit:
                break
            for loss, size, row in serving(subset):
                if lost + loss <= slack:
                    rest = search(tasks - subset, num_groups - 1, slack - lost - loss)
                    found.append((rest[0] + size, sorted([*rest[1], row])))
        return min(found)

    def first(number: int) -> list[int]:
        nonlocal limit
        limit = sum(search.cache_info()[:2]) + _MOST_TIE_STEPS
        reached = values[-1, : number + 1]
        if reached[-1] == -np.inf:
            return []
        # The fewest groups that lose no more than the tolerance.
        losses = np.rint((reached[-1] - reached) / unit)
        fewest = int((losses <= 1000).argmax())
        return search(len(served) - 1, fewest, 1000.0 - losses[fewest])[1]

    return first
