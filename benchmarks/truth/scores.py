"""What is expected of groups that nobody trained: scores out of affinities and measured losses."""

from typing import Any

from benchmarks.truth.guard import grouping_of, rows_of
from benchmarks.truth.table import Floats, Truth
from tag_keras.affinity import Affinity
from tag_keras.selection.anchoring import Singletons, selection_rule
from tag_keras.selection.rules import build_problem
from tag_keras.selection.solvers.problem import Score


def scores_of_affinity(
    truth: Truth, affinity: Affinity, singletons: Singletons, score: Score = "mean"
) -> Floats:
    """Scores (M, T) of the groups of a table by affinities, as `select_groups` has them.

    Args:
        truth: Table, whose validation losses anchor the affinities with `"measured"`.
        affinity: Affinities of the same tasks.
        singletons: As in `experiment.run`.
        score: As in `select_groups`.
    """
    truth.check_tasks(affinity)
    rows = rows_of(truth, grouping_of(truth, truth.joint()))
    rule = {**selection_rule(affinity, rows, singletons), "score": score}
    free: dict[str, Any] = {"partition": False, "max_group_size": None, "together": (), "apart": ()}
    return build_problem(**rule, **free).scores(truth.members)


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
