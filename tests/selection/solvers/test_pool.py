"""The groups at hand and their prices, against a program of its own and all families."""

import math

import numpy as np
import pytest
import scipy.optimize
from selection_instances import all_members, as_groups, make_problem, random_problem

from tag_keras.selection.solvers.cover import fewest_groups
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.selection.solvers.pool import GroupPool, Pricing


def make_family(problem):
    groups = fewest_groups(problem)
    family = np.zeros((len(groups), len(problem.alone)), bool)
    for row, group in zip(family, groups, strict=True):
        row[list(group)] = True
    return family


def random_problems(number, partition, num_tasks=7):
    """Those of random problems that have a family."""
    for seed in range(number):
        problem = random_problem(seed, num_tasks, ("noise", "whole")[seed % 2], partition)
        try:
            yield seed, problem, make_family(problem)
        except ValueError:
            continue


def test_groups_join_once_and_only_if_they_are_allowed():
    for _, problem, family in random_problems(10, False):
        pool = GroupPool(problem, family)
        members, table = all_members(problem)
        units = [set(unit) for unit in problem.units]
        few = {tuple(sorted(a | b)) for a in units for b in units} | set(as_groups(family))
        assert as_groups(pool.members) == sorted(few & set(as_groups(members)))
        sets = np.arange(2**7)[:, None] >> np.arange(7) & 1 == 1
        assert pool.add(sets) == len(members) - len(few & set(as_groups(members)))
        assert pool.add(sets) == 0
        assert as_groups(pool.members) == as_groups(members)
        order = np.lexsort(pool.members.T)
        wanted = table[np.lexsort(members.T)]
        np.testing.assert_allclose(pool.scores[order], wanted, rtol=0, atol=1e-12)


def test_columns_join_once():
    problem = make_problem(np.random.default_rng(0).normal(size=(6, 6)))
    pool = GroupPool(problem, make_family(problem))
    pricing = Pricing(problem, np.full(6, -1.0))
    before = len(pool.values)
    profits = pricing.profits(pool.members)
    assert pool.add_profitable(pricing, float(profits.max()) + 0.1) == 0
    added = pool.add_profitable(pricing, 0.0)
    assert 0 < added <= (profits > 0).sum() and len(pool.values) == before + added
    assert pool.add_profitable(pricing, 0.0) == 0


def test_prices_of_two_pairs_by_hand():
    # 0 and 1 give each other 1, as 2 and 3 do, and every other affinity is -1. With k = 2 groups
    # the pairs are best: a sum of 4. All in one group are the other family at hand, with the mean
    # of (1, -1, -1) for each task, -4 / 3 in sum. So one group less costs 4 + 4 / 3, and prices
    # sum to what is left of 4.
    mean = np.full((4, 4), -1.0)
    mean[[0, 1, 2, 3], [1, 0, 3, 2]] = 1.0
    problem = make_problem(mean, partition=True)
    pool = GroupPool(problem, np.ones((1, 4), bool))
    pool.add_family(np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool))
    duals = pool.duals(1.5, math.inf)
    assert duals.group == pytest.approx(16 / 3)
    assert duals.tasks.sum() + 2 * duals.group == pytest.approx(4)
    # More groups are of no use.
    duals = pool.duals(2.5, math.inf)
    assert duals.group == pytest.approx(0) and duals.tasks.sum() == pytest.approx(4)


@pytest.mark.parametrize("partition", [False, True])
def test_prices_solve_the_dual_program(partition):
    # The dual program, written down for itself: least sum of u + k * v with, for each column,
    # sum of u over its tasks + v >= its value.
    for seed, problem, family in random_problems(15, partition):
        pool = GroupPool(problem, family)
        pool.add(all_members(problem)[0][::3])
        prices = np.random.default_rng(seed).normal(size=7)
        pool.add_profitable(Pricing(problem, prices), -5.0)
        number = len(family) + 0.5
        result = scipy.optimize.linprog(
            np.append(np.ones(7), number),
            A_ub=-np.hstack([pool.served, np.ones((len(pool.values), 1))]),
            b_ub=-pool.values,
            bounds=[(None, None)] * 7 + [(0, None)],
        )
        duals = pool.duals(number, math.inf)
        assert duals.tasks.sum() + number * duals.group == pytest.approx(result.fun, abs=1e-6)
        assert (pool.served @ duals.tasks + duals.group >= pool.values - 1e-6).all()
        assert duals.group >= 0


@pytest.mark.parametrize("partition", [False, True])
def test_any_prices_bound_every_family(partition):
    for seed, problem, family in random_problems(12, partition):
        members, table = all_members(problem)
        numbers = range(len(family), 6)
        families = choose_families(table, numbers, 1e-9, partition)
        for spread in (0.1, 1.0, 5.0):
            prices = spread * np.random.default_rng(seed).normal(size=7)
            profit = max(float(Pricing(problem, prices).profits(members).max()), 0.0)
            for number, rows in zip(numbers, families, strict=True):
                best = table[rows].max(axis=0).sum()
                assert best <= prices.sum() + number * profit + 1e-9


def test_no_prices_when_the_time_is_over():
    random = np.random.default_rng(0)
    problem = make_problem(random.normal(size=(40, 40)))
    pool = GroupPool(problem, np.ones((1, 40), bool))
    for _ in range(5):
        pool.add_profitable(Pricing(problem, random.normal(size=40) - 1), 0.0)
    assert pool.duals(5.0, -1.0) is None
    assert pool.duals(5.0, 60.0) is not None
