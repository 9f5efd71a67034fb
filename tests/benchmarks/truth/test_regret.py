"""What each way to choose is worth, against all families and by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
from truth_rows import GROUPS, TASKS, make_affinity, make_rows, make_truth

import tag_keras
from benchmarks.truth import regret as truth_regret
from benchmarks.truth.scores import higher_order, scores_of_affinity
from benchmarks.truth.table import Truth


def test_without_noise_what_was_measured_is_the_best_choice():
    truth = make_truth(noise=0.0)
    measured = {"oracle": [make_affinity(seed) for seed in range(3)]}
    lines = truth_regret.all_lines(truth, truth, measured)
    by_way = {(line.way, line.runs, line.options): line for line in lines}
    assert len(by_way) == len(lines) == 5 + 2 + 5 * 2 + 5 * 2 * 2
    for way in ("all groups measured", "ESA"):
        for runs in (1, 3):
            line = by_way[way, runs, ""]
            assert line.regret == pytest.approx(np.zeros(len(line.totals)), abs=1e-9)
    assert by_way["HOA", 3, ""].regret[0] >= 0
    for line in lines:
        assert (line.regret > -1e-9).all()
    one, three = by_way["oracle", 1, "baseline, mean"], by_way["oracle", 3, "baseline, mean"]
    assert one.totals.shape == (3, 4)
    assert three.totals.shape == (1, 4)
    assert one.deviation() == pytest.approx(np.std(one.regret, ddof=1))
    with pytest.raises(ValueError, match="a deviation needs two choices"):
        three.deviation()


@pytest.mark.parametrize("seed", range(3))
def test_measured_choices_without_tasks_alone_are_the_best_of_all_families(seed):
    # Without noise, all but the short trainings see the same losses.
    truth = make_truth(noise=0.0, generator_seed=seed)
    early = make_truth(noise=0.0, generator_seed=seed + 10)
    lines = truth_regret.all_lines(truth, early, {})
    for way in ("HOA", "ESA"):
        assert_best_of_all_families(truth, early, lines, way)


def assert_best_of_all_families(truth, early, lines, way):
    expected = [[np.inf] * 4 for _ in GROUPS]
    measured = (early if way == "ESA" else truth).validation[0]
    for row, group in enumerate(GROUPS):
        for task in group:
            column = TASKS.index(task)
            pairs = [tuple(sorted((task, other))) for other in group if other != task]
            rows = [row] if way == "ESA" else [GROUPS.index(pair) for pair in pairs]
            if len(group) > 1:
                expected[row][column] = np.mean([measured[one, column] for one in rows])
    for number in (1, 2, 3):
        families = itertools.combinations(range(len(GROUPS)), number)
        least = [
            [min((expected[row][t], row) for row in one) for t in range(4)] for one in families
        ]
        serving = [row for _, row in min(least, key=lambda one: sum(loss for loss, _ in one))]
        wanted = truth.total(serving)
        for line in lines:
            if (line.way, line.options) == (way, "forbid"):
                assert line.totals[:, number - 1] == pytest.approx(wanted)


def test_no_choice_looks_at_test_data():
    # On validation data, and early, networks are other ones than on test data.
    truth = dataclasses.replace(make_truth(), validation=make_truth(generator_seed=1).validation)
    early = truth.with_validation(
        [row for row in make_rows(generator_seed=2) if row.split == "validation"]
    )
    runs = [make_affinity(seed) for seed in range(3)]
    lines = truth_regret.all_lines(truth, early, {"x": runs})
    totals = {(line.way, line.runs, line.options): line.totals[0] for line in lines}
    validation = truth.losses("validation")
    for way, scores in {
        ("all groups measured", 3, ""): validation,
        ("HOA", 3, ""): higher_order(truth, validation),
        ("ESA", 3, ""): early.losses("validation"),
        **{
            ("x", 3, f"{singletons}, sum"): scores_of_affinity(
                truth, tag_keras.Affinity.combine(runs), singletons, "sum"
            )
            for singletons in ("baseline", "measured")
        },
    }.items():
        wanted = [truth.total(truth.choose(scores, number)) for number in truth_regret.NETWORKS]
        assert totals[way] == pytest.approx(wanted)


def test_without_affinities_each_other_task_gives_the_same_share_of_what_joint_gained():
    truth = make_truth()
    lines = truth_regret.all_lines(truth, truth, {})
    (line,) = (
        one for one in lines if (one.way, one.options) == ("all sources alike", "measured, sum")
    )
    mean = truth.validation.mean(axis=0)
    gains = [mean[truth.row((task,)), place] - mean[-1, place] for place, task in enumerate(TASKS)]
    scores = [
        [
            gains[place] * (len(group) - 1) / 3 if task in group else -np.inf
            for place, task in enumerate(TASKS)
        ]
        for group in GROUPS
    ]
    servings = [truth.choose(np.array(scores), number) for number in truth_regret.NETWORKS]
    assert line.totals[0] == pytest.approx([truth.total(serving) for serving in servings])


def test_what_one_seed_measured_is_judged_by_the_others():
    # By seed 0 the joint network is perfect, by the others it is bad.
    rows = [
        dataclasses.replace(row, loss=9.0 * (row.seed > 0)) if row.tasks == TASKS else row
        for row in make_rows(noise=0.0)
    ]
    truth = Truth.from_rows(rows, TASKS, GROUPS)
    lines = truth_regret.all_lines(truth, truth, {"x": [make_affinity()]})
    (line,) = (one for one in lines if (one.way, one.runs) == ("all groups measured", 1))
    assert line.totals[0] == pytest.approx([36.0] * 4)
    # The others, judged with seed 0 among the judges, do not choose it where they need not.
    assert (line.totals[1:, 1:] < 36).all()


def test_all_choices_are_compared_with_the_same_best_one():
    # It is that of all seeds also where two judge what the third has chosen: the best one of the
    # two alone would be better, the more noise there is. Each seed is among the judges as often.
    lines = truth_regret.all_lines(make_truth(noise=0.5), make_truth(noise=0.5), {})
    best = {(line.way, line.runs, line.options): line.best for line in lines}
    for way in ("all groups measured", "HOA", "ESA"):
        assert best[way, 1, ""].mean(axis=0) == pytest.approx(best["best choice", 0, ""][0])


def test_one_seed_does_not_judge_its_own_choice():
    truth = make_truth(seeds=(0,))
    with pytest.raises(ValueError, match=r"need another one to judge them.*seeds=\(0,\)"):
        truth_regret.all_lines(truth, truth, {})


def test_regret_is_relative_and_of_two_to_four_networks():
    totals, best = np.array([[9.0, 2.2, 1.5, 1.0]]), np.array([[1.0, 2.0, 1.0, 1.0]])
    line = truth_regret.Line("x", 1, "", totals, best, best)
    assert line.regret == pytest.approx([(0.1 + 0.5 + 0) / 3])


def test_what_serves_more_networks_is_judged_by_as_many():
    truth = make_truth(noise=0.0)
    (single,) = (line for line in truth_regret.all_lines(truth, truth, {}) if line.way == "single")
    assert (single.networks == 4).all()
    assert single.best == pytest.approx(np.full((1, 4), truth.total(truth.best_choice(4))))
    totals = [truth.total(truth.best_choice(number)) for number in range(1, 6)]
    assert totals == sorted(totals, reverse=True) and totals[3] == totals[4]


def test_joint_or_single_networks_are_chosen_by_validation():
    # Of "a" and "b" the joint network is better, of the others their own.
    truth = make_truth()
    joint, validation = truth.row(TASKS), truth.validation.copy()
    validation[:, joint] = [0, 0, 9, 9]
    truth = dataclasses.replace(truth, validation=validation)
    lines = truth_regret.all_lines(truth, truth, {})
    (line,) = (one for one in lines if one.way == "joint or single")
    wanted = truth.total([joint, joint, truth.row(("c",)), truth.row(("d",))])
    assert line.totals == pytest.approx(np.full((1, 4), wanted))
    assert (line.networks == 3).all()
