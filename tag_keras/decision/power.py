"""Power: how many seeds show a gain, before they are trained."""

from collections.abc import Iterable

import numpy as np
import scipy.special

from tag_keras.decision.group_losses import estimate_group_losses
from tag_keras.results import Row
from tag_keras.utils.checks import check_number

_MOST_SEEDS = 10_000


def plan_seeds(
    noise: Iterable[Row] | float,
    gain: float = 0.02,
    probability: float = 0.8,
    power: float = 0.8,
    split: str = "validation",
) -> int:
    """The number of seeds with which a true gain is found with a given power.

    Two choices of networks are compared, both trained with R seeds. Their difference in total loss,
    paired by seed, has a deviation s. A one-sided test that finds a gain with confidence
    `probability` finds a true gain g with the power P(t > q), where t has the noncentral Student
    distribution with R - 1 degrees of freedom and noncentrality g sqrt(R) / s, and q is the
    quantile of the central one. (Student's t test; no prior is used, so decisions by the posterior
    of many groups take fewer seeds.)

    Args:
        noise: Results of trained networks with at least two seeds; or the deviation s itself, as a
            share of the total loss.
        gain: The gain to find, as a share of the total loss of the joint network.
        probability: Confidence that is asked for.
        power: Probability of finding the gain.
        split: Split of the rows that counts.

    Returns:
        The least R from 2 on, at most 10,000.

    Raises:
        ValueError: If an argument is out of range, or the rows have one seed.

    Example:

    ```python
    tag_keras.plan_seeds(0.03, gain=0.02)  # 7
    ```
    """
    for name, value in {"probability": probability, "power": power}.items():
        check_number(name, value, "from 0.5 to below 1", lambda share: 0.5 <= share < 1)
    check_number("gain", gain, "a positive share", lambda share: share > 0)
    if isinstance(noise, Iterable):
        deviation = _deviation(noise, split)
    else:
        deviation = check_number("noise", noise, "a share from 0 on", lambda share: share >= 0)
    for number in range(2, _MOST_SEEDS):
        quantile = scipy.special.stdtrit(number - 1, probability)
        noncentrality = gain * number**0.5 / max(deviation, 1e-12)
        if 1 - scipy.special.nctdtr(number - 1, min(noncentrality, 100.0), quantile) >= power:
            return number
    return _MOST_SEEDS


def _deviation(rows: Iterable[Row], split: str) -> float:
    """Deviation over seeds of the difference of two choices, as a share of the joint total."""
    estimate = estimate_group_losses(rows, split=split)
    if estimate.num_seeds < 2:
        raise ValueError(
            "`noise` should have networks with at least two seeds, to tell the noise between them; "
            "or be a number. Received: rows with one seed for each network."
        )
    # Variance of the sum over tasks of noise that has one correlation.
    alone, together = (estimate.noise**2).sum(), estimate.noise.sum() ** 2
    variance = (1 - estimate.correlation) * alone + estimate.correlation * together
    total = abs(estimate.total([estimate.tasks] * len(estimate.tasks)))
    return float(np.sqrt(2 * variance) / max(total, 1e-300))
