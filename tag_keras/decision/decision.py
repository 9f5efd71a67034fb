"""The decision: one joint network, one network per task, or groups, and how sure it is."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tag_keras.decision.group_losses import GroupLosses
from tag_keras.decision.measured import Group
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.utils.checks import check, check_count, check_number

Kind = Literal["joint", "single", "groups"]
_NAMES = {"groups": "{} groups", "single": "One network per task"}
# Between the ends of an interval lie 90 % of the draws.
_ENDS = (0.05, 0.95)
# Groups are fewer networks than one per task. They may have so much more of the total loss.
_TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True)
class Gain:
    """How much less total loss one choice has than another.

    Args:
        mean: Posterior mean, in the unit of the losses.
        interval: The ends of the interval of 90 %, if groups are not all alike.
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
        options: The joint network, the best groups for each larger number of networks, where these
            differ, and one network per task. They say whether the next network is worth it.
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

    The joint network is served unless something else is likely to be better: one network per task,
    however many these are, if it gains over the joint network with at least this probability; or
    the best groups by estimated total loss for some number up to `num_groups`, if they gain over
    the joint network and over fewer groups with at least this probability. Where one network per
    task would be served otherwise, groups must also be no more than 0.5 % worse, with the same
    probability. It was not picked out of many, so that its probability is the one given that
    groups differ at all; of groups, it counts that they may all be alike. So without evidence the
    joint network is served.

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

    def gain(index: int, over: int) -> Gain:
        return _gain(estimate, choices[index], choices[over], draws[index], draws[over])

    def no_worse(index: int, over: int) -> float:
        """Probability that a choice is worse than another by no more than half a percent."""
        gains = _draws_of_gain(estimate, choices[index], choices[over], draws[index], draws[over])
        worse = (gains < -_TOLERANCE * abs(estimate.total(choices[over]))).mean()
        return 1 - estimate.probability_of_effects * float(worse)

    joint, single = 0, len(choices) - 1
    yardstick = min((joint, single), key=lambda index: estimate.total(choices[index]))
    effects, several = max(estimate.probability_of_effects, 1e-300), estimate.num_seeds > 1
    # It was not picked out of many: given that groups differ at all, its gain is no chance find.
    base = single if several and gain(single, joint).probability >= probability * effects else joint
    fewer, decided, options = joint, base, []
    for index, serves in enumerate(choices):
        gains = [gain(index, over) for over in (joint, yardstick, fewer)]
        options.append(_option(estimate, serves, *gains))
        enough = all(gains[over].probability >= probability for over in (0, 2))
        if several and enough and index != single:
            fewer = index
            if base == joint or no_worse(index, single) >= probability:
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
    tasks, mean = estimate.tasks, estimate.mean
    choices: list[list[Group]] = [[tasks] * len(tasks)]
    # Less than this is no difference between losses.
    tolerance = 1e-9 * float(np.nanmax(np.abs(mean))) or 1e-290
    scores = np.where(np.isnan(mean), -np.inf, -mean)
    numbers = range(2, min(num_groups, len(tasks)) + 1)
    for family in choose_families(scores, numbers, tolerance) if numbers else []:
        best = scores[family].argmax(axis=0)
        choices.append([estimate.groups[family[index]] for index in best])
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


def _gain(
    estimate: GroupLosses,
    serves: Sequence[Group],
    over: Sequence[Group],
    draws: Array,
    draws_over: Array,
) -> Gain:
    gains = _draws_of_gain(estimate, serves, over, draws, draws_over)
    total = estimate.total(over)
    mean, probability = total - estimate.total(serves), estimate.probability_of_effects
    # Draws of 0, where all groups are alike, would only narrow it.
    low, high = np.quantile(gains, _ENDS)
    return Gain(
        mean=mean,
        interval=(float(low), float(high)),
        probability=probability * float((gains > 0).mean()),
        share=mean / abs(total) if total else 0.0,
    )


def _draws_of_gain(
    estimate: GroupLosses,
    serves: Sequence[Group],
    over: Sequence[Group],
    draws: Array,
    draws_over: Array,
) -> Array:
    correlation = estimate.noise_correlation(serves, over)
    deviation = estimate.sampling_deviation(serves, over)
    return estimate.total_gain(draws, draws_over, correlation, deviation)


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
        f"{probability:g} or more. The highest is {int(100 * best) / 100:.2f}."
    )
