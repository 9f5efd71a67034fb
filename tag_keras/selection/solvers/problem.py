"""The groups that a selection may choose among, and what each gives its tasks."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
# Positions of groups or networks in an array.
Rows = npt.NDArray[np.intp]
Score = Literal["mean", "sum"]


@dataclasses.dataclass(frozen=True)
class GroupProblem:
    """Choose groups for T tasks such that the mean over tasks of the best score is largest.

    Args:
        affinity: Array (T, T) [source, target], finite. The diagonal is not used.
        alone: Array (T,): score of each task alone in a group, -inf where that is forbidden.
        partition: Whether the groups may not overlap.
        max_size: Largest number of tasks in a group.
        units: Sets of tasks, as positions in increasing order, that share all their groups. Every
            task is in one unit, usually by itself.
        apart: Boolean array (T, T), symmetric: pairs of tasks that share no group.
        score: A task's score in a group: the mean affinity of the group's other tasks onto it, or
            the sum. Column generation takes means only, because only means can be `scaled`.
    """

    affinity: Floats
    alone: Floats
    partition: bool
    max_size: int
    units: tuple[tuple[int, ...], ...]
    apart: Booleans
    score: Score = "mean"

    def scaled(self) -> tuple["GroupProblem", Floats, float]:
        """The problem with scores of at most 0 that differ by about 1, and how to undo that.

        With it come the scores (T,) that became 0, upper bounds of each task's score, because no
        mean exceeds its largest term; and the difference that became 1.
        """
        between = np.where(np.eye(len(self.alone), dtype=bool), -np.inf, self.affinity)
        top = np.maximum(between.max(axis=0), self.alone)
        below = np.where(np.isfinite(between), top - between, 0.0)
        scale = float(below.mean()) or 1.0
        alone = (self.alone - top) / scale
        return dataclasses.replace(self, affinity=-below / scale, alone=alone), top, scale

    def lowered(self) -> tuple["GroupProblem", Floats]:
        """The problem less far too large scores (T,) of tasks, and these; 0 for most tasks.

        All families lose the same, since each task has one score: the best ones stay the best.
        """
        used = self.used()
        between = np.where(used, self.affinity, -np.inf)
        top = np.maximum(between.max(axis=0), self.alone)
        limit = self.usual_limit() if self.score == "mean" else np.inf
        surplus = np.where(np.isfinite(top) & (np.abs(top) > limit), top, 0.0)
        less = np.where(used, self.affinity - surplus, 0.0)
        return dataclasses.replace(self, affinity=less, alone=self.alone - surplus), surplus

    def usual_limit(self) -> float:
        """A thousand times the usual size of affinities: larger ones are far too large."""
        sizes = np.abs(self.affinity[self.used() & (self.affinity != 0)])
        return 1000 * float(np.median(sizes)) if sizes.size else np.inf

    # Let top[t] bound the scores of task t, and S be a sum of scores that some family reaches. In a
    # family as good, no task scores below top[t] - gap, where gap = sum of top - S. A mean over at
    # most n - 1 partners with an affinity below top[t] - (n - 1) * gap is lower than that; so is a
    # sum with one below -gap, if top[t] is at least the sum of the positive ones.
    def clipped(self, score: float) -> "GroupProblem":
        """The problem, where affinities that serve in no family of this mean score are raised.

        They still serve in none, by a distance well above every tolerance, so the best families and
        their scores stay as they are. `score` is one that a family reaches.
        """
        used = self.used()
        between = np.where(used, self.affinity, -np.inf)
        if self.score == "mean":
            top = np.maximum(between.max(axis=0), self.alone)
        else:
            top = np.maximum(np.maximum(between, 0.0).sum(axis=0), self.alone)
        sizes = np.abs(self.affinity[used & (self.affinity != 0)])
        # Where all tasks reach their top, the usual size of affinities keeps lower ones apart.
        usual = max(float(np.abs(top).max()), float(np.median(sizes)) if sizes.size else 0.0)
        gap = 2 * max(float(top.sum()) - len(top) * score, 0.0) + usual
        # Scores of about the same size give the same problem.
        gap = 2.0 ** math.ceil(math.log2(gap)) if gap > 0 else gap
        least = top - (self.max_size - 1) * gap if self.score == "mean" else np.full(len(top), -gap)
        raised = np.where(used, np.maximum(self.affinity, least), 0.0)
        allowed = np.isfinite(self.alone)
        alone = np.where(allowed, np.maximum(self.alone, top - gap), self.alone)
        return dataclasses.replace(self, affinity=raised, alone=alone)

    def used(self) -> Booleans:
        """The pairs (T, T) of two tasks that a group may hold."""
        used: Booleans = ~(np.eye(len(self.alone), dtype=bool) | self.apart)
        return used

    def largest(self) -> float:
        """The largest absolute affinity or score alone that a group may use."""
        sizes = [*self.affinity[self.used()], *self.alone[np.isfinite(self.alone)]]
        return float(np.abs(sizes).max(initial=0.0))

    def is_uneven(self) -> bool:
        """Whether some affinities are a thousand times as large as most."""
        sizes = np.abs(self.affinity[self.used()])
        return bool(self.largest() > 1000 * np.median(sizes)) if sizes.size else False

    def members(self, groups: Sequence[tuple[int, ...]]) -> Booleans:
        """Groups, given by the positions of their tasks, as a boolean array (G, T)."""
        members = np.zeros((len(groups), len(self.alone)), bool)
        for row, group in zip(members, groups, strict=True):
            row[list(group)] = True
        return members

    def unit_members(self) -> Booleans:
        return self.members(self.units)

    def admissible(self, members: Booleans) -> Booleans:
        """Whether each of the groups (G, T) may be chosen: boolean array (G,)."""
        sizes = members.sum(axis=1)
        allowed: Booleans = (sizes >= 1) & (sizes <= self.max_size)
        for unit in (unit for unit in self.units if len(unit) > 1):
            inside = members[:, list(unit)]
            allowed &= inside.all(axis=1) | ~inside.any(axis=1)
        for first, second in np.argwhere(np.triu(self.apart)):
            allowed &= ~(members[:, first] & members[:, second])
        allowed &= (sizes > 1) | (members & np.isfinite(self.alone)).any(axis=1)
        return allowed

    def scores(self, members: Booleans) -> Floats:
        """Scores (G, T) of the tasks in groups (G, T); -inf for a task outside of the group."""
        inside = members.astype(np.float64)
        partners = inside.sum(axis=1, keepdims=True) - 1
        sums = inside @ np.where(np.eye(len(self.alone), dtype=bool), 0.0, self.affinity)
        divisors = np.maximum(partners, 1) if self.score == "mean" else 1.0
        together = np.where(partners > 0, sums / divisors, self.alone)
        return np.where(members, together, -np.inf)


def all_groups(num_tasks: int) -> Booleans:
    """All groups as members (2**T - 1, T), in the order of their sorted tuples of positions."""
    sets = np.zeros(0, np.intp)
    for bit in 1 << np.arange(num_tasks)[::-1]:
        sets = np.concatenate([[bit], sets | bit, sets])
    members: Booleans = (sets[:, None] >> np.arange(num_tasks) & 1).astype(bool)
    return members
