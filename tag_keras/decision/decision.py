"""The decision: one joint network, one network per task, or groups, and how sure it is."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tag_keras.decision.group_losses import MOST_TASKS, GroupLosses
from tag_keras.decision.measured import Group
from tag_keras.results import Array
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.network_table import NetworkTable
from tag_keras.selection.networks import select_networks
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.utils.checks import check, check_bool, check_count, check_number
from tag_keras.utils.frames import data_frame

Kind = Literal["joint", "single", "groups"]
_NAMES = {"groups": "{} groups", "single": "One network per task"}
# Between the ends of an interval lie 90 % of the draws.
_ENDS = (0.05, 0.95)
# A larger gain, as a share, is over a loss near 0.
_MOST_SHARE = 2.0
# Fewer networks than one per task may have so much more of the total loss.
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

    def as_text(self) -> tuple[str, str]:
        """Mean and interval in percent of the other's loss, or in its unit where that is near 0."""
        low, high = self.interval
        if abs(self.share) > _MOST_SHARE or not self.mean:
            return f"{self.mean:.3g}", f"{low:.3g} to {high:.3g}"
        scale = 100 * self.share / self.mean
        return f"{100 * self.share:.1f} %", f"{scale * low:.1f} to {scale * high:.1f} %"


@dataclasses.dataclass(frozen=True)
class Option:
    """A choice of networks, and what it gains.

    Args:
        kind: `"joint"`, `"single"` or `"groups"`.
        grouping: Groups, and the group that serves each task. `score` and `upper_bound` are the
            mean over tasks of the estimated losses.
        over_joint: Gain over the joint network.
        over_yardstick: Gain over the better of the joint network and one network per task.
        over_fewer: Gain over what would be decided with fewer networks.
        over_decided: Gain over what is decided.
    """

    kind: Kind
    grouping: Grouping
    over_joint: Gain
    over_yardstick: Gain
    over_fewer: Gain
    over_decided: Gain


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

    @property
    def best_chance(self) -> float:
        """The largest posterior probability that another option is better than what is decided."""
        return max(option.over_decided.probability for option in self.options)

    def to_frame(self) -> Any:
        """The options as a `pandas.DataFrame`: one row for each.

        Returns:
            A frame with the columns `kind`, `networks` (their number), `groups`, `loss` (the
            estimated total loss) and `is_decided`, and four columns for each of the gains
            `over_joint`, `over_yardstick`, `over_fewer` and `over_decided`: `<gain>_mean`,
            `<gain>_low`, `<gain>_high` and `<gain>_probability`, as in `Gain`.

        Raises:
            ImportError: If there is no pandas: `pip install "tag_keras[tools]"`.

        Example:

        ```python
        frame = decision.to_frame()
        frame[["networks", "over_joint_mean", "over_joint_probability", "is_decided"]]
        ```
        """
        chosen = self.grouping.groups
        columns: dict[str, list[Any]] = {
            "kind": [option.kind for option in self.options],
            "networks": [len(option.grouping.groups) for option in self.options],
            "groups": [option.grouping.groups for option in self.options],
            "loss": [option.grouping.score * len(option.grouping.tasks) for option in self.options],
            "is_decided": [option.grouping.groups == chosen for option in self.options],
        }
        for name in ("over_joint", "over_yardstick", "over_fewer", "over_decided"):
            gains = [getattr(option, name) for option in self.options]
            columns[f"{name}_mean"] = [gain.mean for gain in gains]
            columns[f"{name}_low"] = [gain.interval[0] for gain in gains]
            columns[f"{name}_high"] = [gain.interval[1] for gain in gains]
            columns[f"{name}_probability"] = [gain.probability for gain in gains]
        return data_frame(columns)


def decide_groups(
    estimate: GroupLosses,
    num_groups: int,
    probability: float = 0.8,
    only_measured: bool = False,
) -> Decision:
    """Decides between one joint network, groups and one network per task, by estimated losses.

    First, the better yardstick: the joint network, or one network per task, however many these
    are, if it is more likely to have less total loss, given that groups differ at all. Then the
    best groups by estimated total loss, for each number up to `num_groups`: they are
    served if they gain over the joint network and over fewer groups with at least `probability`,
    and, where one network per task is the better yardstick, are no more than 0.5 % worse than it
    with the same probability. So groups are never served without evidence.

    Args:
        estimate: Estimated losses.
        num_groups: Largest number of groups, at least 1.
        probability: Least probability of a gain, at least 0.5 and below 1.
        only_measured: Whether to choose among the groups that were trained.

    Returns:
        A `Decision`. With one seed there is no evidence for groups: it is for a yardstick.

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
    check_probability(probability)
    check_bool("only_measured", only_measured)
    losses = estimate.mean
    if only_measured:
        losses = np.where(estimate.is_measured[:, None], losses, np.nan)
    choices = best_choices(estimate, num_groups, losses)
    draws = estimate.draw(choices)

    def gain(index: int, over: int) -> Gain:
        return _gain(estimate, choices[index], choices[over], draws[index], draws[over])

    def worse(index: int, over: int, tolerance: float) -> float:
        """Probability that a choice is worse by more than a tolerance, if groups differ at all."""
        gains = _draws_of_gain(estimate, choices[index], choices[over], draws[index], draws[over])
        return float((gains < -tolerance * abs(estimate.total(choices[over]))).mean())

    joint, single = 0, len(choices) - 1
    yardstick = single if worse(joint, single, 0.0) > 0.5 else joint
    fewer, decided, gains = joint, yardstick, []
    for index in range(len(choices)):
        gains.append([gain(index, over) for over in (joint, yardstick, fewer)])
        enough = all(gains[index][over].probability >= probability for over in (0, 2))
        if estimate.num_seeds > 1 and enough and index != single:
            fewer = index
            risk = estimate.probability_of_effects * worse(index, single, _TOLERANCE)
            if yardstick == joint or risk <= 1 - probability:
                decided = index
    options = [
        _option(estimate, serves, *gains[index], gain(index, decided))
        for index, serves in enumerate(choices)
    ]
    chosen = options[decided]
    return Decision(
        kind=chosen.kind,
        grouping=chosen.grouping,
        gain=chosen.over_joint,
        over_yardstick=chosen.over_yardstick,
        options=tuple(options),
        reason=_reason(estimate, chosen, options, probability),
    )


def check_probability(probability: float) -> None:
    """Checks the least probability of a gain."""
    check_number("probability", probability, "from 0.5 to below 1", lambda p: 0.5 <= p < 1)


def best_choices(estimate: GroupLosses, num_groups: int, losses: Array) -> list[list[Group]]:
    """The joint network, the best groups for each number of networks, and one network per task.

    Args:
        estimate: Tasks and groups.
        num_groups: Largest number of groups.
        losses: Array (M, T): losses to choose by; NaN where the task is not in the group, or the
            group is not to be chosen.

    Returns:
        Different choices. Each has, by task, the group that serves it.
    """
    tasks = estimate.tasks
    rows = np.flatnonzero(~np.isnan(losses).all(axis=1))
    groups, losses = [estimate.groups[row] for row in rows], losses[rows]
    choices: list[list[Group]] = [[tasks] * len(tasks)]
    numbers = range(2, min(num_groups, len(tasks)) + 1)
    for family in _families(tasks, groups, losses, numbers):
        best = np.nanargmin(losses[family], axis=0)
        choices.append([groups[family[index]] for index in best])
    choices.append([(task,) for task in tasks])
    return [choice for index, choice in enumerate(choices) if choice not in choices[:index]]


def _families(
    tasks: Group, groups: Sequence[Group], losses: Array, numbers: Sequence[int]
) -> list[list[int]]:
    """For each number of networks, the rows of the groups with the least sum of losses (M, T)."""
    if len(tasks) > MOST_TASKS:
        # There are few groups then.
        table = NetworkTable(tasks, groups, losses)
        return [list(select_networks(table, number, "min").networks) for number in numbers]
    # Less than this is no difference between losses.
    tolerance = 1e-9 * float(np.nanmax(np.abs(losses))) or 1e-290
    scores = np.where(np.isnan(losses), -np.inf, -losses)
    return choose_families(scores, numbers, tolerance) if numbers else []


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
    if len(estimate.tasks) == 1:
        return "One task: its network, as there is nothing to share."
    if estimate.num_seeds < 2:
        name = "The joint network" if decided.kind == "joint" else _NAMES[decided.kind]
        return (
            f"{name}, by one seed for each network: the noise between seeds is not known, so that "
            "no groups can be told from it. Train three seeds or more."
        )
    if decided.kind != "joint":
        name = _NAMES[decided.kind].format(len(decided.grouping.groups))
        mean, interval = decided.over_joint.as_text()
        text = (
            f"{name}: the total loss is {mean} below that of the joint network (90 % interval "
            f"{interval}), with a probability of a gain of {decided.over_joint.probability:.2f}."
        )
        if (alike := 1 - estimate.probability_of_effects) > 1 - _ENDS[1]:
            text += (
                " The interval is for networks that differ in more than noise; with a probability "
                f"of {alike:.2f} they do not."
            )
        return text
    chances = [option.over_joint.probability for option in options if option.kind == "groups"]
    text = "The joint network: one network per task is not likely to be better"
    if not chances:
        return f"{text}."
    return (
        f"{text}, and no groups are with a probability of {probability:g} or more; the highest is "
        f"{int(100 * max(chances)) / 100:.2f}."
    )
