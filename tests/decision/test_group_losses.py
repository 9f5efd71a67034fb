"""Estimates of all groups: what they are pulled to, what they find, and what is refused."""

import dataclasses
import re

import numpy as np
import pytest
from group_rows import rows_of_losses, simulated

import tag_keras
from tag_keras.decision import decision, group_losses, measured, posterior


def mean_of(estimate, group, task):
    return estimate.mean[estimate.groups.index(group), estimate.tasks.index(task)]


def true_means(estimate, truth):
    return np.array(
        [[truth[group].get(task, np.nan) for task in estimate.tasks] for group in estimate.groups]
    )


def raw_means(estimate, rows):
    sums = {}
    for row in rows:
        sums.setdefault((row.tasks, row.task), []).append(row.loss)
    return np.array(
        [
            [np.mean(sums[group, task]) if task in group else np.nan for task in estimate.tasks]
            for group in estimate.groups
        ]
    )


def error(values, truth):
    # Differences between groups count, not the shifts that the seeds have in common.
    left = values - truth
    return np.nanmean((left - np.nanmean(left, axis=0)) ** 2) ** 0.5


@pytest.mark.parametrize(
    ("effects", "least"),
    [({}, 5), ({"size": 0.1}, 2.2), ({"members": 0.02}, 1.5), ({"own": 0.01}, 1.2)],
)
def test_estimates_are_closer_to_the_truth_than_means(effects, least):
    ratios = []
    for seed in range(6):
        rows, truth = simulated(num_tasks=5, num_seeds=3, seed=seed, **effects)
        estimate = tag_keras.estimate_group_losses(rows)
        true = true_means(estimate, truth)
        ratios.append(error(raw_means(estimate, rows), true) / error(estimate.mean, true))
    assert np.exp(np.mean(np.log(ratios))) > least


def test_without_noise_the_estimates_are_the_measurements():
    rows, truth = simulated(noise=1e-7, shift=0.0, members=0.02, own=0.02)
    estimate = tag_keras.estimate_group_losses(rows)
    np.testing.assert_allclose(estimate.mean, true_means(estimate, truth), atol=1e-6)


def test_the_noise_and_its_correlation_are_found():
    rows, _ = simulated(num_seeds=40, noise=0.03, shift=0.1, own=0.02, correlation=0.6)
    estimate = tag_keras.estimate_group_losses(rows)
    np.testing.assert_allclose(estimate.noise, 0.03, rtol=0.1)
    assert estimate.correlation == pytest.approx(0.6, abs=0.1)
    assert tag_keras.estimate_group_losses(simulated(num_seeds=40)[0]).correlation < 0.05


def test_groups_that_were_not_measured_follow_their_members():
    # task_1 takes 1 from the loss of task_0 wherever it is, and nothing else matters.
    tasks = tuple(f"task_{index}" for index in range(4))
    rng, rows = np.random.default_rng(0), []
    masks = [0b0001, 0b0010, 0b0100, 0b1000, 0b1111, 0b0011, 0b0101, 0b1001, 0b1101]
    for mask in masks:
        group = measured.group_of(mask, tasks)
        for seed in range(4):
            losses = 2 + 0.01 * rng.normal(size=len(group))
            losses[0] -= mask & 3 == 3
            rows += rows_of_losses({group: losses}, tasks, seed)
    estimate = tag_keras.estimate_group_losses(rows)
    for group in [("task_0", "task_1", "task_2"), ("task_0", "task_1", "task_3")]:
        assert mean_of(estimate, group, "task_0") == pytest.approx(1, abs=0.15)
    joint = estimate.standard_error[estimate.groups.index(tasks), 0]
    unknown = estimate.standard_error[estimate.groups.index(tasks[:3]), 0]
    assert joint < unknown < 0.5


def test_affinities_count_where_they_tell_of_the_losses():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 5))
    tasks = tuple(f"task_{index}" for index in range(5))
    affinity = tag_keras.Affinity(tasks, values)
    # The loss falls by 0.01 with each unit of affinity. A third of the groups are measured.
    rows, rest = [], []
    for mask in range(1, 1 << 5):
        group = measured.group_of(mask, tasks)
        inside = [tasks.index(task) for task in group]
        losses = 1 - 0.01 * (values[np.ix_(inside, inside)].sum(axis=0) - np.diag(values)[inside])
        if len(group) in (1, 5) or mask % 3 == 0:
            for seed in range(3):
                noisy = losses + 0.002 * rng.normal(size=len(group))
                rows += rows_of_losses({group: noisy}, tasks, seed)
        else:
            rest.append((group, losses))
    truth = {group: dict(zip(group, losses, strict=True)) for group, losses in rest}
    errors = []
    for source in (affinity, None, tag_keras.Affinity(tasks, rng.normal(size=(5, 5)))):
        estimate = tag_keras.estimate_group_losses(rows, source)
        left = [
            mean_of(estimate, group, task) - loss
            for group, losses in truth.items()
            for task, loss in losses.items()
        ]
        errors.append((np.mean(np.square(left)) ** 0.5, estimate.weight_of_affinity.mean()))
    unit = tag_keras.estimate_group_losses(rows, tag_keras.Affinity(tasks, 1000 * values))
    one = tag_keras.estimate_group_losses(rows, affinity)
    np.testing.assert_allclose(unit.mean, one.mean, rtol=1e-6)
    (told_error, told_weight), (without, none), (other_error, other_weight) = errors
    assert told_error < 0.7 * without
    assert none == 0
    assert other_weight < told_weight / 2
    assert other_error < 1.3 * without


def test_affinities_in_another_order_of_tasks_are_the_same():
    rows, _ = simulated(members=0.03)
    values = np.random.default_rng(1).normal(size=(4, 4))
    tasks = [f"task_{index}" for index in range(4)]
    order = [2, 0, 3, 1]
    one = tag_keras.estimate_group_losses(rows, tag_keras.Affinity(tasks, values))
    moved = tag_keras.Affinity([tasks[index] for index in order], values[np.ix_(order, order)])
    other = tag_keras.estimate_group_losses(rows, moved)
    np.testing.assert_allclose(other.mean, one.mean)


def test_the_order_of_tasks_and_rows_changes_nothing():
    rows, _ = simulated(members=0.03, own=0.01)
    one = tag_keras.estimate_group_losses(rows)
    order = [f"task_{index}" for index in (2, 0, 3, 1)]
    turned = [
        tag_keras.results.Row(
            row.network,
            tuple(sorted(row.tasks, key=order.index)),
            row.seed,
            row.task,
            row.split,
            row.loss,
            {},
            1.0,
            role="group",
        )
        for row in reversed(rows)
    ]
    other = tag_keras.estimate_group_losses(turned)
    assert other.tasks == tuple(order)
    for group in one.groups:
        same = tuple(sorted(group, key=order.index))
        for task in group:
            assert mean_of(one, group, task) == pytest.approx(mean_of(other, same, task))


def test_the_table_has_the_means():
    estimate = tag_keras.estimate_group_losses(simulated()[0])
    table = estimate.table()
    assert table.networks == estimate.groups
    np.testing.assert_array_equal(table.scores, estimate.mean)
    selection = tag_keras.select_networks(table, 2, "min")
    served = [selection.groups[index] for index in selection.serves.values()]
    assert selection.score == pytest.approx(estimate.total(served) / 4)


def test_draws_of_a_gain_are_correlated_where_networks_are_shared():
    single = [(f"task_{index}",) for index in range(4)]
    joint = [tuple(f"task_{index}" for index in range(4))] * 4
    deviations = []
    for correlation in (0.0, 0.95):
        rows, _ = simulated(num_seeds=8, own=0.05, correlation=correlation, seed=3)
        estimate = tag_keras.estimate_group_losses(rows)
        draws = estimate.draw([single, joint])
        np.testing.assert_array_equal(draws, estimate.draw([single, joint]))
        gain = estimate.total_gain(*draws, estimate.noise_correlation(single, joint))
        expected = estimate.total(joint) - estimate.total(single)
        assert estimate.probability_of_effects > 0.999
        assert gain.mean() == pytest.approx(expected, abs=4 * gain.std() / 2000**0.5)
        deviations.append(gain.std())
    # One network of two is shared, so that gains of equal deviation have a correlation of half of
    # 0.95: the sum of 4 has a variance of 4 + 12 * 0.475 instead of 4.
    assert deviations[1] / deviations[0] == pytest.approx((1 + 3 * 0.475) ** 0.5, rel=0.15)
    assert not estimate.total_gain(draws[1], draws[1], np.eye(4)).any()


def test_the_correlation_of_gains_counts_the_networks_in_common():
    estimate = tag_keras.estimate_group_losses(simulated(num_tasks=3, correlation=0.8)[0])
    a, b, c = ("task_0", "task_1"), ("task_1", "task_2"), ("task_0", "task_1", "task_2")
    rho = estimate.correlation
    expected = [[1, rho, rho / 2], [rho, 1, rho / 2], [rho / 2, rho / 2, 1]]
    np.testing.assert_allclose(estimate.noise_correlation([a, a, b], [c, c, c]), expected)


def test_the_draws_of_each_case_stay_among_themselves():
    # Where only size counts, groups of one size are equal: their gains are 0 there, at the same
    # draws for all tasks, so that the total is 0 as often as each of them.
    rows, _ = simulated(num_tasks=3, num_seeds=3, size=0.05, seed=2)
    estimate = tag_keras.estimate_group_losses(rows)
    one = [("task_0", "task_1"), ("task_0", "task_1"), ("task_0", "task_2")]
    other = [("task_0", "task_2"), ("task_1", "task_2"), ("task_1", "task_2")]
    draws = estimate.draw([one, other])
    equal = np.isclose(draws[0], draws[1], atol=1e-12)
    total = estimate.total_gain(*draws, np.eye(3))
    assert 0.2 < equal[0].mean() < 0.99
    assert np.isclose(total, 0, atol=1e-12).mean() == pytest.approx(
        equal.all(axis=0).mean(), abs=0.02
    )


def test_the_deviation_between_parts_is_that_of_the_gain():
    tasks, rng, rows = ("a", "b"), np.random.default_rng(0), []
    for seed in range(3):
        for part in range(3):
            for group in [("a",), ("b",), tasks]:
                losses = 1 + rng.normal(size=len(group))
                rows += rows_of_losses({group: losses}, tasks, seed, f"part_{part}")
    names = [f"part_{part}" for part in range(3)]
    estimate = tag_keras.estimate_group_losses(rows, parts=names)
    loss = {(row.tasks, row.seed, row.split, row.task): row.loss for row in rows}
    gains = [
        np.mean(
            [
                sum(
                    loss[tasks, seed, name, task] - loss[(task,), seed, name, task]
                    for task in tasks
                )
                for seed in range(3)
            ]
        )
        for name in names
    ]
    found = estimate.sampling_deviation([("a",), ("b",)], [tasks, tasks])
    assert found == pytest.approx(np.std(gains, ddof=1) / 3**0.5)
    # It widens the draws, and leaves their mean.
    draws = estimate.draw([[("a",), ("b",)], [tasks, tasks]])
    without = estimate.total_gain(*draws, np.eye(2))
    wide = estimate.total_gain(*draws, np.eye(2), deviation=100.0)
    # The 2.5th percentile of Student's t with 2 degrees of freedom is -4.30; with 3, it is -3.18.
    assert np.quantile(wide - without, 0.025) == pytest.approx(-430, rel=0.15)
    assert (
        tag_keras.estimate_group_losses(simulated()[0]).sampling_deviation(
            [("task_0",)] * 4, [("task_0",)] * 4
        )
        == 0
    )


def test_a_group_that_was_not_trained_deviates_like_the_others():
    tasks, rows = ("a", "b", "c"), []
    # On part 2, the loss of a is higher by 0.4 in the joint network, and by 0.1 in others.
    for part, joint, other in [("p0", 0.0, 0.0), ("p1", 0.0, 0.0), ("p2", 0.4, 0.1)]:
        for seed in range(2):
            losses = {("a", "b"): (1 + other, 1), tasks: (1 + joint, 1, 1)}
            losses |= {(task,): (1 + other * (task == "a"),) for task in tasks}
            rows += rows_of_losses(losses, tasks, seed, part)
    estimate = tag_keras.estimate_group_losses(rows, parts=["p0", "p1", "p2"])
    joint = [tasks] * 3
    # 0, 0 and 0.3 have a variance of 0.03, and their mean one of 0.01.
    for group in [("a", "b"), ("a", "c")]:
        found = estimate.sampling_deviation([group, tasks, tasks], joint)
        assert found == pytest.approx(0.1)


@pytest.mark.parametrize("number", [1, 2])
def test_few_tasks(number):
    rows, truth = simulated(num_tasks=number, noise=1e-6, own=0.1)
    estimate = tag_keras.estimate_group_losses(rows)
    np.testing.assert_allclose(estimate.mean, true_means(estimate, truth), atol=0.06)
    assert repr(estimate) == f"GroupLosses(tasks={estimate.tasks}, num_seeds=4)"


@pytest.mark.parametrize("number", [1, 2, 4])
def test_one_seed_has_estimates(number):
    estimate = tag_keras.estimate_group_losses(simulated(num_tasks=number, num_seeds=1)[0])
    assert estimate.num_seeds == 1
    assert estimate.correlation == 0
    assert np.isfinite(estimate.noise).all()
    assert np.isfinite(estimate.mean[~np.isnan(estimate.mean)]).all()


def test_three_losses_have_no_deviation():
    rows, _ = simulated(num_tasks=2, num_seeds=1)
    estimate = tag_keras.estimate_group_losses(rows)
    assert np.isinf(estimate.standard_error[estimate.groups.index(("task_0",)), 0])


def test_equal_losses_of_one_seed_have_no_deviation():
    rows = rows_of_losses({("a", "b"): (0.5, 0.5), ("a",): (0.5,), ("b",): (0.5,)}, ("a", "b"))
    estimate = tag_keras.estimate_group_losses(rows)
    inside = ~np.isnan(estimate.mean)
    np.testing.assert_array_equal(estimate.mean[inside], 0.5)
    np.testing.assert_array_equal(estimate.standard_error[inside], 0)


@pytest.mark.parametrize("unit", [1e-150, 1e-9, 1e90])
def test_the_unit_of_the_losses_does_not_matter(unit):
    rows, _ = simulated(members=0.05)
    scaled = [dataclasses.replace(row, loss=row.loss * unit) for row in rows]
    one, other = map(tag_keras.estimate_group_losses, (rows, scaled))
    np.testing.assert_allclose(other.mean / unit, one.mean, rtol=1e-6)
    np.testing.assert_allclose(other.standard_error / unit, one.standard_error, rtol=1e-5)


def test_the_cases_by_hand():
    """Two tasks and three points of the grid: nothing, size, and size and members."""
    points = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]], float)

    class Told:
        def __init__(self, log_likelihoods):
            self.log_likelihoods = np.log(log_likelihoods)

        def weigh(self, weights, cases):
            self.weights, self.cases = weights, cases

    tasks = [Told([1.0, 4.0, 2.0]), Told([1.0, 1.0, 3.0])]
    # In the third case, members is 0 in one of two points, with a prior of one half; there is one
    # distribution in the others. Evidence: 1 * 1, 4 * 1, and 4 * 1 / 2 + 2 * 3 / 2 = 5.
    prior = np.array([0.2 * 1, 0.3 * 4, 0.5 * 5])
    _, effects, size_only = group_losses._weigh(tasks, points, 0.0)
    assert effects == pytest.approx(1 - prior[0] / prior.sum())
    assert size_only == pytest.approx(prior[1] / prior[1:].sum())
    # Noise that is the same in both tasks is worth that of one: the square roots of 1, 4 and, for
    # the points of the third case, 4 and 6.
    prior = np.array([0.2, 0.3 * 2, 0.5 * (2 + 6**0.5) / 2])
    _, effects, size_only = group_losses._weigh(tasks, points, 1.0)
    assert effects == pytest.approx(1 - prior[0] / prior.sum())
    assert size_only == pytest.approx(prior[1] / prior[1:].sum())
    # Weights in the third case: a fixed point of the prior of members, worth two tasks.
    members = 0.5
    for _ in range(200):
        told = [2 * members / (2 * members + 4 * (1 - members)), 3 * members / (2 * members + 1)]
        members = (2 * 0.5 + sum(told)) / 4
    share = tasks[0].cases[1][2] / tasks[0].cases[1].sum()
    assert share == pytest.approx(told[0], rel=1e-3)


@pytest.mark.slow
def test_fifteen_tasks():
    masks = {1 << index for index in range(15)} | {(1 << 15) - 1}
    masks |= {int(mask) for mask in np.random.default_rng(0).integers(1, 1 << 15, size=60)}
    rows, truth = simulated(num_tasks=15, num_seeds=3, members=0.1, groups=masks)
    estimate = tag_keras.estimate_group_losses(rows)
    assert estimate.mean.shape == (2**15 - 1, 15)
    left = np.nanmean((estimate.mean - true_means(estimate, truth)) ** 2)
    assert left < np.nanvar(true_means(estimate, truth)) / 2


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        (tag_keras.Affinity(["a", "b"], np.zeros((2, 2))), "should be an Affinity of the tasks"),
        (np.zeros((4, 4)), "should be an Affinity of the tasks"),
        (
            tag_keras.Affinity(
                [f"task_{index}" for index in range(4)],
                np.where(np.eye(4)[[1, 0, 2, 3]] > 0, np.nan, 0.1),
                count=np.eye(4)[[1, 0, 2, 3]] == 0,
            ),
            "`affinity` should have a value for every pair",
        ),
    ],
)
def test_affinities_that_do_not_fit(affinity, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tag_keras.estimate_group_losses(simulated()[0], affinity)


def test_of_many_tasks_the_measured_groups_are_estimated(monkeypatch):
    rows, _ = simulated(num_tasks=4, num_seeds=3, members=0.05, own=0.02, seed=2)
    whole = tag_keras.estimate_group_losses(rows)
    assert whole.is_measured.all()
    monkeypatch.setattr(group_losses, "MOST_TASKS", 3)
    # All groups are measured: nothing changes, but the way in which they are chosen.
    measured = tag_keras.estimate_group_losses(rows)
    np.testing.assert_array_equal(measured.mean, whole.mean)
    np.testing.assert_array_equal(measured.standard_error, whole.standard_error)
    monkeypatch.setattr(decision, "MOST_TASKS", 3)
    assert tag_keras.decide_groups(measured, 3) == tag_keras.decide_groups(whole, 3)
    some = [row for row in rows if len(row.tasks) != 3]
    assert {len(group) for group in tag_keras.estimate_group_losses(some).groups} == {1, 2, 4}


def test_more_tasks_than_bits_of_an_integer(monkeypatch):
    for name in ("OWN", "SIZE", "MEMBERS"):
        monkeypatch.setattr(posterior, name, (0.0, 10.0))
    for name in ("SHIFT", "TILT"):
        monkeypatch.setattr(posterior, name, (0.0,))
    tasks = tuple(f"task_{index}" for index in range(66))
    halves, rng = (tasks[:33], tasks[33:]), np.random.default_rng(0)
    levels = {tasks: 1.0, **dict.fromkeys(halves, 0.5), **{(task,): 0.8 for task in tasks}}
    rows = []
    for seed in range(3):
        losses = {
            group: level + 0.01 * rng.normal(size=len(group)) for group, level in levels.items()
        }
        rows += rows_of_losses(losses, tasks, seed)
    estimate = tag_keras.estimate_group_losses(rows)
    assert estimate.total([halves[0]] * 33 + [halves[1]] * 33) == pytest.approx(33, abs=0.5)
    chosen = tag_keras.decide_groups(estimate, 2)
    assert chosen.grouping.groups == halves
    # 33 of 66, and of 52.8.
    assert chosen.gain.share == pytest.approx(0.5, abs=0.01)
    assert chosen.over_yardstick.share == pytest.approx(1 - 33 / 52.8, abs=0.01)
