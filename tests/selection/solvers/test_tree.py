"""Profits of groups, and the search for all groups above a profit, against all groups listed."""

import dataclasses
import math
import time

import numpy as np
import pytest
from selection_instances import all_members, all_profits, as_groups, random_problem

from tag_keras.selection.solvers.pool import Pricing
from tag_keras.selection.solvers.tree import GroupTree

CASES = [(seed, partition) for seed in range(40) for partition in (False, True)]


def make_case(seed, partition, num_tasks=None):
    """A problem at prices about its scores, with all groups and their profits."""
    num_tasks = num_tasks or 3 + seed % 7
    problem = random_problem(seed, num_tasks, ("noise", "clusters", "whole")[seed % 3], partition)
    random = np.random.default_rng([seed, 1])
    prices = random.choice([0.3, 1.0]) * random.normal(size=num_tasks) + random.choice([0.0, 0.5])
    members, table = all_members(problem)
    return problem, prices, members, all_profits(problem, prices, table)


@pytest.mark.parametrize("partition", [False, True])
def test_profits_are_those_of_the_definition(partition):
    for seed in range(20):
        problem, prices, members, profits = make_case(seed, partition)
        pricing = Pricing(problem, prices)
        np.testing.assert_allclose(pricing.profits(members), profits, rtol=0, atol=1e-12)
        # Of all sets of tasks, those that are not groups have none.
        sets = np.arange(2 ** len(prices))[:, None] >> np.arange(len(prices)) & 1 == 1
        allowed = sets[pricing.profits(sets) > -np.inf]
        assert as_groups(allowed) == as_groups(members)


@pytest.mark.parametrize("partition", [False, True])
def test_climbing_never_loses(partition):
    for seed in range(20):
        problem, prices, members, profits = make_case(seed, partition)
        pricing = Pricing(problem, prices)
        known = set(as_groups(members))
        for steps in (1, 50):
            climbed = pricing.climb(members, steps)
            assert set(as_groups(climbed)) <= known
            assert (pricing.profits(climbed) >= profits - 1e-12).all()
        # No change by one unit gains more.
        changed = (climbed[:, None] ^ problem.unit_members()).reshape(-1, len(prices))
        most = pricing.profits(changed).reshape(len(climbed), -1).max(axis=1)
        assert (most <= pricing.profits(climbed) + 1e-11).all()


def test_climbing_leaves_out_what_never_becomes_a_group():
    problem, prices, _, _ = make_case(3, False, 6)
    everything, nothing = np.ones((1, 6), bool), np.zeros((1, 6), bool)
    problem = dataclasses.replace(problem, max_size=2, apart=np.zeros((6, 6), bool))
    pricing = Pricing(problem, prices)
    # All tasks are too many, and so are all but one.
    climbed = pricing.climb(np.concatenate([everything, nothing]))
    assert len(climbed) <= 1 and problem.admissible(climbed).all()


@pytest.mark.parametrize(("seed", "partition"), CASES)
def test_finds_exactly_the_groups_above_a_profit(seed, partition):
    problem, prices, members, profits = make_case(seed, partition)
    # Halfway between two profits, so that rounding decides nothing.
    levels = np.unique(np.round(profits, 9))
    middle = (levels[1:] + levels[:-1])[np.diff(levels) > 1e-6] / 2
    for part in (0.0, 0.5, 0.9, 1.0):
        if not len(middle):
            continue
        threshold = float(middle[int(part * (len(middle) - 1))])
        tree = GroupTree(Pricing(problem, prices), threshold)
        found, bound = tree.search(10**6, math.inf)
        assert not tree.open
        assert as_groups(found) == as_groups(members[profits > threshold])
        assert bound == pytest.approx(max(profits.max(), threshold), rel=0, abs=1e-9)
    above = float(profits.max()) + 0.1
    found, bound = GroupTree(Pricing(problem, prices), above).search(10**6, math.inf)
    assert len(found) == 0 and bound == above


@pytest.mark.parametrize(("seed", "partition"), CASES[:20])
def test_a_search_that_is_cut_off_still_bounds_all_profits(seed, partition):
    problem, prices, members, profits = make_case(seed, partition, 9)
    threshold = float(np.quantile(profits, 0.3))
    known = set(as_groups(members))
    for most in (1, 20, 60):
        tree = GroupTree(Pricing(problem, prices), threshold)
        found, bound = tree.search(most, math.inf)
        assert bound >= profits.max() - 1e-9
        assert set(as_groups(found)) <= known and len(set(as_groups(found))) == len(found)
        # It goes on where it ended.
        rest = [found]
        while tree.open:
            rest.append(tree.search(10**6, math.inf)[0])
        wanted = set(as_groups(members[profits > threshold + 1e-9]))
        assert wanted <= set(as_groups(np.concatenate(rest)))
    _, bound = GroupTree(Pricing(problem, prices), threshold).search(10**6, time.monotonic() - 1)
    assert bound >= profits.max() - 1e-9


def test_more_nodes_than_are_expanded_together(monkeypatch):
    monkeypatch.setattr("tag_keras.selection.solvers.tree._BATCH", 3)
    for partition in (False, True):
        problem, prices, members, profits = make_case(0, partition, 8)
        threshold = float(np.quantile(profits, 0.2)) + 1e-7
        found, _ = GroupTree(Pricing(problem, prices), threshold).search(10**6, math.inf)
        assert as_groups(found) == as_groups(members[profits > threshold])
