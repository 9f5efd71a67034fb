"""Estimates of all groups: what they are pulled to, what they find, and what is refused."""

import re

import numpy as np
import pytest
from group_rows import rows_of_losses, simulated

import tag_keras
from tag_keras.decision import measured


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
    # In a third of the groups, the loss falls by 0.01 with each unit of affinity.
    told, rest = [], []
    for mask in range(1, 1 << 5):
        group = measured.group_of(mask, tasks)
        inside = [tasks.index(task) for task in group]
        losses = 1 - 0.01 * (values[np.ix_(inside, inside)].sum(axis=0) - np.diag(values)[inside])
        for seed in range(3):
            noisy = losses + 0.002 * rng.normal(size=len(group))
            keep = len(group) in (1, 5) or mask % 3 == 0
            (told if keep else rest).append((group, losses))
            if keep:
                rest += []
                told[-1] = (group, noisy, seed)
    rows = [
        row for group, losses, seed in told for row in rows_of_losses({group: losses}, tasks, seed)
    ]
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


def test_draws_of_a_gain_are_correlated_over_the_tasks():
    # The same noise in all tasks: the deviation of a total is that of one task times their number.
    single = [(f"task_{index}",) for index in range(4)]
    joint = [tuple(f"task_{index}" for index in range(4))] * 4
    deviations = []
    for correlation in (0.0, 0.95):
        rows, _ = simulated(num_seeds=8, own=0.05, correlation=correlation, seed=3)
        estimate = tag_keras.estimate_group_losses(rows)
        draws = estimate.draw([single, joint])
        np.testing.assert_array_equal(draws, estimate.draw([single, joint]))
        gain = estimate.total_gain(*draws)
        expected = estimate.total(joint) - estimate.total(single)
        assert estimate.probability_of_effects > 0.999
        assert gain.mean() == pytest.approx(expected, abs=4 * gain.std() / 2000**0.5)
        deviations.append(gain.std())
    assert deviations[1] / deviations[0] == pytest.approx(2, rel=0.2)
    assert not estimate.total_gain(draws[1], draws[1]).any()


def test_the_deviation_between_parts_is_that_of_the_gain():
    tasks, rng, rows = ("a", "b"), np.random.default_rng(0), []
    for seed in range(3):
        for part in range(4):
            for group in [("a",), ("b",), tasks]:
                losses = 1 + rng.normal(size=len(group))
                rows += rows_of_losses({group: losses}, tasks, seed, f"part_{part}")
    names = [f"part_{part}" for part in range(4)]
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
    assert found == pytest.approx(np.std(gains, ddof=1) / 2)
    # It widens the draws, and leaves their mean.
    draws = estimate.draw([[("a",), ("b",)], [tasks, tasks]])
    without = estimate.total_gain(*draws)
    wide = estimate.total_gain(*draws, deviation=100.0)
    # Student's t with 3 degrees of freedom has a variance of 3, and its quartiles at 0.765.
    assert np.quantile(wide - without, [0.25, 0.75]) == pytest.approx([-76.5, 76.5], rel=0.1)
    assert (
        tag_keras.estimate_group_losses(simulated()[0]).sampling_deviation(
            [("task_0",)] * 4, [("task_0",)] * 4
        )
        == 0
    )


def test_a_group_that_was_not_trained_deviates_like_the_others():
    tasks, rows = ("a", "b", "c"), []
    # On part 1, the loss of a is higher by 0.4 in the joint network, and by 0.1 in others.
    for part, joint, other in [("p0", 0.0, 0.0), ("p1", 0.4, 0.1)]:
        for seed in range(2):
            losses = {("a", "b"): (1 + other, 1), tasks: (1 + joint, 1, 1)}
            losses |= {(task,): (1 + other * (task == "a"),) for task in tasks}
            rows += rows_of_losses(losses, tasks, seed, part)
    estimate = tag_keras.estimate_group_losses(rows, parts=["p0", "p1"])
    joint = [tasks] * 3
    # Two parts whose difference is 0.3 have a variance of 0.045, and their mean one of 0.0225.
    for group in [("a", "b"), ("a", "c")]:
        found = estimate.sampling_deviation([group, tasks, tasks], joint)
        assert found == pytest.approx(0.0225**0.5)


@pytest.mark.parametrize("number", [1, 2])
def test_few_tasks(number):
    rows, truth = simulated(num_tasks=number, noise=1e-6, own=0.1)
    estimate = tag_keras.estimate_group_losses(rows)
    np.testing.assert_allclose(estimate.mean, true_means(estimate, truth), atol=0.06)
    assert repr(estimate) == f"GroupLosses(tasks={estimate.tasks}, num_seeds=4)"


def test_one_seed_has_estimates():
    estimate = tag_keras.estimate_group_losses(simulated(num_seeds=1)[0])
    assert estimate.num_seeds == 1
    assert estimate.correlation == 0
    assert np.isfinite(estimate.noise).all()
    assert np.isfinite(estimate.mean[~np.isnan(estimate.mean)]).all()


def test_three_losses_have_no_deviation():
    rows, _ = simulated(num_tasks=2, num_seeds=1)
    estimate = tag_keras.estimate_group_losses(rows)
    assert np.isinf(estimate.standard_error[estimate.groups.index(("task_0",)), 0])


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
