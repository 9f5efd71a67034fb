"""How much the chosen groups would change with the noise of the affinities."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import select_groups
from tag_keras.selection.rules import build_problem
from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem
from tag_keras.utils.checks import check, check_count, check_seed
from tag_keras.utils.replicates import mean_and_error


@dataclasses.dataclass(frozen=True)
class GroupingStability:
    """What the selection gives for affinities that might as well have been measured.

    Args:
        tasks: T task names.
        grouping: What is chosen for the means.
        share: Array (T, T), symmetric: fraction of the draws in which the two tasks are in at
            least one common group; 1 on the diagonal.
        wins: Fraction of the draws in which exactly the groups of `grouping` are chosen.
        regret: Mean over the draws of what the score of the best groups for a draw is above that
            of `grouping` for it, at least 0. In units of the score.
        num_samples: Number of draws.
    """

    tasks: tuple[str, ...]
    grouping: Grouping
    share: Floats
    wins: float
    regret: float
    num_samples: int


def grouping_stability(
    affinity: Affinity, num_groups: int, num_samples: int = 200, seed: int = 0, **options: Any
) -> GroupingStability:
    """Selects groups for draws of the affinities from their errors, to see what changes.

    A draw is `mean + standard_error * z`. Where there are replicates, the z of all pairs are drawn
    together, by the Gaussian multiplier bootstrap (Chernozhukov, Chetverikov and Kato 2013, Annals
    of Statistics 41): with r_b the replicates of a pair, r their mean, and w_b standard normal,
    one for each replicate and the same for all pairs,

        z = sum_b w_b (r_b - r) / sqrt(sum_b (r_b - r)^2)

    which is standard normal for each pair, and between two pairs has the correlation that their
    replicates have: sources of one target share the noise of its batches. Elsewhere the pairs are
    independent.

    The draws are normal, not Student's t, for which the expected regret of two runs would not
    exist. They are thus too sure where replicates are few: in 95 % of cases Student's t is within
    4.3 standard errors with 3, 2.4 with 8, and the normal within 2.0. As a remedy, make the
    `standard_error` of `affinity` larger. They also take the means for true: of groups that are
    equally good, those that the noise of the means has put first win more than their share.

    Args:
        affinity: Affinities with standard errors.
        num_groups: Largest number of groups.
        num_samples: Number of draws. On one core, 200 take 4 s for 9 tasks, 40 s for 12,
            5 minutes for 15, 2 for 20.
        seed: Of the random draws; the same seed gives the same result.
        **options: Of `select_groups`, such as `singletons` and `score`, for the means and for every
            draw.

    Returns:
        The `GroupingStability`.

    Raises:
        ValueError: If an argument is out of range, or if the standard error of two tasks is NaN;
            and what `select_groups` raises.

    Example:

    ```python
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    affinity = tag_keras.Affinity(["a", "b", "c"], mean, standard_error=np.full((3, 3), 0.1))
    stability = tag_keras.grouping_stability(affinity, num_groups=2)
    stability.wins  # In this fraction of the draws, ("a", "b") and ("a", "c") are the best groups.
    ```
    """
    num_samples = check_count("num_samples", num_samples)
    check_seed(seed)
    # What can be read only once would be empty for the second draw.
    options = {k: list(v) if isinstance(v, Iterator) else v for k, v in options.items()}
    grouping = select_groups(affinity, num_groups, **options)
    _check_errors(affinity)
    share, wins, regret = np.zeros_like(affinity.mean), 0.0, 0.0
    chosen = _members(grouping)
    # What may be chosen does not matter for the score of what was chosen.
    singletons = options.get("singletons", "forbid")
    score = options.get("score", "mean")
    problem = build_problem(affinity, singletons, False, None, (), (), score)
    for mean in _draw(affinity, num_samples, np.random.default_rng(seed)):
        best = select_groups(Affinity(affinity.tasks, mean), num_groups, **options)
        members = _members(best)
        share += (members.T.astype(np.int64) @ members) > 0
        wins += set(best.groups) == set(grouping.groups)
        drawn = dataclasses.replace(problem, affinity=mean)
        # The groups found may be worse by the tolerance for ties.
        regret += max(_score(drawn, members) - _score(drawn, chosen), 0.0)
    share, wins, regret = share / num_samples, wins / num_samples, regret / num_samples
    return GroupingStability(affinity.tasks, grouping, share, wins, regret, num_samples)


def _check_errors(affinity: Affinity) -> None:
    unknown = np.isnan(affinity.standard_error) & ~np.eye(len(affinity.tasks), dtype=bool)
    wanted = "`affinity` should have standard errors for all pairs of two tasks; measure more "
    wanted += "probes, or combine runs by tag_keras.Affinity.combine"
    check(not unknown.any(), wanted, pairs=affinity.describe_pairs(unknown))


def _draw(affinity: Affinity, num_samples: int, generator: np.random.Generator) -> Floats:
    """Affinities (N, T, T) as their errors make them, 0 on the diagonal, which does not count."""
    replicates = affinity.replicates
    deviations = np.nan_to_num(replicates - mean_and_error(replicates)[0])
    lengths = np.sqrt((deviations**2).sum(axis=0))
    together = generator.normal(size=(num_samples, len(deviations)))
    apart = generator.normal(size=(num_samples, *lengths.shape))
    sums = np.tensordot(together, deviations, axes=1)
    noise = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1.0), apart)
    draws = affinity.mean + affinity.standard_error * noise
    return np.where(np.eye(len(lengths), dtype=bool), 0.0, draws)


def _members(grouping: Grouping) -> Booleans:
    """Boolean array (G, T)."""
    return np.array([[task in group for task in grouping.tasks] for group in grouping.groups])


def _score(problem: GroupProblem, members: Booleans) -> float:
    """Mean over the tasks of the best score among the groups (G, T)."""
    return float(problem.scores(members).max(axis=0).mean())
