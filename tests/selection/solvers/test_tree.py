"""Branch and bound against all groups listed, and its bounds against all choices of tasks."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
from selection_instances import all_members, all_profits, as_groups, random_problem

from tag_keras.selection.solvers.pool import Pricing
from tag_keras.selection.solvers.tree import NEVER, GroupTree, OpenNodes, PairShares, highest

CASES = [(seed, partition) for seed in range(21) for partition in (False, True)]


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


@pytest.mark.parametrize(("seed", "partition"), CASES[:12])
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


# --- The bounds of open nodes.


def draw_nodes(random, number, most, left):
    """Nodes of branch and bound, with numbers as they come."""
    constants = random.normal(size=(number, most))
    constants[:, 0] = -np.inf
    added = random.normal(size=(number, most, left))
    added[0, :, 0] = NEVER
    divisors = np.arange(2, most + 2.0) * np.ones((number, 1))
    return OpenNodes(constants, added, random.normal(size=(number, left)), divisors)


def best_choices(nodes, gains, partition):
    """The largest values (N, M) of all choices of 1 to M tasks, by the definition."""
    number, most, left = nodes.added.shape
    best = np.full((number, most), -np.inf)
    for node, more in itertools.product(range(number), range(1, most + 1)):
        for chosen in map(list, itertools.combinations(range(left), more)):
            within = gains[np.ix_(chosen, chosen)].sum(axis=1) + nodes.sums[node, chosen]
            terms = within if partition else np.maximum(within, 0)
            total = nodes.constants[node, more - 1] + terms.sum()
            total += nodes.added[node, more - 1, chosen].sum()
            value = total / nodes.divisors[node, more - 1]
            best[node, more - 1] = max(best[node, more - 1], value)
    return best


def draw_gains(random, number):
    gains = random.normal(size=(number, number)) - 0.3
    np.fill_diagonal(gains, 0)
    return gains


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_no_choice_is_above_its_bound_whatever_the_shares(seed, partition):
    random = np.random.default_rng(seed)
    left = 2 + seed % 6
    gains, nodes = draw_gains(random, left), draw_nodes(random, 5, min(left, 4), left)
    best = best_choices(nodes, gains, partition)
    shares = random.normal(size=(left, left))
    for given in (None, shares - shares.T):
        asked = PairShares(gains, partition, given)
        for one in (asked, asked.improved(nodes, 0.0)):
            np.testing.assert_array_equal(one.shares, -one.shares.T)
            bounds = one.bounds(nodes)
            # Those that cannot be chosen are not compared with each other.
            seen = best > NEVER / 100
            assert (bounds[seen] >= best[seen] - 1e-9).all()
            assert (bounds[:, 0] == -np.inf).all()


def test_with_all_tasks_to_be_taken_the_best_shares_leave_no_gap():
    # Three tasks, all to be taken, and all are served: the total is the sum of all gains and sums.
    # Without shares it is that already, because nobody can choose its partners.
    random = np.random.default_rng(0)
    gains, sums = np.abs(draw_gains(random, 3)), np.ones((1, 3))
    nodes = OpenNodes(
        np.array([[-np.inf, -np.inf, 0.0]]), np.zeros((1, 3, 3)), sums, np.ones((1, 3))
    )
    assert PairShares(gains, False).bounds(nodes)[0, 2] == pytest.approx(gains.sum() + 3)


def test_shares_make_tasks_agree_on_their_partners():
    # Everybody gains 1 from the next of three tasks in a ring and loses 1 with the other. Any two
    # of them have 0 together; each with its own best partner would have 2. With shares, a pair has
    # 0 in either direction, and the bound is 0: worked out by hand.
    gains = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    nodes = OpenNodes(
        np.array([[-np.inf, 0.0]]), np.zeros((1, 2, 3)), np.zeros((1, 3)), np.ones((1, 2))
    )
    plain = PairShares(gains, True)
    assert plain.bounds(nodes)[0, 1] == 2
    assert PairShares(gains, True, -gains).bounds(nodes)[0, 1] == 0
    better = plain
    for _ in range(20):
        better = better.improved(nodes, -1.0)
    assert better.bounds(nodes)[0, 1] < 0.2


def test_improved_shares_have_a_lower_mean_excess():
    random = np.random.default_rng(1)
    gains, nodes = draw_gains(random, 12), draw_nodes(random, 8, 6, 12)
    plain = PairShares(gains, False)
    excess = [
        np.maximum(one.bounds(nodes).max(axis=1) - 1, 0).mean()
        for one in (plain, plain.improved(nodes, 1.0))
    ]
    assert excess[1] < 0.9 * excess[0]
    # Where no bound is above the threshold, there is nothing to improve.
    assert plain.improved(nodes, 1e9) is plain


def test_the_largest_gains_are_those_of_others():
    # Of three tasks, the columns stand for the first and the last.
    sums = highest(np.array([[5.0, 2], [1, 9], [3, -4]]), np.array([0, 2]))
    np.testing.assert_array_equal(sums[:, :2], [[0, 2], [0, 9], [0, 3]])
    assert sums[1, 2] == 10
    assert (sums[[0, 2], 2] < NEVER / 2).all()
