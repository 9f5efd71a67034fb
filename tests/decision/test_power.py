"""The number of seeds, against simulated tests."""

import re

import numpy as np
import pytest
import scipy.stats
from group_rows import simulated

import tag_keras


def power_of(number, deviation, gain, probability):
    """The share of 40,000 simulated experiments whose one-sided t test finds the gain."""
    rng = np.random.default_rng(0)
    differences = gain + deviation * rng.normal(size=(40_000, number))
    error = differences.std(axis=1, ddof=1) / number**0.5
    quantile = scipy.stats.t.ppf(probability, number - 1)
    return (differences.mean(axis=1) / error > quantile).mean()


@pytest.mark.parametrize(
    ("deviation", "gain", "probability", "power"),
    [(0.03, 0.02, 0.8, 0.8), (0.03, 0.01, 0.95, 0.9), (0.1, 0.05, 0.5, 0.99)],
)
def test_so_many_seeds_suffice_and_one_fewer_does_not(deviation, gain, probability, power):
    number = tag_keras.plan_seeds(deviation, gain, probability, power)
    assert number > 2
    assert power_of(number, deviation, gain, probability) >= power - 0.01
    assert power_of(number - 1, deviation, gain, probability) < power + 0.01


def test_the_noise_of_rows_counts_the_correlation_of_tasks():
    # The difference of two totals of 3 tasks, each with a noise of 0.05, about a total of 3.
    for correlation, variance in ((0.0, 3 * 0.05**2), (0.9, (3 + 6 * 0.9) * 0.05**2)):
        rows, _ = simulated(num_tasks=3, num_seeds=60, noise=0.05, correlation=correlation)
        expected = tag_keras.plan_seeds((2 * variance) ** 0.5 / 3, 0.005)
        assert tag_keras.plan_seeds(rows, 0.005) == pytest.approx(expected, rel=0.2)


def test_it_stops_at_many():
    assert tag_keras.plan_seeds(1.0, 1e-6) == 10_000
    assert tag_keras.plan_seeds(0.0) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": -0.1}, "`noise` should be a share from 0 on. Received: noise=-0.1."),
        ({"noise": 0.1, "gain": 0}, "`gain` should be a positive share. Received: gain=0."),
        ({"noise": 0.1, "power": 1}, "`power` should be from 0.5 to below 1. Received: power=1."),
        ({"noise": 0.1, "probability": 0.4}, "`probability` should be from 0.5 to below 1."),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tag_keras.plan_seeds(**arguments)


def test_one_seed_tells_no_noise():
    rows, _ = simulated(num_seeds=1)
    with pytest.raises(ValueError, match="`noise` should have networks with at least two seeds"):
        tag_keras.plan_seeds(rows)
