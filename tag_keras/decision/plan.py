"""Plan: which groups to train next, because they may be better than those that were trained."""

import numpy as np

from tag_keras.decision.decision import best_choices
from tag_keras.decision.group_losses import GroupLosses
from tag_keras.decision.measured import Group

# How many standard errors better than estimated a loss may be, in the order of looking.
_OPTIMISM = (0.0, 0.5, 1.0, 2.0)


def next_groups(estimate: GroupLosses, num_groups: int, number: int) -> list[Group]:
    """The groups to train next: those that may be the best.

    First come the groups of the best choices by estimated loss, then those of the best choices if
    every loss were half a standard error lower, then one, then two (an upper confidence bound; Auer
    2002, Journal of Machine Learning Research 3). Of groups that were trained the estimate is
    surer, and so others come to the front. Last come all others, those first whose losses, one
    standard error lower, are furthest below the joint network's.

    Args:
        estimate: Estimated losses.
        num_groups: Largest number of groups of a choice.
        number: Largest number of groups to return.

    Returns:
        Groups that were not trained, the most promising first.
    """
    error = np.where(np.isinf(estimate.standard_error), 0.0, estimate.standard_error)
    found: dict[Group, None] = {}
    for optimism in _OPTIMISM:
        for serves in best_choices(estimate, num_groups, estimate.mean - optimism * error):
            found |= dict.fromkeys(serves)
    # The joint network is the last group.
    gains = np.nansum(estimate.mean[-1] - (estimate.mean - error), axis=1)
    found |= dict.fromkeys(estimate.groups[row] for row in np.argsort(-gains, kind="stable"))
    measured = zip(estimate.groups, estimate.is_measured, strict=True)
    trained = {group for group, is_measured in measured if is_measured}
    return [group for group in found if group not in trained][:number]
