"""Power: how many seeds show a gain, before they are trained."""

from collections.abc import Iterable

import numpy as np
import scipy.special

from tag_keras.decision.measured import read_measured
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
        noise: Results of the joint network and of each task alone, with at least two seeds in
            common, which give s roughly: single networks take the place of any other choice. Or s
            itself, as a share of the total loss.
        gain: The gain to find, as a share of the total loss of the joint network.
        probability: Confidence that is asked for.
        power: Probability of finding the gain.
        split: Split of the rows that counts.

    Returns:
        The least R from 2 on; 10,000 if that many do not suffice, either.

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
    if isinstance(noise, Iterable) and not isinstance(noise, str):
        deviation = _deviation(noise, split)
    else:
        deviation = check_number(
            "noise", noise, "rows, or a share from 0 on", lambda share: share >= 0
        )
    for number in range(2, _MOST_SEEDS):
        quantile = scipy.special.stdtrit(number - 1, probability)
        noncentrality = gain * number**0.5 / max(deviation, 1e-12)
        if 1 - scipy.special.nctdtr(number - 1, min(noncentrality, 100.0), quantile) >= power:
            return number
    return _MOST_SEEDS


def _deviation(rows: Iterable[Row], split: str) -> float:
    """Deviation over seeds of the single networks' total less the joint one's, as a share of it."""
    measured = read_measured(rows, split)
    tasks = range(len(measured.tasks))
    # Groups are in the order of their masks: the joint network is the last one.
    alone = [int(np.flatnonzero(measured.masks == 1 << task)[0]) for task in tasks]
    joint, single = measured.losses[-1].sum(axis=1), measured.losses[alone, :, tasks].sum(axis=0)
    differences = (single - joint)[~np.isnan(single - joint)]
    if len(differences) < 2:
        raise ValueError(
            "`noise` should be rows of the joint network and of each task alone with at least two "
            "seeds in common, to tell the noise between them; or a number. Received: "
            f"{len(differences)} such seeds."
        )
    return float(differences.std(ddof=1) / max(abs(float(np.nanmean(joint))), 1e-300))
