"""Rules that choose which network serves each task, out of what was measured.

A rule is a function of what was measured and of the largest number of networks. It returns, for
each task, the row of the group that serves it: the group with the bit mask m has the row m - 1. It
never sees test losses, nor the seeds that judge it:

    def joint(measured, num_networks):
        return [len(measured.groups) - 1] * len(measured.tasks)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.truth.tables import Floats, Table
from tag_keras.affinity import Affinity
from tag_keras.decision.decision import decide_groups
from tag_keras.decision.group_losses import GroupLosses
from tag_keras.decision.measured import MeasuredLosses, mask_of
from tag_keras.results import Row, single_name
from tag_keras.selection.anchoring import anchor_affinity
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.groups import select_groups
from tag_keras.selection.solvers.dynamic_program import choose_families

Serving = Sequence[int]
# Number of joint trainings whose mean affinities `experiment.run` takes.
_MEASURING = 3


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a rule may look at: losses of all M groups of T tasks, with R seeds.

    Args:
        tasks: Names of the T tasks.
        groups: Array (M,): bit masks of the groups, 1 to M.
        validation: Array (R, M, T): validation losses, NaN where the task is not in the group.
        early: Array (R, M, T): validation losses after a fifth of the training.
        parts: Array (F, M, T): validation losses on F equal parts of the data. They are means over
            all seeds, also those that judge, and tell only how gains differ between the parts.
        affinities: By estimator, arrays (R, T, T) [source, target] of R joint trainings.
    """

    tasks: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    validation: Floats
    early: Floats
    parts: Floats
    affinities: Mapping[str, Floats]

    @classmethod
    def of(cls, table: Table, seeds: Sequence[int]) -> "Measured":
        """What a table says of some of its seeds, given by their places."""
        rows = list(seeds)
        affinities = {name: values[rows] for name, values in table.affinities.items()}
        losses = table.validation[rows], table.early[rows], table.folds
        return cls(table.tasks, table.groups, *losses, affinities)

    @functools.cached_property
    def estimate(self) -> GroupLosses:
        """The estimate by the losses of all groups."""
        return estimated(self, range(len(self.groups)))

    @property
    def joint(self) -> list[int]:
        """The joint network, for each task."""
        return [len(self.groups) - 1] * len(self.tasks)

    @property
    def single(self) -> list[int]:
        """For each task, the network of its own."""
        return [(1 << task) - 1 for task in range(len(self.tasks))]

    def total(self, serving: Serving) -> float:
        """Total validation loss of a choice, mean over the seeds."""
        return float(self.validation[:, serving, range(len(serving))].sum(axis=1).mean())


Rule = Callable[[Measured, int], Serving]


def joint(measured: Measured, num_networks: int) -> Serving:
    """One joint network."""
    return measured.joint


def single(measured: Measured, num_networks: int) -> Serving:
    """One network per task, whatever the number of networks."""
    return measured.single


def joint_or_single(measured: Measured, num_networks: int) -> Serving:
    """The joint network or one network per task, whichever has less validation loss."""
    return min((measured.joint, measured.single), key=measured.total)


def random_groups(measured: Measured, num_networks: int) -> Serving:
    """Groups drawn at random until they cover all tasks; the better one serves each task."""
    generator = np.random.default_rng(abs(int(measured.validation[0, -1, 0] * 1e6)))
    number = min(num_networks, len(measured.groups))
    while True:
        family = generator.choice(len(measured.groups), number, replace=False)
        members = measured.groups[family, None] >> np.arange(len(measured.tasks)) & 1
        if members.any(axis=0).all():
            return _served_by(measured.validation.mean(axis=0), family)


def all_raw(measured: Measured, num_networks: int) -> Serving:
    """The best groups by mean validation losses of all groups."""
    return choose(measured.validation.mean(axis=0), num_networks)


def early_stopped(measured: Measured, num_networks: int) -> Serving:
    """ESA (Standley et al. 2020): the best groups by losses after a fifth of the training."""
    return choose(measured.early.mean(axis=0), num_networks)


def higher_order(measured: Measured, num_networks: int) -> Serving:
    """HOA (Standley et al. 2020): losses of larger groups are means over those of their pairs."""
    losses = measured.validation.mean(axis=0)
    estimate, bits = losses.copy(), np.arange(len(measured.tasks))
    for row, mask in enumerate(measured.groups.tolist()):
        inside = bits[mask >> bits & 1 > 0]
        if len(inside) > 2:
            for task in inside:
                pairs = [(1 << task | 1 << other) - 1 for other in inside if other != task]
                estimate[row, task] = losses[pairs, task].mean()
    return choose(estimate, num_networks)


def paper(measured: Measured, num_networks: int) -> Serving:
    """TAG as in the paper (Fifty et al. 2021): affinities of one joint training, groups of two."""
    affinity = Affinity(measured.tasks, measured.affinities["lookahead"][0])
    return serving_of(select_groups(affinity, num_networks, "forbid"))


def anchored(measured: Measured, num_networks: int) -> Serving:
    """Affinities of one joint training, anchored by joint and single networks; or one of these.

    Of the groups and the two yardsticks, those with the least validation loss are served.
    """
    groups = _anchored_groups(measured, measured.affinities["lookahead"][0], num_networks)
    return min((measured.joint, measured.single, groups), key=measured.total)


def on_a_line(measured: Measured, num_networks: int) -> Serving:
    """The same without affinities, to see what these add.

    So the loss of a task lies on a line, by the number of tasks, from its own to the joint network.
    """
    number = len(measured.tasks)
    groups = _anchored_groups(measured, np.zeros((number, number)), num_networks)
    return min((measured.joint, measured.single, groups), key=measured.total)


def experiment(measured: Measured, num_networks: int) -> Serving:
    """What `experiment.run` does without a budget.

    Groups are selected by the mean affinities of three joint trainings, anchored by the yardsticks.
    Then `decide_groups` decides by the losses of these groups, the joint network and the single
    ones.
    """
    mean = measured.affinities["lookahead"][:_MEASURING].mean(axis=0)
    groups = _anchored_groups(measured, mean, num_networks)
    estimate = estimated(measured, sorted({*measured.joint, *measured.single, *groups}))
    return serving_of(decide_groups(estimate, num_networks, only_measured=True).grouping)


def decided(measured: Measured, num_networks: int) -> Serving:
    """`decide_groups` by the losses of all groups."""
    return serving_of(decide_groups(measured.estimate, num_networks).grouping)


def decided_at_half(measured: Measured, num_networks: int) -> Serving:
    """`decide_groups` with a probability of 0.5: what is more likely than not to gain."""
    return serving_of(decide_groups(measured.estimate, num_networks, 0.5).grouping)


def decided_by_pairs(measured: Measured, num_networks: int) -> Serving:
    """`decide_groups` by the losses of the groups that HOA trains, and of the joint network."""
    estimate = estimated(measured, small_groups(measured, 2))
    return serving_of(decide_groups(estimate, num_networks).grouping)


def least_estimated(measured: Measured, num_networks: int) -> Serving:
    """The best groups by estimated losses, however unsure the gain."""
    return choose(measured.estimate.mean, num_networks)


def decided_with_affinities(measured: Measured, num_networks: int) -> Serving:
    """`decide_groups` by the losses of all groups and mean affinities."""
    affinity = Affinity(measured.tasks, measured.affinities["lookahead"].mean(axis=0))
    estimate = estimated(measured, range(len(measured.groups)), affinity)
    return serving_of(decide_groups(estimate, num_networks).grouping)


RULES: dict[str, Rule] = {
    "joint": joint,
    "single": single,
    "joint or single": joint_or_single,
    "random groups": random_groups,
    "TAG as in the paper": paper,
    "anchored, or a yardstick": anchored,
    "on a line, or a yardstick": on_a_line,
    "experiment.run": experiment,
    "HOA": higher_order,
    "ESA": early_stopped,
    "all groups, raw": all_raw,
    "all groups, estimated": least_estimated,
    "all groups, decided": decided,
    "all groups, decided at .5": decided_at_half,
}
# Each makes an estimate of its own, the second one on a grid of six times as many points.
SLOW_RULES: dict[str, Rule] = {
    "pairs, decided": decided_by_pairs,
    "all groups and affinities, decided": decided_with_affinities,
}


def networks_trained(num_tasks: int, num_networks: int) -> dict[str, float]:
    """By rule, how many networks are trained, to choose and then to serve.

    Short trainings count as the share that they are, and groups are counted as if the choice had
    the largest number and none of them had been trained before, unless all groups have been.
    """
    joint, single, every = 1, num_tasks, 2**num_tasks - 1
    small = single + num_tasks * (num_tasks - 1) // 2
    return {
        "joint": joint,
        "single": single,
        "joint or single": joint + single,
        "random groups": num_networks,
        "TAG as in the paper": joint + num_networks,
        # The joint network that measures affinities is not the one that is a yardstick.
        "anchored, or a yardstick": joint + joint + single + num_networks,
        "on a line, or a yardstick": joint + single + num_networks,
        "experiment.run": _MEASURING * joint + joint + single + num_networks,
        "HOA": small + num_networks,
        "ESA": every / 5 + num_networks,
        "all groups, raw": every,
        "all groups, estimated": every,
        "all groups, decided": every,
        "all groups, decided at .5": every,
        "pairs, decided": joint + small + num_networks,
        "all groups and affinities, decided": joint + every,
    }


def estimated(
    measured: Measured, rows: Sequence[int], affinity: Affinity | None = None
) -> GroupLosses:
    """The estimate by the losses of some groups, given by their rows."""
    losses = measured.validation[:, list(rows)].swapaxes(0, 1)
    seeds = tuple(range(len(measured.validation)))
    parts = measured.parts[:, list(rows)]
    found = MeasuredLosses(measured.tasks, measured.groups[list(rows)], seeds, losses, parts)
    return GroupLosses(found, affinity)


def serving_of(grouping: Grouping) -> list[int]:
    """For each task, the row of the group that serves it."""
    tasks, groups = grouping.tasks, grouping.groups
    return [mask_of(groups[grouping.serves[task]], tasks) - 1 for task in tasks]


def small_groups(measured: Measured, largest: int) -> list[int]:
    """Rows of the groups of up to so many tasks, and of the joint network."""
    sizes = [mask.bit_count() for mask in measured.groups.tolist()]
    return [row for row, size in enumerate(sizes) if size <= largest or size == max(sizes)]


def choose(losses: Floats, num_networks: int) -> list[int]:
    """The choice of up to `num_networks` networks with the least sum of losses (M, T)."""
    scores = np.where(np.isnan(losses), -np.inf, -losses)
    tolerance = 1e-9 * float(np.nanmax(np.abs(losses)))
    return _served_by(losses, choose_families(scores, [num_networks], tolerance)[0])


def yardstick_rows(measured: Measured) -> list[Row]:
    """Rows of the joint network and of the single ones."""
    networks: dict[str, tuple[int, Sequence[int]]] = {
        "joint": (len(measured.groups) - 1, range(len(measured.tasks)))
    }
    networks |= {
        single_name(task): ((1 << place) - 1, [place]) for place, task in enumerate(measured.tasks)
    }
    return [
        Row(
            name,
            tuple(measured.tasks[place] for place in places),
            seed,
            measured.tasks[place],
            "validation",
            float(losses[row, place]),
            {},
            0.0,
        )
        for seed, losses in enumerate(measured.validation)
        for name, (row, places) in networks.items()
        for place in places
    ]


def _anchored_groups(measured: Measured, affinities: Floats, num_networks: int) -> Serving:
    """The best groups by affinities (T, T) that are anchored by joint and single networks."""
    by_loss = anchor_affinity(Affinity(measured.tasks, affinities), yardstick_rows(measured))
    return serving_of(select_groups(by_loss, num_networks, "baseline", score="sum"))


def _served_by(losses: Floats, family: Sequence[int] | npt.NDArray[Any]) -> list[int]:
    """For each task, the row of the family with the least loss (M, T)."""
    rows = np.asarray(family)
    served: list[int] = rows[np.nanargmin(losses[rows], axis=0)].tolist()
    return served
