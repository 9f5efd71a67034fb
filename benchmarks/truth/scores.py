"""Expected scores of groups, without training them: from affinities, and from losses of pairs."""

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
    """Scores (M, T) of the groups of a table by affinities, as in `select_groups`.

    Args:
        truth: The table.
        affinity: Affinities of the same tasks.
        singletons: Score of a task alone: `"forbid"` allows none; `"baseline"` is 0; `"measured"`
            is from the validation losses of the table, which then anchor the affinities, too.
        score: Score of a task in a group: `"mean"` or `"sum"` of the affinities onto it.
    """
    truth.check_tasks(affinity)
    rows = rows_of(truth, grouping_of(truth, truth.joint()))
    rule = {**selection_rule(affinity, rows, singletons), "score": score}
    free: dict[str, Any] = {"partition": False, "max_group_size": None, "together": (), "apart": ()}
    return build_problem(**rule, **free).scores(truth.members)


def higher_order(truth: Truth, losses: Floats) -> Floats:
    """Scores (M, T) by HOA (Standley et al. 2020): in a larger group, the mean over its pairs.

    Args:
        truth: The table.
        losses: Scores (M, T) of single tasks and pairs; others are not read.
    """
    scores = losses.copy()
    for row, group in enumerate(truth.groups):
        if len(group) <= 2:
            continue
        for task in group:
            pairs = [
                truth.row(tuple(one for one in truth.tasks if one in (task, other)))
                for other in group
                if other != task
            ]
            column = truth.tasks.index(task)
            scores[row, column] = losses[pairs, column].mean()
    return scores
