"""What the guard makes of a choice by a truth table."""

import dataclasses

import numpy as np
import pytest
from truth_rows import GROUPS, TASKS, make_affinity, make_truth

from benchmarks.truth.guard import guarded
from benchmarks.truth.promise import promises
from benchmarks.truth.scores import scores_of_affinity


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_the_guard_never_loses_against_the_joint_network_on_validation(seeds, seed):
    truth = make_truth(seeds=seeds, generator_seed=seed)
    for number in (2, 3):
        affinity = make_affinity(seed)
        result = guarded(
            truth, truth.choose(scores_of_affinity(truth, affinity, "baseline"), number)
        )
        assert result.validation <= result.validation_joint
        joint = truth.row(TASKS)
        best = truth.validation[:, joint].sum(axis=1).argmin()
        assert result.validation_joint == pytest.approx(truth.validation[best, joint].sum())
        assert result.test_joint == pytest.approx(truth.test[best, joint].sum())


def test_what_the_guard_serves_is_judged_on_test_data():
    # The group of all but "d" is as bad as can be, networks of their own hardly better.
    truth = make_truth(seeds=(0,))
    bad = truth.row(TASKS[:3])
    validation = truth.validation.copy()
    validation[:, bad, :3] = 100
    validation[:, range(3), range(3)] = 50
    truth = dataclasses.replace(truth, validation=validation)
    serving = [bad, bad, bad, truth.row(("d",))]
    result = guarded(truth, serving)
    joint = truth.row(TASKS)
    assert (result.moved, result.serving) == (3, [joint, joint, joint, serving[3]])
    wanted = truth.test[0, joint, :3].sum() + truth.test[0, truth.row(("d",)), 3]
    assert result.test == pytest.approx(wanted)
    assert result.test_without == pytest.approx(truth.test[0, serving, range(4)].sum())
    assert result.test_single == pytest.approx(np.trace(truth.test[0, :4]))


def test_the_guards_promise_is_counted_against_joint_and_single_networks():
    # On validation data the joint network is perfect, so that all tasks go to it; on test data it
    # has half, or twice, of what the single networks have.
    truth, joint = make_truth(), GROUPS.index(TASKS)
    validation, test = truth.validation.copy(), truth.test.copy()
    validation[:, joint] = 0.0
    test[:, range(4), range(4)] = 1.0
    for loss, wanted in ((0.5, 0.0), (2.0, 1.0)):
        test[:, joint] = loss
        table = dataclasses.replace(truth, validation=validation, test=test.copy())
        found = promises(table, {"x": [make_affinity(), make_affinity(1)]})
        assert [one.seeds for one in found] == [(0,), (1,), (2,), (0, 1, 2)]
        for one in found:
            assert one.above == 0
            assert one.change == pytest.approx(np.full(2 * 5 * 3, wanted))
            change = 100 * wanted
            assert one.cells[1:4] == ["30", "0", f"{change:+.1f} ± 0.0, {change:+.1f}"]


def test_what_was_served_without_the_guard_is_told():
    truth = make_truth(seeds=(0, 1), noise=0.0)
    affinity = make_affinity()
    found = promises(truth, {"x": [affinity]})[0]
    serving = truth.choose(scores_of_affinity(truth, affinity, "forbid"), 2)
    better = min(truth.total(truth.joint()), truth.total(truth.single()))
    assert found.without[0] == pytest.approx(truth.total(serving) / better - 1)
    # What is served is better than the joint network on validation data here, never worse.
    assert found.above == 0
    assert guarded(truth.only([0]), serving).validation < truth.validation[0, -1].sum()
