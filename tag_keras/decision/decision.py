"""The decision: one joint network, one network per task, or groups, and how sure it is."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tag_keras.decision.group_losses import GroupLosses
from tag_keras.decision.measured import Group
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.networks import select_networks
from tag_keras.utils.checks import check, check_count, check_number

Kind = Literal["joint", "single", "groups"]
_NAMES = {"groups": "{} groups", "single": "One network per task"}
# Between the ends of an interval lie 90 % of the draws.
_ENDS = (0.05, 0.95)


@dataclasses.dataclass(frozen=True)
class Gain:
    """How much less total loss one choice has than another.

    Args:
        mean: Posterior mean, in the unit of the losses.
        interval: The ends of the interval of 90 %, if groups change losses at all.
        probability: Posterior probability that there is a gain at all.
        share: The mean, as a share of the size of the other choice's total loss.
    """

    mean: float
    interval: tuple[float, float]
    probability: float
    share: float


@dataclasses.dataclass(frozen=True)
class Option:
    """A choice of networks, and what it gains.

    Args:
        kind: `"joint"`, `"single"` or `"groups"`.
        grouping: Groups, and the group that serves each task. `score` and `upper_bound` are the
            mean over tasks of the estimated losses.
        over_joint: Gain over the joint network.
        over_yardstick: Gain over the better of the joint network and one network per task, by
            estimated total loss.
        over_fewer: Gain over what would be decided with fewer networks.
    """

    kind: Kind
    grouping: Grouping
    over_joint: Gain
    over_yardstick: Gain
    over_fewer: Gain


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to serve. `decide_groups` makes it.

    Args:
        kind: `"joint"` for one network, `"single"` for one per task, or `"groups"`.
        grouping: Groups, and the group that serves each task.
        gain: Gain over the joint network.
        over_yardstick: Gain over the better of the joint network and one network per task.
        options: The joint network, the best choice of each larger number of networks that has a
            better one, and one network per task: is the next network worth it?
        reason: Why, in a sentence or two.
    """

    kind: Kind
    grouping: Grouping
    gain: Gain
    over_yardstick: Gain
    options: tuple[Option, ...]
    reason: str

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 90 % interval of the gain over the joint network."""
        return self.gain.interval

    @property
    def probability(self) -> float:
        """The posterior probability of a gain over the joint network."""
        return self.gain.probability


def decide_groups(estimate: GroupLosses, num_groups: int, probability: float = 0.8) -> Decision:
    """Decides between one joint network, groups and one network per task, by estimated losses.

    It starts with the joint network. Then it goes through the choices with more networks: the best
    one by estimated total loss for each number up to `num_groups`, and at last one network per
    task, however many that are. It takes a choice that gains, with at least this probability, over
    the joint network and over what it took before. So more networks are served only where they are
    likely to pay, and without evidence the joint network is served.

    Args:
        estimate: Estimated losses.
        num_groups: Largest number of groups, at least 1.
        probability: Least probability of a gain, at least 0.5 and below 1.

    Returns:
        A `Decision`. With one seed there is no evidence: it is for the joint network.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    from tag_keras.results import Row

    measured = {("a", "b"): (0.6, 0.4), ("a",): (0.9,), ("b",): (0.3,)}
    rows = [
        Row("network", group, seed, task, "validation", loss + 0.01 * seed, {}, 60.0, role="group")
        for group, losses in measured.items()
        for seed in range(3)
        for task, loss in zip(group, losses)
    ]
    decision = tag_keras.decide_groups(tag_keras.estimate_group_losses(rows), num_groups=2)
    decision.kind, decision.grouping.groups  # ("groups", (("a", "b"), ("b",)))
    print(decision.reason)
    ```
    """
    check(
        isinstance(estimate, GroupLosses),
        "`estimate` should be what `estimate_group_losses` returns",
        type=type(estimate),
    )
    check_count("num_groups", num_groups)
    check_number("probability", probability, "from 0.5 to below 1", lambda p: 0.5 <= p < 1)
    choices = _choices(estimate, num_groups)
    draws = estimate.draw(choices)
    joint, decided = 0, 0
    yardstick = min((0, len(choices) - 1), key=lambda index: estimate.total(choices[index]))
    options: list[Option] = []
    for index, serves in enumerate(choices):
        gains = [
            _gain(
                estimate.total(choices[other]) - estimate.total(serves),
                estimate.total(choices[other]),
                estimate.total_gain(draws[index], draws[other]),
                estimate.probability_of_effects,
            )
            for other in (joint, yardstick, decided)
        ]
        options.append(_option(estimate, serves, *gains))
        pays = all(gains[other].probability >= probability for other in (0, 2))
        if pays and estimate.num_seeds > 1:
            decided = index
    chosen = options[decided]
    return Decision(
        kind=chosen.kind,
        grouping=chosen.grouping,
        gain=chosen.over_joint,
        over_yardstick=chosen.over_yardstick,
        options=tuple(options),
        reason=_reason(estimate, chosen, options, probability),
    )


def _choices(estimate: GroupLosses, num_groups: int) -> list[list[Group]]:
    """The group that serves each task: the joint network, more and more groups, one per task."""
    tasks, table = estimate.tasks, estimate.table()
    choices: list[list[Group]] = [[tasks] * len(tasks)]
    for number in range(2, min(num_groups, len(tasks)) + 1):
        best = select_networks(table, number, "min")
        choices.append([best.groups[best.serves[task]] for task in tasks])
    choices.append([(task,) for task in tasks])
    return [choice for index, choice in enumerate(choices) if choice not in choices[:index]]


def _option(estimate: GroupLosses, serves: Sequence[Group], *gains: Gain) -> Option:
    tasks = estimate.tasks
    groups = sorted({*serves}, key=lambda group: [tasks.index(task) for task in group])
    kind: Kind = "groups"
    if len(groups) == 1:
        kind = "joint"
    elif all(len(group) == 1 for group in groups):
        kind = "single"
    loss = estimate.total(serves) / len(tasks)
    index = {task: groups.index(group) for task, group in zip(tasks, serves, strict=True)}
    return Option(kind, Grouping(tasks, tuple(groups), index, loss, loss, True), *gains)


def _gain(mean: float, total: float, draws: Array, probability_of_effects: float) -> Gain:
    low, high = np.quantile(draws, _ENDS)
    return Gain(
        mean=mean,
        interval=(float(low), float(high)),
        probability=probability_of_effects * float((draws > 0).mean()),
        share=mean / abs(total) if total else 0.0,
    )


def _reason(
    estimate: GroupLosses, decided: Option, options: Sequence[Option], probability: float
) -> str:
    if estimate.num_seeds < 2:
        return (
            "The joint network: with one seed for each network, the noise between seeds is not "
            "known. Train three seeds or more."
        )
    if decided.kind != "joint":
        gain = decided.over_joint
        scale = 100 * gain.share / gain.mean if gain.mean else 0.0
        low, high = (scale * end for end in gain.interval)
        return (
            f"{_NAMES[decided.kind].format(len(decided.grouping.groups))}: the total loss is "
            f"{100 * gain.share:.1f} % below that of the joint network (90 % interval {low:.1f} to "
            f"{high:.1f} %), with a probability of a gain of {gain.probability:.2f}."
        )
    best = max((option.over_joint.probability for option in options[1:]), default=0.0)
    return (
        "The joint network: no other choice is better than it with a probability of "
        f"{probability:g} or more. The highest is {best:.2f}."
    )
