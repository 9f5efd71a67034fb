"""Random networks under a budget: the yardstick for a selection."""

from typing import NamedTuple

import numpy as np

from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import Sense, check_budget, losses_of
from tag_keras.selection.solvers.budget_program import COST_TOLERANCE
from tag_keras.selection.solvers.problem import Floats
from tag_keras.selection.table_inputs import LossesByHand
from tag_keras.utils.checks import check_count, check_seed

# Samples are drawn in parts whose arrays hold at most so many numbers.
_LARGEST_ARRAY = 4_000_000


class RandomScores(NamedTuple):
    """Scores of random choices of networks, each the mean over tasks of the best score.

    Args:
        mean: Mean over the samples.
        worst: Worst of the samples; there may be worse choices.
        num_covering: Number of samples that cover all tasks; only these count.
    """

    mean: float
    worst: float
    num_covering: int


def random_networks(
    table: NetworkTable | LossesByHand,
    budget: float,
    sense: Sense,
    num_samples: int = 10_000,
    seed: int = 0,
) -> RandomScores:
    """Random fillings of the budget, the "random" of Standley et al. 2020 (arXiv 1905.07553).

    A filling draws networks uniformly without replacement and takes each one that still fits, until
    none does. Fillings that leave a task out do not count.

    Args:
        table: Measured networks, or anything that `NetworkTable.from_losses` takes.
        budget: Largest sum of costs.
        sense: `"min"` for losses, `"max"` for accuracies or affinities.
        num_samples: Number of fillings.
        seed: Seed of the draws; the same seed gives the same result.

    Returns:
        Mean and worst score. `select_networks` gives the best under the same budget.

    Raises:
        ValueError: If an argument is out of range, or if no filling has every task.

    Example:

    ```python
    table = tag_keras.NetworkTable.from_losses([{"a": 0.3}, {"b": 0.2}, {"a": 0.5, "b": 0.6}])
    tag_keras.random_networks(table, budget=2, sense="min").worst  # 0.45: "b" shares
    ```
    """
    if not isinstance(table, NetworkTable):
        table = NetworkTable.from_losses(table)
    check_budget(table, budget, sense)
    num_samples = check_count("num_samples", num_samples)
    check_seed(seed)
    losses = losses_of(table, sense)
    random = np.random.default_rng(seed)
    size = max(1, _LARGEST_ARRAY // len(losses))
    parts = [
        _fill(losses, table.costs, budget, min(size, num_samples - start), random)
        for start in range(0, num_samples, size)
    ]
    means = np.concatenate(parts)
    means = means[np.isfinite(means)]
    if not len(means):
        raise ValueError(
            f"`budget` should be larger: none of {num_samples} random fillings has every task. "
            f"Received: budget={budget!r}."
        )
    sign = 1.0 if sense == "min" else -1.0
    return RandomScores(sign * float(means.mean()), sign * float(means.max()), len(means))


def _fill(
    losses: Floats, costs: Floats, budget: float, num_samples: int, random: np.random.Generator
) -> Floats:
    """Mean losses (S,) of random fillings, inf where a task is left out."""
    left = np.full(num_samples, float(budget))
    best = np.full((num_samples, losses.shape[1]), np.inf)
    # A permutation is the order of drawing; what does not fit when drawn never will.
    drawn = random.permuted(np.tile(np.arange(len(losses)), (num_samples, 1)), axis=1)
    for networks in drawn.T:
        fits = costs[networks] <= left + budget * COST_TOLERANCE
        left[fits] -= costs[networks[fits]]
        best[fits] = np.minimum(best[fits], losses[networks[fits]])
        if left.max() < costs.min() - budget * COST_TOLERANCE:
            break
    means: Floats = best.mean(axis=1)
    return means
