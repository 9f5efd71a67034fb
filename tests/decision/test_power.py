"""The number of seeds, against simulated tests."""

import re

import numpy as np
import pytest
import scipy.stats
from group_rows import rows_of_losses, simulated

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


def test_the_noise_of_rows_is_that_of_single_networks_less_the_joint_one():
    tasks, rng, rows = ("a", "b"), np.random.default_rng(0), []
    totals = []
    for seed in range(5):
        joint, single = rng.normal(size=(2, 2)) + 10
        losses = {tasks: joint, ("a",): single[:1], ("b",): single[1:]}
        rows += rows_of_losses(losses, tasks, seed)
        totals.append((joint.sum(), single.sum()))
    # A seed that only the joint network has does not count for the differences.
    rows += rows_of_losses({tasks: (10.0, 10.0)}, tasks, seed=9)
    joint, single = np.transpose(totals)
    deviation = np.std(single - joint, ddof=1) / np.mean([*joint, 20.0])
    for gain in (0.01, 0.05):
        assert tag_keras.plan_seeds(rows, gain) == tag_keras.plan_seeds(float(deviation), gain)


def test_it_stops_at_many():
    assert tag_keras.plan_seeds(1.0, 1e-6) == 10_000
    assert tag_keras.plan_seeds(0.0) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": -0.1}, "`noise` should be rows, or a share from 0 on. Received: noise=-0.1."),
        (
            {"noise": "rows"},
            "`noise` should be rows, or a share from 0 on. Received: noise='rows'.",
        ),
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
    with pytest.raises(ValueError, match="at least two seeds in common, to tell the noise"):
        tag_keras.plan_seeds(rows)
