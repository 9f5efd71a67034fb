"""Scores of groups out of affinities and measured losses, against the library's and by hand."""

import numpy as np
import pytest
from truth_rows import GROUPS, TASKS, make_affinity, make_truth

import tag_keras
from benchmarks.truth.scores import higher_order, scores_of_affinity


def test_affinities_of_other_tasks():
    affinity = tag_keras.Affinity(("a", "b"), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="should be of the tasks of the table"):
        scores_of_affinity(make_truth(), affinity, "baseline")
    with pytest.raises(ValueError, match="should be of the tasks of the table"):
        make_truth().agreement(affinity)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_choices_by_affinity_are_those_of_the_library(number, seed):
    truth, affinity = make_truth(), make_affinity(seed)
    for singletons in ("forbid", "baseline"):
        grouping = tag_keras.select_groups(affinity, number, singletons)
        wanted = [truth.row(grouping.groups[grouping.serves[task]]) for task in TASKS]
        assert truth.choose(scores_of_affinity(truth, affinity, singletons), number) == wanted


def test_scores_by_mean_and_by_sum():
    # Onto "a": from "b" 3, from "c" -1.
    mean = np.zeros((4, 4))
    mean[1, 0], mean[2, 0] = 3, -1
    affinity, truth = tag_keras.Affinity(TASKS, mean), make_truth()
    rows = [truth.row(group) for group in (("a",), ("a", "b"), ("a", "b", "c"))]
    forbidden = -np.inf
    for options, wanted in {
        ("forbid", "mean"): [forbidden, 3, 1],
        ("forbid", "sum"): [forbidden, 3, 2],
        ("baseline", "mean"): [0, 3, 1],
        ("baseline", "sum"): [0, 3, 2],
    }.items():
        assert scores_of_affinity(truth, affinity, *options)[rows, 0].tolist() == wanted
    assert (scores_of_affinity(truth, affinity, "baseline")[~truth.members] == -np.inf).all()


def test_measured_scores_go_from_the_single_to_the_joint_network():
    truth, affinity = make_truth(), make_affinity()
    scores = scores_of_affinity(truth, affinity, "measured", "sum")
    mean = truth.validation.mean(axis=0)
    for column, task in enumerate(TASKS):
        alone, together = truth.row((task,)), truth.row(TASKS)
        assert scores[alone, column] == 0
        gain = mean[alone, column] - mean[together, column]
        assert scores[together, column] == pytest.approx(gain)
        # A task and one more: the better its affinity, the better.
        pairs = [truth.row(tuple(sorted((task, other)))) for other in TASKS if other != task]
        sources = [place for place in range(4) if place != column]
        order = np.argsort(affinity.mean[sources, column])
        assert np.argsort(scores[pairs, column]).tolist() == order.tolist()
        assert scores[pairs, column].sum() == pytest.approx(gain)
    assert ((scores > -np.inf) == truth.members).all()


def test_higher_order_is_that_of_the_library():
    truth = make_truth()
    losses = truth.validation.mean(axis=0)
    table = tag_keras.NetworkTable(TASKS, GROUPS, losses).higher_order()
    ours = -higher_order(truth, truth.losses("validation"))
    assert np.allclose(ours[truth.members], table.scores[truth.members], rtol=1e-12)
