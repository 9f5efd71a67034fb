"""The truth table: measured losses of all groups, and the worth of a choice by them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.stats

from tag_keras.affinity import Affinity
from tag_keras.results import Row
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.study.networks import Group
from tag_keras.utils.checks import check

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Truth:
    """Losses of M groups of T tasks that were trained, each with S seeds.

    Args:
        tasks: Names of the T tasks.
        groups: The M groups.
        seeds: The S seeds.
        validation: Array (S, M, T): validation losses, NaN where a task is not in a group.
        test: Array (S, M, T): test losses, NaN in the same places.
    """

    tasks: Group
    groups: tuple[Group, ...]
    seeds: tuple[int, ...]
    validation: Floats
    test: Floats

    @classmethod
    def from_rows(cls, rows: Sequence[Row], tasks: Group, groups: Sequence[Group]) -> "Truth":
        """Makes the table from the results of the networks.

        Args:
            rows: Results on the splits `"validation"` and `"test"`.
            tasks: Names of the T tasks.
            groups: The M groups of the table.

        Raises:
            ValueError: If the results have other tasks, or lack those of a group.
        """
        others = sorted({task for row in rows for task in row.tasks} - {*tasks})
        check(not others, f"the results should be of the tasks {list(tasks)}", others=others)
        seeds = tuple(sorted({row.seed for row in rows}))
        check(bool(seeds), "there should be results", rows=list(rows))
        losses = {(row.split, row.seed, row.tasks, row.task): row.loss for row in rows}
        wanted = [(seed, group) for seed in seeds for group in groups]
        missing = [
            f"{', '.join(group)} with seed {seed}"
            for seed, group in wanted
            for split in ("validation", "test")
            if not all((split, seed, group, task) in losses for task in group)
        ]
        first = list(dict.fromkeys(missing))[:3]
        message = "the results should have all groups, with every seed, on both splits"
        check(not missing, message, missing=first)
        tables = [
            [
                [
                    [losses.get((split, seed, group, task), np.nan) for task in tasks]
                    for group in groups
                ]
                for seed in seeds
            ]
            for split in ("validation", "test")
        ]
        return cls(tasks, tuple(groups), seeds, *map(np.array, tables))

    @functools.cached_property
    def members(self) -> npt.NDArray[np.bool_]:
        """Boolean array (M, T): whether the task is in the group."""
        return np.isfinite(self.test[0])

    def only(self, seeds: Sequence[int]) -> "Truth":
        """The table of some of the seeds.

        Raises:
            ValueError: If `seeds` is empty.
        """
        check(bool(seeds), "there should be a seed left", seeds=list(seeds))
        rows = [self.seeds.index(seed) for seed in seeds]
        return dataclasses.replace(
            self, seeds=tuple(seeds), validation=self.validation[rows], test=self.test[rows]
        )

    def with_validation(self, rows: Sequence[Row]) -> "Truth":
        """The table with other validation losses, such as those of short trainings."""
        test = [row for row in rows if row.split == "test"]
        check(not test, "the rows should be of validation data only", test=test[:1])
        own = [dataclasses.replace(row, split="test") for row in rows]
        other = Truth.from_rows([*rows, *own], self.tasks, self.groups).only(self.seeds)
        return dataclasses.replace(self, validation=other.validation)

    def row(self, group: Group) -> int:
        """The row of a group.

        Raises:
            ValueError: If the group is not in the table.
        """
        check(group in self.groups, "the group should be one of the table", group=group)
        return self.groups.index(group)

    def joint(self) -> list[int]:
        """The choice of the joint network: its row, for each task."""
        return [self.row(self.tasks)] * len(self.tasks)

    def single(self) -> list[int]:
        """The choice of single networks: for each task, the row of its own network."""
        return [self.row((task,)) for task in self.tasks]

    def total(self, serving: Sequence[int]) -> float:
        """Total test loss of a choice, the mean over the seeds."""
        return float(self.test[:, serving, np.arange(len(self.tasks))].sum(axis=1).mean())

    def choose(self, scores: Floats, num_networks: int) -> list[int]:
        """The best choice by some scores.

        Args:
            scores: Array (M, T), larger is better, -inf where a group cannot serve a task.
            num_networks: Largest number of networks.

        Returns:
            For each task, the row of the network that serves it; empty if no choice serves all.
        """
        usable = (scores > -np.inf).any(axis=1)
        rows = np.flatnonzero(usable)
        if not (scores > -np.inf).any(axis=0).all():
            return []
        tolerance = 1e-9 * max(np.abs(scores[scores > -np.inf]).max(), 1e-290)
        family = choose_families(scores[rows], [num_networks], tolerance)[0]
        return self.serve(scores, rows[family]) if family else []

    def serve(self, scores: Floats, family: Sequence[int] | npt.NDArray[np.intp]) -> list[int]:
        """For each task, the row of a family that is best for it by some scores (M, T)."""
        family = np.asarray(family)
        serving: list[int] = family[scores[family].argmax(axis=0)].tolist()
        return serving

    def losses(self, split: Literal["validation", "test"]) -> Floats:
        """Scores (M, T) for `choose`: the negative of the losses, mean over the seeds."""
        mean = getattr(self, split).mean(axis=0)
        return np.where(self.members, -mean, -np.inf)

    def best_choice(self, num_networks: int) -> list[int]:
        """The choice of up to `num_networks` networks with the least total test loss."""
        number = min(num_networks, len(self.tasks))
        if number not in self._best:
            self._best[number] = self.choose(self.losses("test"), number)
        return self._best[number]

    @functools.cached_property
    def _best(self) -> dict[int, list[int]]:
        return {}

    def random_total(self, num_networks: int, draws: int = 200) -> float:
        """Mean total test loss of random networks; validation losses say which one serves a task.

        The draws are uniform over the families of `num_networks` different groups of the table
        that cover all tasks. There are never more networks than tasks.
        """
        number = min(num_networks, len(self.tasks))
        random, validation = np.random.default_rng(number), self.losses("validation")
        totals: list[float] = []
        while len(totals) < draws:
            family = random.choice(len(self.groups), number, replace=False)
            if self.members[family].any(axis=0).all():
                totals.append(self.total(self.serve(validation, family)))
        return float(np.mean(totals))

    def agreement(self, affinity: Affinity) -> float:
        """Rank agreement of affinities with the gains of pairs, mean over the targets.

        For a target: Spearman's correlation, over the sources, of the affinity with the negative
        test loss of the target in the pair's network.
        """
        self.check_tasks(affinity)
        test, found = self.test.mean(axis=0), []
        for target, name in enumerate(self.tasks):
            others = [task for task in self.tasks if task != name]
            pairs = [tuple(one for one in self.tasks if one in (name, task)) for task in others]
            gains = [-test[self.row(pair), target] for pair in pairs]
            onto = [affinity.mean[self.tasks.index(task), target] for task in others]
            found.append(scipy.stats.spearmanr(gains, onto).statistic)
        return float(np.mean(found))

    def check_tasks(self, affinity: Affinity) -> None:
        """Raises a `ValueError` unless affinities and table have the same tasks."""
        right = affinity.tasks == self.tasks
        wanted = "the affinities should be of the tasks of the table"
        check(right, wanted, affinity=affinity.tasks, table=self.tasks)
