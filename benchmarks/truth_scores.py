"""What is expected of groups that nobody trained: scores out of affinities and measured losses."""

from typing import Literal

import numpy as np

from benchmarks.truth_table import Floats, Truth
from tag_keras.affinity import Affinity

Singletons = Literal["forbid", "zero"]
Score = Literal["mean", "sum"]


def scores_of_affinity(
    truth: Truth, affinity: Affinity, singletons: Singletons, score: Score = "mean"
) -> Floats:
    """Scores (M, T) of the groups of a table by affinities.

    Args:
        truth: Table.
        affinity: Affinities of the same tasks.
        singletons: Whether a task may be alone, with a score of 0.
        score: Whether a task's score is the mean or the sum over the others in its group.
    """
    truth.check_tasks(affinity)
    members = truth.members
    onto = np.where(np.eye(len(truth.tasks), dtype=bool), 0.0, affinity.mean)
    scores = members.astype(float) @ onto
    others = members.sum(axis=1, keepdims=True) - 1
    if score == "mean":
        scores = scores / np.maximum(others, 1)
    alone = 0.0 if singletons == "zero" else -np.inf
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


def anchored_scores(truth: Truth, affinity: Affinity, losses: Floats) -> Floats:
    """Scores (M, T) by affinities, between the measured losses of joint and single networks.

    Of T tasks, each other task in a group gives a task t the same share of what the joint network
    gained over the single one, and more or less by how much its affinity is above or below the
    mean of all sources of t:

        score[G, t] = sum over i in G of (gain_t + c_t (Z[i, t] - mean of Z[., t])) / (T - 1)

    So a task alone has 0, and in the joint network what was measured. Affinities have no scale of
    their own: with c_t, what they add deviates as much as the relative gains of the tasks do.

    Args:
        truth: Table.
        affinity: Affinities of the same tasks.
        losses: Scores (M, T), of which those of the joint and the single networks are used.
    """
    truth.check_tasks(affinity)
    size, columns = len(truth.tasks), np.arange(len(truth.tasks))
    single = -losses[truth.single(), columns]
    gain = single + losses[truth.joint(), columns]
    other = ~np.eye(size, dtype=bool)
    onto = np.where(other, affinity.mean, np.nan)
    above = np.where(other, onto - np.nanmean(onto, axis=0), 0.0)
    spread = float(np.std(above[other]))
    scale = np.std(gain / single) * single / spread if spread else np.zeros(size)
    shares = np.where(other, gain + scale * above, 0.0) / (size - 1)
    return np.where(truth.members, truth.members.astype(float) @ shares, -np.inf)
