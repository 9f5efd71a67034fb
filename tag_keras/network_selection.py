"""Network selection: from inter-task affinities to the few groups of tasks that share a network."""

import sys
from typing import Literal

import numpy as np
import numpy.typing as npt

from tag_keras.affinity import Affinity
from tag_keras.grouping import Grouping as Grouping
from tag_keras.grouping import check
from tag_keras.selection_solver import choose_groups

_Floats = npt.NDArray[np.float64]
_Rule = Literal["forbid", "baseline"]


def select_groups(affinity: Affinity, num_groups: int, singletons: _Rule = "forbid") -> Grouping:
    """Network selection of TAG (Fifty et al. 2021, arXiv 2109.04617) and Standley et al. 2020.

    A task's score in a group is the mean affinity of the group's other tasks onto it. Of all
    families of at most `num_groups` groups (arXiv 1905.07553) that leave no task out, overlapping
    or not, this finds one with the largest mean over tasks of the best score, and proves it. Ties
    (within 1e-9 of the largest absolute score) go to the fewest groups, then memberships, then the
    first in the order of tasks; of 100,000 and more, the last two rules compare those met first.

    Args:
        affinity: Affinities of up to 15 tasks. The diagonal is not used.
        num_groups: Largest number of groups, which is that of networks to train.
        singletons: `"forbid"` leaves no task alone in a group, as in the paper; `"baseline"` lets
            one alone score 0, which is for affinities measured with `baseline=True` only.

    Returns:
        The best `Grouping`.

    Raises:
        ValueError: If an argument is out of range, or an affinity of two tasks not finite.

    Example:

    ```python
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    grouping = tag_keras.select_groups(tag_keras.Affinity(["a", "b", "c"], mean), num_groups=2)
    grouping.groups  # (("a", "b"), ("a", "c")): "a" helps "c", and is served beside "b"
    ```
    """
    _check_arguments(affinity, num_groups, singletons)
    scores = group_scores(affinity.mean, singletons)
    tolerance = 1e-9 * max(float(np.abs(scores[scores > -np.inf]).max()), 1e-290)
    chosen = scores[choose_groups(scores, num_groups, tolerance)]
    score = float(chosen.max(axis=0).mean())
    serves = (chosen >= chosen.max(axis=0) - tolerance / 1000).argmax(axis=0)
    tasks = np.array(affinity.tasks, dtype=object)
    groups = tuple(tuple(tasks[row > -np.inf]) for row in chosen)
    serving = dict(zip(affinity.tasks, serves.tolist(), strict=True))
    return Grouping(affinity.tasks, groups, serving, score, upper_bound=score, optimal=True)


def _check_arguments(affinity: Affinity, num_groups: int, singletons: _Rule) -> None:
    wanted = "`affinity` should be an Affinity; make one by tag_keras.Affinity(tasks, mean)"
    check(isinstance(affinity, Affinity), wanted, type=type(affinity))
    check(type(num_groups) is int, "`num_groups` should be an integer", num_groups=num_groups)
    check(num_groups >= 1, "`num_groups` should be at least 1", num_groups=num_groups)
    wanted = '`singletons` should be "forbid" or "baseline"'
    check(singletons in ("forbid", "baseline"), wanted, singletons=singletons)
    num_tasks, fewest = len(affinity.tasks), 1 + (singletons == "forbid")
    wanted = f'`affinity` should have {fewest} to 15 tasks with singletons="{singletons}"'
    check(fewest <= num_tasks <= 15, wanted, num_tasks=num_tasks)
    wrong = ~np.isfinite(affinity.mean) & ~np.eye(num_tasks, dtype=bool)
    wanted = "`affinity` should be finite for all pairs of two tasks; measure for more steps"
    check(not wrong.any(), wanted, pairs=affinity.describe_pairs(wrong))


def group_scores(mean: _Floats, singletons: _Rule) -> _Floats:
    """Scores (G, T) of tasks in all groups, sorted by positions; -inf for a task not in it."""
    sets = np.zeros(0, np.intp)
    for bit in 1 << np.arange(len(mean))[::-1]:
        sets = np.concatenate([[bit], sets | bit, sets])
    members = sets[:, None] >> np.arange(len(mean)) & 1
    members = members[members.sum(axis=1) > (singletons == "forbid")]
    partners = np.maximum(members.sum(axis=1, keepdims=True) - 1, 1)
    sums = members @ np.where(np.eye(len(mean), dtype=bool), 0.0, mean)
    return np.where(members == 1, sums / partners, -np.inf)


def main(argv: list[str]) -> int:
    """Selects groups as the flags in `argv` say, and returns the exit status."""
    # Importing this module must not define flags, nor may a second call meet those of the first.
    from absl import flags

    given = flags.FlagValues()
    flags.DEFINE_string("scores", None, "File to read affinities from.", given, required=True)
    flags.DEFINE_integer("num_groups", None, "Largest number.", flag_values=given, required=True)
    flags.DEFINE_string("output", None, "File to write groups to.", given, required=True)
    flags.DEFINE_enum("singletons", "forbid", ["forbid", "baseline"], "Groups of one.", given)
    if "--help" in argv:
        print(given.get_help())
        return 0
    try:
        if unknown := given(argv)[1:]:
            raise flags.Error(f"Unknown arguments: {' '.join(unknown)}")
        grouping = select_groups(Affinity.load(given.scores), given.num_groups, given.singletons)
        grouping.save(given.output)
    except (flags.Error, OSError, ValueError) as error:
        print("network_selection:", str(error).replace("\n", " "), file=sys.stderr)
        return 2 if isinstance(error, flags.Error) else 1
    for index, group in enumerate(grouping.groups):
        served = ", ".join(grouping.served(index))
        print(f"group {index}: {', '.join(group)}; serves {served}")
    print(f"score {grouping.score:.6g}, optimal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
