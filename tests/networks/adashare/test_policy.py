"""Policies against METHODS.md's worked values, closed forms, and binomial bounds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from adashare_blocks import TASKS, set_policy

from tag_keras.networks.adashare.policy import (
    AdaSharePolicy,
    active_blocks,
    check_policy,
    gumbel_noise,
    is_active,
    policy_sample,
    sharing_loss,
    sparsity_loss,
    temperature_after,
)


def logits_of(seed=0, shape=(3, 4, 2)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def noise_of(number, shape=(3, 4, 2), seed=7):
    return gumbel_noise((number, *shape), tf.constant([0, seed], "int64"))


def gap(first, second):
    """Logits of two tasks, whose first columns are these."""
    logits = np.zeros((2, len(first), 2), "float32")
    logits[:, :, 0] = first, second
    return tf.constant(logits)


def test_the_noise_is_gumbel_and_depends_on_the_seed_alone():
    noise = noise_of(20000, (2,)).numpy()
    np.testing.assert_array_equal(noise, noise_of(20000, (2,)))
    assert not np.isclose(noise, noise_of(20000, (2,), seed=8)).all()
    # Euler's constant and pi^2 / 6; four standard errors of 40000 values.
    assert noise.mean() == pytest.approx(0.577216, abs=4 * 1.2825 / 200)
    # The kurtosis of a Gumbel variable is 5.4.
    assert noise.var() == pytest.approx(1.644934, abs=4 * 1.644934 * np.sqrt(4.4) / 200)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 5.0])
def test_the_larger_entry_is_the_first_with_the_probability_of_the_logits(temperature):
    # Maddison et al. 2017 (arXiv 1611.00712), proposition 1, rounding.
    logits, number = logits_of(), 4000
    samples = policy_sample(logits, noise_of(number), temperature).numpy()
    np.testing.assert_allclose(samples.sum(axis=-1), 1, atol=1e-6)
    frequency = (samples[..., 0] > samples[..., 1]).mean(axis=0)
    expected = softmax(logits)[..., 0]
    # Four standard errors of a binomial variable: of 12 of them, all but one in 1300 stay within.
    bound = 4 * np.sqrt(expected * (1 - expected) / number)
    assert (np.abs(frequency - expected) < bound).all()


def test_samples_of_low_temperature_are_one_hot_and_of_high_temperature_even():
    for temperature in (1e-4, 1e-45):
        cold = policy_sample(logits_of(), noise_of(50), temperature).numpy()
        # Two Gumbel variables may be almost equal; in 600 pairs closer than 1e-3 for few.
        assert np.isin(cold, (0, 1)).mean() > 0.99
        assert np.isfinite(cold).all()
    hot = policy_sample(logits_of(), noise_of(50), 1e4).numpy()
    np.testing.assert_allclose(hot, 0.5, atol=1e-3)


def test_sparsity_by_hand():
    # METHODS: at the beginning every P(skip) is 1/2, so that K tasks give K ln 2.
    for active in (1, 2, 4):
        even = tf.fill((3, 4, 2), 0.5)
        assert sparsity_loss(even, active).numpy() == pytest.approx(3 * np.log(2), rel=1e-6)
    assert sparsity_loss(even, 0).numpy() == 0
    logits = logits_of()
    skip = -np.log(softmax(logits)[..., 1])
    for active in (1, 3, 4):
        expected = skip[:, 4 - active :].mean(axis=1).sum()
        assert sparsity_loss(tf.constant(logits), active).numpy() == pytest.approx(expected, 1e-5)


def test_sharing_by_hand():
    # METHODS: two tasks, L = 4, logits that differ by 1 everywhere: (1 + 2 + 3 + 4) / 4, and
    # (3 + 2 + 1 + 0) / 4.
    apart = gap([1, 1, 1, 1], [0, 0, 0, 0])
    assert sharing_loss(apart).numpy() == 2.5
    assert sharing_loss(apart, "bottom").numpy() == 1.5
    # One block apart: its weight alone.
    for index, (top, bottom) in enumerate(zip((1, 2, 3, 4), (3, 2, 1, 0), strict=True)):
        one = gap(np.eye(4)[index], np.zeros(4))
        assert sharing_loss(one, "top").numpy() == top / 4
        assert sharing_loss(one, "bottom").numpy() == bottom / 4
    assert sharing_loss(tf.fill((3, 4, 2), 0.5)).numpy() == 0


@pytest.mark.parametrize("sharing_weight", ["top", "bottom"])
def test_sharing_of_many_tasks_is_a_sum_over_pairs(sharing_weight):
    logits = logits_of()
    weights = {"top": [1, 2, 3, 4], "bottom": [3, 2, 1, 0]}[sharing_weight]
    expected = sum(
        weights[block] / 4 * abs(logits[one, block, 0] - logits[other, block, 0])
        for block in range(4)
        for one, other in ((0, 1), (0, 2), (1, 2))
    )
    assert sharing_loss(tf.constant(logits), sharing_weight).numpy() == pytest.approx(expected)
    permuted = tf.constant(logits[[2, 0, 1]])
    assert sharing_loss(permuted, sharing_weight).numpy() == pytest.approx(expected)


def test_uniform_sharing_and_sparsity_that_grows_with_depth_by_hand():
    # Two tasks whose logits differ by 1 at each of four blocks: 1 + 1 + 1 + 1.
    assert sharing_loss(gap([1, 1, 1, 1], [0, 0, 0, 0]), "uniform").numpy() == 4
    # The mean over the last three blocks of 2 (l + 1) / 4 times -log P(skip).
    logits = logits_of()
    skip = -np.log(softmax(logits)[..., 1])
    expected = (skip * [0.5, 1, 1.5, 2])[:, 1:].mean(axis=1).sum()
    assert sparsity_loss(tf.constant(logits), 3, "top").numpy() == pytest.approx(expected, 1e-5)
    assert sparsity_loss(tf.constant(logits), 0, "top").numpy() == 0


def test_gradients_go_toward_skipping_and_toward_each_other():
    logits = tf.Variable(gap([1, 2, 0, 3], [2, 0, 1, 3]))
    with tf.GradientTape(persistent=True) as tape:
        sparsity, sharing = sparsity_loss(logits, 3), sharing_loss(logits)
    gradient = tape.gradient(sparsity, logits).numpy()
    # A step goes against the gradient: less for "execute", more for "skip".
    assert (gradient[:, 1:, 0] > 0).all() and (gradient[:, 1:, 1] < 0).all()
    assert (gradient[:, 0] == 0).all()
    gradient = tape.gradient(sharing, logits).numpy()
    np.testing.assert_allclose(gradient[0, :, 0], [-0.25, 0.5, -0.75, 0])
    np.testing.assert_allclose(gradient[1, :, 0], [0.25, -0.5, 0.75, 0])
    assert (gradient[:, :, 1] == 0).all()


def test_the_sharing_of_one_task_is_0():
    logits = tf.Variable(logits_of(shape=(1, 4, 2)))
    with tf.GradientTape() as tape:
        loss = sharing_loss(logits)
    assert loss.numpy() == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), 0)


def test_curriculum_and_temperature():
    # METHODS, section 6 (d).
    assert [active_blocks(cycle, 8) for cycle in range(7)] == [1, 1, 1, 2, 2, 2, 3]
    assert [active_blocks(cycle, 8) for cycle in (20, 21, 100)] == [7, 8, 8]
    assert [active_blocks(cycle, 16) for cycle in (44, 45)] == [15, 16]
    assert [active_blocks(cycle, 3, 1) for cycle in range(4)] == [1, 2, 3, 3]
    assert temperature_after(0) == 5
    assert temperature_after(10) == pytest.approx(3.501411, abs=5e-7)
    assert temperature_after(46) == pytest.approx(0.971016, abs=5e-7)
    assert temperature_after(45) > 1 > temperature_after(46)


def test_the_last_blocks_are_active():
    assert is_active(4, 1).numpy().tolist() == [False, False, False, True]
    assert is_active(4, 4).numpy().all() and not is_active(4, 0).numpy().any()


def test_a_policy_begins_even_and_draws_anew_each_time():
    policy = AdaSharePolicy(TASKS, 4)
    np.testing.assert_array_equal(policy.probabilities(), 0.5)
    assert [v.shape for v in policy.trainable_variables] == [(3, 4, 2)]
    first, second = policy.decisions(training=True), policy.decisions(training=True)
    assert not np.isclose(first, second).any()
    np.testing.assert_allclose(np.sum(first, axis=-1), 1, atol=1e-6)
    assert policy.draws.numpy() == 2
    again = AdaSharePolicy(TASKS, 4)
    np.testing.assert_array_equal(again.decisions(training=True), first)
    other = AdaSharePolicy(TASKS, 4, seed=1)
    assert not np.isclose(other.decisions(training=True), first).any()


def test_evaluation_takes_the_more_probable_and_draws_nothing():
    policy = AdaSharePolicy(TASKS, 2)
    # At 1/2 a block is executed: the network before the search.
    assert policy.most_probable().all()
    hard = np.array([[1, 0], [0, 0], [0, 1]], bool)
    set_policy(policy, hard)
    np.testing.assert_array_equal(policy.most_probable(), hard)
    np.testing.assert_array_equal(policy.decisions()[:, :, 1], ~hard)
    assert policy.draws.numpy() == 0


@pytest.mark.parametrize("training", [False, True])
def test_blocks_that_are_not_active_are_executed(training):
    policy = AdaSharePolicy(TASKS, 4)
    set_policy(policy, np.zeros((3, 4)))
    policy.set_phase(active=1, temperature=2.0)
    decisions = policy.decisions(training).numpy()
    np.testing.assert_array_equal(decisions[:, :3], np.broadcast_to([1.0, 0.0], (3, 3, 2)))
    assert (decisions[:, 3, 0] < 1).all()
    np.testing.assert_array_equal(policy.probabilities()[:, :3], 1)
    assert policy.sample_policy(0)[:, :3].all()
    policy.set_phase(active=0, temperature=2.0)
    assert policy.sample_policy(0).all() and policy.most_probable().all()


def test_hard_policies_have_the_probabilities_of_the_logits():
    policy = AdaSharePolicy(TASKS, 4)
    policy.logits.assign(logits_of())
    expected = softmax(logits_of())[..., 0]
    np.testing.assert_allclose(policy.probabilities(), expected, rtol=1e-6)
    draws = np.array([policy.sample_policy(seed) for seed in range(2000)])
    assert draws.shape == (2000, 3, 4) and draws.dtype == bool
    # Four standard errors of a binomial variable.
    bound = 4 * np.sqrt(expected * (1 - expected) / 2000)
    assert (np.abs(draws.mean(axis=0) - expected) < bound).all()
    np.testing.assert_array_equal(policy.sample_policy(5), policy.sample_policy(5))


def test_a_policy_has_float32_under_mixed_precision_and_round_trips():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        policy = AdaSharePolicy(TASKS, 4, temperature=2.0, seed=3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert policy.decisions(training=True).dtype == "float32"
    twin = AdaSharePolicy.from_config(policy.get_config())
    assert (twin.tasks, twin.num_blocks, twin.temperature.numpy()) == (TASKS, 4, 2)
    twin.set_weights(policy.get_weights())
    np.testing.assert_array_equal(twin.decisions(True), policy.decisions(True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": []}, "`tasks` should name at least one task"),
        ({"num_blocks": 0}, "`num_blocks` should be at least 1. Received: num_blocks=0."),
        (
            {"temperature": 0.0},
            "`temperature` should be a positive number. Received: temperature=0.0.",
        ),
        ({"seed": -1}, "`seed` should be an integer from 0 on. Received: seed=-1."),
    ],
)
def test_bad_policies(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaSharePolicy(**{"tasks": TASKS, "num_blocks": 2, **arguments})


def test_bad_hard_policies():
    assert check_policy([[1, 0], [True, 0.0]], 2, 2).tolist() == [[True, False], [True, False]]
    message = r"a row for each of the 3 tasks and a column for each of the 2 .*shape=\(2, 3\)\."
    with pytest.raises(ValueError, match=message):
        check_policy(np.ones((2, 3)), 3, 2)
    for value in (0.5, np.nan, "x"):
        with pytest.raises(ValueError, match="`policy` should hold booleans: whether a task"):
            check_policy([[value, 1]], 1, 2)
