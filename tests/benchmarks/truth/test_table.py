"""The table of all groups' losses, and choices by it, against all families of groups."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats
from truth_rows import GROUPS, TASKS, make_affinity, make_rows, make_truth

from benchmarks.truth.table import Truth
from tag_keras.results import Row


def test_the_table_has_each_loss_in_its_place():
    rows = make_rows()
    truth = Truth.from_rows(rows, TASKS, GROUPS)
    assert truth.seeds == (0, 1, 2)
    for row in rows:
        place = (row.seed, GROUPS.index(row.tasks), TASKS.index(row.task))
        assert getattr(truth, row.split)[place] == row.loss
    assert np.isfinite(truth.test).sum() * 2 == len(rows)


def test_a_missing_group_is_named():
    rows = [row for row in make_rows() if not (row.tasks == ("a", "c") and row.seed == 1)]
    with pytest.raises(ValueError, match=r"should have all groups.*'a, c with seed 1'"):
        Truth.from_rows(rows, TASKS, GROUPS)


def test_other_tasks_are_named():
    rows = [*make_rows(), Row("e", ("e",), 0, "e", "test", 1.0, {}, 1.0)]
    with pytest.raises(ValueError, match=r"should be of the tasks .*others=\['e'\]"):
        Truth.from_rows(rows, TASKS, GROUPS)


def test_a_table_of_nothing():
    with pytest.raises(ValueError, match="there should be results"):
        Truth.from_rows([], TASKS, GROUPS)
    with pytest.raises(ValueError, match="there should be a seed left"):
        make_truth().only([])


def test_a_group_that_was_not_trained():
    truth = Truth.from_rows(make_rows(), TASKS, GROUPS[:-1])
    with pytest.raises(ValueError, match="should be one of the table"):
        truth.joint()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_choice_is_that_of_all_families(number, seed):
    truth = make_truth(generator_seed=seed)
    losses = truth.test.mean(axis=0)
    totals = [
        sum(
            min(losses[row, task] for row in family if TASKS[task] in GROUPS[row])
            for task in range(4)
        )
        for size in range(1, number + 1)
        for family in itertools.combinations(range(len(GROUPS)), size)
        if {task for row in family for task in GROUPS[row]} == {*TASKS}
    ]
    chosen = truth.choose(truth.losses("test"), number)
    assert len(set(chosen)) <= number
    assert truth.total(chosen) == pytest.approx(min(totals), rel=1e-12)


def test_where_nothing_covers_all_tasks():
    truth = make_truth()
    scores = np.where(truth.members.sum(axis=1, keepdims=True) == 1, 0.0, -np.inf)
    scores = np.where(truth.members, scores, -np.inf)
    assert truth.choose(scores, 3) == []
    assert truth.choose(scores, 4) == truth.single()


def test_joint_single_and_random():
    truth = make_truth()
    mean = truth.test.mean(axis=0)
    assert truth.total(truth.joint()) == pytest.approx(mean[-1].sum())
    assert truth.total(truth.single()) == pytest.approx(np.trace(mean[:4]))
    # One network for all: there is but one. As many as tasks are the most.
    assert truth.random_total(5) == truth.random_total(4)
    assert truth.random_total(1) == pytest.approx(truth.total(truth.joint()))
    best = truth.total(truth.choose(truth.losses("test"), 3))
    assert best < truth.random_total(3)


def test_random_networks_are_served_as_validation_says():
    truth = make_truth()
    rightly = dataclasses.replace(truth, validation=truth.test)
    wrongly = dataclasses.replace(truth, validation=-truth.test)
    assert rightly.random_total(3) < wrongly.random_total(3)


def test_agreement_is_spearmans_correlation_with_the_gains_of_pairs():
    truth, affinity = make_truth(), make_affinity(2)
    test, found = truth.test.mean(axis=0), []
    for target in range(4):
        sources = [source for source in range(4) if source != target]
        pairs = [tuple(sorted((TASKS[source], TASKS[target]))) for source in sources]
        gains = [test[target, target] - test[GROUPS.index(pair), target] for pair in pairs]
        found.append(scipy.stats.spearmanr(gains, affinity.mean[sources, target])[0])
    assert abs(np.mean(found)) > 0.1
    assert truth.agreement(affinity) == pytest.approx(np.mean(found))
