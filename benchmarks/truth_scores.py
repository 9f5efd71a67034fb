"""What is expected of groups that nobody trained: scores out of affinities and measured losses."""

from typing import Literal

import numpy as np

import tag_keras
from benchmarks.truth_guard import grouping_of, rows_of
from benchmarks.truth_table import Floats, Truth
from tag_keras.affinity import Affinity

Singletons = Literal["forbid", "zero", "measured"]
Score = Literal["mean", "sum"]


def scores_of_affinity(
    truth: Truth, affinity: Affinity, singletons: Singletons, score: Score = "mean"
) -> Floats:
    """Scores (M, T) of the groups of a table by affinities.

    Args:
        truth: Table.
        affinity: Affinities of the same tasks.
        singletons: Whether a task may be alone, with a score of 0; with `"measured"` it may, and
            the affinities are anchored in validation losses of the joint and the single networks.
        score: Whether a task's score is the mean or the sum over the others in its group.
    """
    truth.check_tasks(affinity)
    if singletons == "measured":
        rows = rows_of(truth, grouping_of(truth, truth.joint()))
        affinity = tag_keras.anchor_affinity(affinity, rows)
    members = truth.members
    onto = np.where(np.eye(len(truth.tasks), dtype=bool), 0.0, affinity.mean)
    scores = members.astype(float) @ onto
    others = members.sum(axis=1, keepdims=True) - 1
    if score == "mean":
        scores = scores / np.maximum(others, 1)
    alone = -np.inf if singletons == "forbid" else 0.0
    return np.where(members, np.where(others > 0, scores, alone), -np.inf)


def higher_order(truth: Truth, losses: Floats) -> Floats:
    """Scores (M, T) by HOA (Standley et al. 2020): of three tasks and more, the mean over pairs.

    Args:
        truth: Table.
        losses: Scores (M, T) of which those of single tasks and pairs are used.
    """
    size, scores = truth.members.sum(axis=1), losses.copy()
    for row, group in enumerate(truth.groups):
        for task in group if size[row] > 2 else ():
            pairs = [
                truth.row(tuple(one for one in truth.tasks if one in (task, other)))
                for other in group
                if other != task
            ]
            column = truth.tasks.index(task)
            scores[row, column] = losses[pairs, column].mean()
    return scores
