"""What chance gives: random networks under a budget, the yardstick of a selection."""

from typing import NamedTuple

import numpy as np

from tag_keras.selection.network_rows import Rows
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import Sense, check_budget, losses_of
from tag_keras.selection.solvers.budget_program import COST_TOLERANCE
from tag_keras.selection.solvers.problem import Floats
from tag_keras.utils.checks import check, check_count, check_seed

# Numbers in an array at a time.
_CHUNK = 4_000_000


class RandomScores(NamedTuple):
    """Scores of random choices of networks, each the mean over tasks of the best score.

    Args:
        mean: Mean over the samples.
        worst: The worst of the samples, which is no bound: there may be worse choices.
        num_covering: Number of samples, those that leave no task out.
    """

    mean: float
    worst: float
    num_covering: int


def random_networks(
    table: NetworkTable | Rows,
    budget: float,
    sense: Sense,
    num_samples: int = 10_000,
    seed: int = 0,
) -> RandomScores:
    """Random fillings of the budget, the "random" of Standley et al. 2020 (arXiv 1905.07553).

    Networks are drawn uniformly without replacement, and each that still fits is taken, until none
    does. Fillings that leave a task out are not counted.

    Args:
        table: Measured networks; what `NetworkTable.from_losses` takes will do.
        budget: Largest sum of costs.
        sense: `"min"` for losses, `"max"` for accuracies or affinities.
        num_samples: Number of fillings.
        seed: Of the random numbers.

    Returns:
        Mean and worst score. `select_networks` with the same arguments gives the best.

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
    size = max(1, _CHUNK // max(len(losses), 1))
    found = np.concatenate(
        [
            _fill(losses, table.costs, budget, min(size, num_samples - start), random)
            for start in range(0, num_samples, size)
        ]
    )
    found = found[np.isfinite(found)]
    wanted = f"`budget` should be larger: none of {num_samples} random fillings has every task"
    check(len(found) > 0, wanted, budget=budget)
    sign = 1.0 if sense == "min" else -1.0
    return RandomScores(sign * float(found.mean()), sign * float(found.max()), len(found))


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
