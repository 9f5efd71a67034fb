"""Bounds of what tasks gain from each other, against all choices of tasks."""

import itertools

import numpy as np
import pytest

from tag_keras.selection.solvers.tree import NEVER, OpenNodes, PairShares, highest


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
