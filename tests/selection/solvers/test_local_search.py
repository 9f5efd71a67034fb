"""Families found by random starts and by changes, against all families of small problems."""

import itertools
import math
import time

import numpy as np
import pytest
from selection_instances import all_members, make_affinities, make_problem, random_problem

from tag_keras.selection.solvers.local_search import climb_family, interchange, random_family

SEEDS = range(25)


def value_of(problem, members):
    """Sum over tasks of the best score; -inf if the groups are no family of the problem."""
    times = members.sum(axis=0)
    complete = (times == 1).all() if problem.partition else (times > 0).all()
    if not (complete and problem.admissible(members).all()):
        return -np.inf
    return float(problem.scores(members).max(axis=0).sum())


@pytest.mark.parametrize("partition", [False, True])
def test_random_families_have_every_task(partition):
    for seed in SEEDS:
        problem = random_problem(seed, 9, partition=partition)
        random = np.random.default_rng(seed)
        for num_groups in (1, 3, 20):
            members = random_family(problem, num_groups, random)
            times = members.sum(axis=0)
            assert (times == 1).all() if partition else (times > 0).all()
            assert len(members) <= num_groups and members.any(axis=1).all()
            for unit in problem.units:
                inside = members[:, list(unit)]
                assert (inside.all(axis=1) | ~inside.any(axis=1)).all()


def test_random_families_give_a_partner_to_those_that_may_not_be_alone():
    problem = make_problem(make_affinities(0, 6, "noise"))
    members = random_family(problem, 6, np.random.default_rng(0))
    assert problem.admissible(members).all() and len(members) == 6


@pytest.mark.parametrize("partition", [False, True])
def test_climbing_never_loses_and_keeps_families(partition):
    gained = 0
    for seed in SEEDS:
        problem = random_problem(seed, 9, partition=partition)
        random = np.random.default_rng(seed)
        for num_groups in (2, 4):
            start = random_family(problem, num_groups, random)
            before = value_of(problem, start)
            climbed = climb_family(problem, start, math.inf)
            after = value_of(problem, climbed)
            assert after >= before - 1e-12
            assert len(climbed) <= num_groups
            # A climb that starts at a family ends where it cannot climb any more.
            if before > -np.inf:
                gained += after > before
                again = climb_family(problem, climbed, math.inf)
                assert value_of(problem, again) == pytest.approx(after, rel=0, abs=1e-8)
    assert gained >= 5


@pytest.mark.parametrize("partition", [False, True])
def test_without_time_nothing_changes(partition):
    problem = random_problem(1, 8, partition=partition)
    start = random_family(problem, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(climb_family(problem, start, time.monotonic() - 1), start)


def test_the_best_of_many_climbs_is_the_clusters_of_a_partition():
    # Four clusters of four tasks that help each other, and harm the others.
    cluster = np.arange(16) % 4
    same = np.equal.outer(cluster, cluster)
    problem = make_problem(np.where(same, 1.0, -1.0), partition=True)
    random = np.random.default_rng(0)
    starts = [random_family(problem, 4, random) for _ in range(40)]
    values = [value_of(problem, climb_family(problem, start, math.inf)) for start in starts]
    assert max(values) == pytest.approx(16.0)


def test_interchange_never_loses_and_often_finds_the_best():
    best_found = 0
    for seed in range(30):
        problem = make_problem(make_affinities(seed, 4, "noise"))
        _, table = all_members(problem)
        best = max(
            table[list(rows)].max(axis=0).sum()
            for rows in itertools.combinations(range(len(table)), 2)
        )
        everything = len(table) - 1 - (table[::-1] > -np.inf).all(axis=1).argmax()
        start = np.array([everything, 0])
        rows = interchange(table, start, math.inf)
        value = table[rows].max(axis=0).sum()
        assert table[start].max(axis=0).sum() - 1e-12 <= value <= best + 1e-12
        # It ends where no replacement of one group gains.
        for place, row in itertools.product(range(2), range(len(table))):
            changed = rows.copy()
            changed[place] = row
            assert table[changed].max(axis=0).sum() <= value + 1e-8
        best_found += value >= best - 1e-9
    assert best_found >= 20


def test_interchange_of_one_group_finds_the_best_group():
    table = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [9.0, 9.0, -np.inf], [3.0, 0.0, 1.0]])
    assert interchange(table, np.array([0]), math.inf).tolist() == [1]
    assert interchange(table, np.array([0]), time.monotonic() - 1).tolist() == [0]
