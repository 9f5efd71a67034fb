"""Stability of a grouping: how far the noise of the affinities changes the selection."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tag_keras.affinity import Affinity
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import select_groups
from tag_keras.selection.rules import build_problem
from tag_keras.selection.solvers.problem import Booleans, Floats, GroupProblem
from tag_keras.utils.checks import check_count, check_seed
from tag_keras.utils.replicates import mean_and_error


@dataclasses.dataclass(frozen=True)
class GroupingStability:
    """The selection, repeated for affinities drawn from their noise.

    Args:
        tasks: T task names.
        grouping: The selection for the means.
        share: Array (T, T), symmetric: fraction of the draws in which two tasks have at least one
            group in common; 1 on the diagonal.
        wins: Fraction of the draws that select exactly the groups of `grouping`.
        regret: Mean over the draws of how much less `grouping` scores than the best groups for the
            draw, at least 0. In units of the score.
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
    """Selects groups for affinities drawn from their noise, to see what changes.

    A draw is `mean + standard_error * z`. With replicates, the Gaussian multiplier bootstrap
    (Chernozhukov, Chetverikov and Kato 2013, Annals of Statistics 41) draws the z of all pairs
    together. Let r_b be the replicates of a pair, r their mean, and w_b a standard normal number
    for each replicate, the same for all pairs:

        z = sum_b w_b (r_b - r) / sqrt(sum_b (r_b - r)^2)

    Each z is standard normal, and two z correlate as the replicates of their pairs do: sources of
    one target share the noise of its batches. Without replicates, the z are independent.

    The draws are normal, because with Student's t the expected regret of two runs would not exist.
    So they are too sure of few replicates: in 95 % of cases Student's t stays within 4.3 standard
    errors with 3 replicates, within 2.4 with 8, and the normal within 2.0. To make up for that,
    enlarge `standard_error`. The draws also take the means for true: among equally good groups, the
    ones that the noise of the means puts first win more than their share.

    Args:
        affinity: Affinities with standard errors.
        num_groups: Largest number of groups.
        num_samples: Number of draws. On one core, 200 draws take 4 s for 9 tasks, 40 s for 12,
            5 minutes for 15, and 2 minutes for 20.
        seed: Seed of the draws; the same seed gives the same result.
        **options: Options of `select_groups`, such as `singletons` and `score`.

    Raises:
        ValueError: If an argument is out of range, the standard error of two tasks is NaN, or
            `select_groups` refuses an option.

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
    # An iterator would be empty for the second draw.
    options = {k: list(v) if isinstance(v, Iterator) else v for k, v in options.items()}
    grouping = select_groups(affinity, num_groups, **options)
    unknown = np.isnan(affinity.standard_error) & ~np.eye(len(affinity.tasks), dtype=bool)
    if unknown.any():
        raise ValueError(
            "`affinity` should have standard errors for all pairs of two tasks; measure more "
            "probes, or combine runs by tag_keras.Affinity.combine. Received: "
            f"pairs={affinity.describe_pairs(unknown)!r}."
        )
    share, wins, regret = np.zeros_like(affinity.mean), 0.0, 0.0
    chosen = _members(grouping)
    # Of the options, these two change the score of given groups.
    singletons, score = options.get("singletons", "forbid"), options.get("score", "mean")
    problem = build_problem(affinity, singletons, score=score)
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


def _draw(affinity: Affinity, num_samples: int, generator: np.random.Generator) -> Floats:
    """Draws (N, T, T) of the affinities from their noise, with an unused diagonal of 0."""
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
    return np.array([[task in group for task in grouping.tasks] for group in grouping.groups])


def _score(problem: GroupProblem, members: Booleans) -> float:
    """Mean over the tasks of the best score in groups (G, T)."""
    return float(problem.scores(members).max(axis=0).mean())
