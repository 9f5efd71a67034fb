"""Proximal inter-task affinity, against METHODS' worked example and a loop over the pairs."""

import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import attribute

from tag_keras.gradient_methods.selective_updates.proximal_affinity import (
    group_affinity,
    moving_average,
)


def measured(before, after, group, present=None):
    num_tasks = len(before)
    present = np.ones(num_tasks, bool) if present is None else present
    arguments = [np.asarray(before, "float32"), np.asarray(after, "float32")]
    values, visited = group_affinity(
        *[tf.constant(one) for one in arguments], tf.constant(group), tf.constant(present)
    )
    assert np.array_equal(values.numpy()[~visited.numpy()], np.zeros((~visited.numpy()).sum()))
    return np.where(visited.numpy(), values.numpy(), np.nan)


def test_the_worked_example():
    # A helps itself by .2 and harms B by .05. Then B gains 2/21 and C loses .1, halved because
    # they are two: a conflict, booked to both as -1/21; A loses .025, a half by each of them. All
    # times beta = .1.
    losses = [(1.0, 2.0, 4.0), (0.8, 2.1, 4.0), (0.82, 1.9, 4.4)]
    groups = [[True, False, False], [False, True, True]]
    average = tf.zeros((3, 3))
    for before, after, group in zip(losses, losses[1:], groups, strict=False):
        values, visited = group_affinity(
            tf.constant(before), tf.constant(after), tf.constant(group), tf.fill([3], True)
        )
        average = moving_average(average, values, visited, 0.1)
    expected = [
        [0.02, -0.005, 0.0],
        [-0.00125, 0.0047619047619, -0.0047619047619],
        [-0.00125, -0.0047619047619, 0.0],
    ]
    np.testing.assert_allclose(average, expected, atol=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_random_losses_against_a_loop_over_the_pairs(seed):
    rng = np.random.default_rng(seed)
    num_tasks = int(rng.integers(1, 7))
    before = rng.uniform(0.5, 2.0, num_tasks)
    after = before * rng.uniform(0.8, 1.2, num_tasks)
    after[rng.uniform(size=num_tasks) < 0.1] = np.nan
    before[rng.uniform(size=num_tasks) < 0.1] = rng.choice([0.0, -1.0])
    group, present = rng.uniform(size=(2, num_tasks)) < [[0.5], [0.8]]
    # Losses are float32.
    before, after = (np.asarray(one, "float32").astype("float64") for one in (before, after))
    with np.errstate(invalid="ignore"):
        expected = attribute(before, after, group, present)
    np.testing.assert_allclose(measured(before, after, group, present), expected, atol=1e-6)


def test_permuting_the_tasks_permutes_the_affinities():
    rng = np.random.default_rng(0)
    before, after, order = rng.uniform(1, 2, 5), rng.uniform(1, 2, 5), rng.permutation(5)
    group = np.array([True, False, True, True, False])
    permuted = measured(before[order], after[order], group[order])
    expected = measured(before, after, group)[np.ix_(order, order)]
    np.testing.assert_array_equal(permuted, expected)


def test_one_task_alone_is_the_source_of_the_whole_change():
    values = measured([1.0, 2.0], [0.9, 2.2], [True, False])
    np.testing.assert_allclose(values, [[0.1, -0.1], [np.nan, np.nan]], atol=1e-6)


def test_a_conflict_is_seen_however_small_the_gains():
    # 1e-7 of one and -1e-7 of the other, whose product squared is 0 in float32.
    before = np.array([1e-30, 1e-30], "float32")
    after = before * np.array([0.5, 1.5], "float32")
    values = measured(before, after, [True, True])
    np.testing.assert_allclose(values, [[0.25, -0.25], [-0.25, np.nan]], atol=1e-6)


def test_a_task_without_labels_counts_in_nothing():
    values = measured([1.0, 0.0, 2.0], [0.9, 0.0, 2.2], [True, True, False], [True, False, True])
    # The group is of one, not of two.
    expected = np.full((3, 3), np.nan)
    expected[0, [0, 2]] = [0.1, -0.1]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_the_diagonal_is_never_negative():
    rng = np.random.default_rng(1)
    average = tf.zeros((4, 4))
    losses = tf.constant(rng.uniform(1, 2, 4), "float32")

    @tf.function
    def moved(average, losses, following, group):
        values, visited = group_affinity(losses, following, group, tf.fill([4], True))
        return moving_average(average, values, visited, 0.05)

    for _ in range(200):
        following = losses * tf.constant(rng.uniform(0.8, 1.25, 4), "float32")
        group = tf.constant(rng.uniform(size=4) < 0.5)
        average = moved(average, losses, following, group)
        assert np.diag(average).min() >= 0
        losses = following
    assert average.numpy().min() < 0


def test_the_moving_average_of_a_constant():
    average = tf.zeros((2, 2))
    visited = tf.constant([[True, False], [True, True]])
    for _ in range(30):
        average = moving_average(average, tf.fill((2, 2), 0.7), visited, 0.1)
    # v (1 - (1 - beta)^T), from 0 and without correction.
    expected = 0.7 * (1 - 0.9**30)
    np.testing.assert_allclose(average, [[expected, 0], [expected, expected]], rtol=1e-5)
