"""Selection of many tasks by column generation, against the dynamic program and programs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from selection_instances import (
    all_members,
    as_groups,
    make_affinities,
    make_problem,
    pairs_apart,
    random_problem,
)
from selection_oracle import make_affinity

import tag_keras
from tag_keras.selection.solvers.column_generation import ColumnSearch, ColumnSolver
from tag_keras.selection.solvers.cover import fewest_groups
from tag_keras.selection.solvers.dynamic_program import choose_families
from tag_keras.selection.solvers.pool import Pricing
from tag_keras.selection.solvers.problem import all_groups

HERE = "tag_keras.selection.solvers.column_generation"


@pytest.fixture(autouse=True)
def few_random_starts(monkeypatch):
    """Good starts would leave small problems nothing to do: so the proof has more to find."""
    monkeypatch.setattr(f"{HERE}._RANDOM_STARTS", 5)


def make_tolerance(problem):
    return 1e-9 * max(float(np.abs(problem.affinity).max()), 1e-290)


def solve(problem, num_groups, time_limit=None):
    solver = ColumnSolver(problem, fewest_groups(problem))
    return solver.solve(num_groups, make_tolerance(problem), time_limit)


def solve_by_table(problem, numbers):
    """(groups, score) for each number of groups, by the dynamic program over all groups."""
    members = all_groups(len(problem.alone))
    members = members[problem.admissible(members)]
    scores = problem.scores(members)
    families = choose_families(scores, numbers, make_tolerance(problem), problem.partition)
    return [(as_groups(members[rows]), scores[rows].max(axis=0).mean()) for rows in families]


def check_against_the_table(problem, num_groups):
    family = solve(problem, num_groups)
    ((groups, score),) = solve_by_table(problem, [num_groups])
    assert family.score == pytest.approx(score, rel=0, abs=1e-8)
    assert family.optimal and family.upper_bound == family.score
    assert family.groups == groups, (problem, num_groups)


def check_family(problem, family, num_groups):
    """The family is one of the problem, with that score, and nothing is above its bound."""
    members = np.zeros((len(family.groups), len(problem.alone)), bool)
    for row, group in zip(members, family.groups, strict=True):
        row[list(group)] = True
    assert 1 <= len(members) <= num_groups and problem.admissible(members).all()
    times = members.sum(axis=0)
    assert (times == 1).all() if problem.partition else (times > 0).all()
    score = problem.scores(members).max(axis=0).mean()
    assert family.score == pytest.approx(score, rel=1e-12, abs=0)
    assert family.score <= family.upper_bound
    if family.optimal:
        assert family.upper_bound == family.score


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("kind", ["noise", "clusters", "whole"])
@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 30), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_equals_the_dynamic_program(kind, partition, seeds):
    compared = 0
    for seed in seeds:
        num_tasks = 3 + seed % 7
        problem = random_problem(seed, num_tasks, kind, partition)
        try:
            fewest = len(fewest_groups(problem))
        except ValueError:
            continue
        num_groups = int(np.random.default_rng(seed).integers(fewest, num_tasks + 1))
        check_against_the_table(problem, num_groups)
        compared += 1
    assert compared > len(seeds) / 2


def test_ties_that_the_solvers_presolve_takes_for_infeasible():
    # Without a second look, its integer programs miss the first of the tied families here.
    mean = [
        [0, -1, 2, 2, -2, 1, 2, 2, 2],
        [-1, 0, 0, 1, 2, -2, 2, 1, -2],
        [-1, 1, 0, 1, 1, 1, 1, -1, 1],
        [0, -1, 1, 0, 0, -2, 0, 0, -2],
        [2, -2, -2, -2, 0, 2, 1, -1, -1],
        [1, -2, -2, 1, 1, 0, 2, -2, -1],
        [2, 0, 1, 1, 2, -2, 0, 1, -1],
        [-1, 2, -2, -1, 2, -2, -1, 0, 1],
        [-1, 0, 0, -1, -2, 1, 1, 1, 0],
    ]
    alone = np.array([0.0, -1, 0, 0, 1, 0, 0, -1, 1])
    units = ((0, 2), *((task,) for task in range(9) if task not in (0, 2)))
    apart = pairs_apart(9, (1, 3), (4, 5))
    problem = make_problem(np.array(mean, float), alone=alone, units=units, apart=apart)
    check_against_the_table(problem, 7)


def test_the_fewest_groups_where_more_are_tied_than_compared(monkeypatch):
    # Half of the affinities are 1, the others 0: more groups are tied than take part in the rule.
    # The search for the best families ends with six groups here, and four do as well.
    monkeypatch.setattr(f"{HERE}._MOST_NEW_GROUPS", 20)
    mean = np.random.default_rng(4).integers(0, 2, size=(8, 8)).astype(float)
    problem = make_problem(mean)
    ((groups, score),) = solve_by_table(problem, [8])
    family = solve(problem, 8)
    assert family.optimal and family.score == score == 1.0
    assert len(family.groups) == len(groups) < 6


@pytest.mark.parametrize("kind", ["noise", "clusters", "whole"])
def test_more_groups_than_are_of_use(kind):
    for seed, num_tasks in enumerate((4, 7)):
        for alone in (-np.inf, 0.0):
            mean = make_affinities(seed, num_tasks, kind)
            problem = make_problem(mean, alone=np.full(num_tasks, alone))
            for num_groups in (num_tasks - 1, 3 * num_tasks):
                check_against_the_table(problem, num_groups)


@pytest.mark.parametrize("num_tasks", [12, pytest.param(18, marks=pytest.mark.slow)])
def test_more_groups_than_are_of_use_for_many_tasks(num_tasks):
    # The best score of a task is that of its best pair. So the fewest groups that reach it for
    # all tasks are these pairs, once each.
    mean = make_affinities(num_tasks - 12, num_tasks, "noise")
    sources = np.where(np.eye(num_tasks, dtype=bool), -np.inf, mean).argmax(axis=0)
    pairs = sorted({tuple(sorted(pair)) for pair in enumerate(sources.tolist())})
    assert len(pairs) <= num_tasks
    score = mean[sources, np.arange(num_tasks)].mean()
    for num_groups in (len(pairs), num_tasks, 2 * num_tasks):
        family = solve(make_problem(mean), num_groups)
        assert family.groups == pairs and family.optimal
        assert family.score == pytest.approx(score)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("kind", ["noise", "clusters"])
def test_equals_a_program_over_all_groups(kind, partition):
    # The p-median problem over all 4,095 groups of 12 tasks, written down for itself.
    problem = random_problem(3, 12, kind, partition)
    problem = dataclasses.replace(problem, max_size=4)
    _, table = all_members(problem)
    num_groups = len(fewest_groups(problem)) + 1
    groups, tasks = np.nonzero(table > -np.inf)
    pairs, number = np.arange(len(groups)), len(table)
    one = np.ones(len(groups))
    serves = scipy.sparse.csr_array((one, (tasks, pairs)), shape=(12, len(groups)))
    chosen = scipy.sparse.csr_array((one, (pairs, groups)), shape=(len(groups), number))
    nothing = scipy.sparse.csr_array((12, number))
    times = scipy.sparse.csr_array((table > -np.inf).T.astype(float))
    equal = scipy.optimize.LinearConstraint
    constraints = [
        equal(scipy.sparse.hstack([nothing, serves]), 1, 1),
        equal(scipy.sparse.hstack([-chosen, scipy.sparse.identity(len(groups))]), -np.inf, 0),
        equal(np.append(np.ones(number), np.zeros(len(groups)))[None], 0, num_groups),
    ]
    if partition:
        empty = scipy.sparse.csr_array((12, len(groups)))
        constraints.append(equal(scipy.sparse.hstack([times, empty]), 1, 1))
    result = scipy.optimize.milp(
        np.append(np.zeros(number), -table[groups, tasks]),
        integrality=np.arange(number + len(groups)) < number,
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=constraints,
    )
    family = solve(problem, num_groups)
    assert family.optimal
    assert family.score == pytest.approx(-result.fun / 12, rel=0, abs=1e-6)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("kind", ["noise", "clusters"])
def test_equals_the_dynamic_program_for_many_tasks(kind, partition):
    problem = make_problem(make_affinities(1, 12, kind), partition=partition)
    answers = solve_by_table(problem, [2, 4])
    for num_groups, (groups, score) in zip((2, 4), answers, strict=True):
        family = solve(problem, num_groups)
        assert family.groups == groups and family.optimal
        assert family.score == pytest.approx(score)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "clusters"])
def test_equals_the_dynamic_program_for_fifteen_tasks(kind):
    for partition in (False, True):
        problem = make_problem(make_affinities(1, 15, kind), partition=partition)
        answers = solve_by_table(problem, [3, 4, 6])
        for num_groups, (groups, score) in zip((3, 4, 6), answers, strict=True):
            family = solve(problem, num_groups)
            assert family.groups == groups and family.optimal
            assert family.score == pytest.approx(score)


@pytest.mark.parametrize("num_tasks", [12, 24, pytest.param(40, marks=pytest.mark.slow)])
def test_finds_clusters(num_tasks):
    # Tasks help those of their cluster by 1, and harm the others: no task can score above 1.
    cluster = np.arange(num_tasks) % 4
    same = np.equal.outer(cluster, cluster)
    mean = np.where(same, 1.0, -1.0)
    wanted = as_groups(same[:4])
    for partition in (False, True):
        family = solve(make_problem(mean, partition=partition), 4, 60.0)
        assert family.optimal and family.score == pytest.approx(1.0)
        assert family.groups == wanted


@pytest.mark.parametrize("partition", [False, True])
def test_the_order_of_tasks_does_not_matter(partition):
    problem = make_problem(make_affinities(2, 12, "noise"), partition=partition)
    order = np.random.default_rng(0).permutation(12)
    permuted = dataclasses.replace(problem, affinity=problem.affinity[np.ix_(order, order)])
    first, second = solve(problem, 4), solve(permuted, 4)
    assert first.optimal and second.optimal
    assert second.score == pytest.approx(first.score)
    back = sorted(tuple(sorted(order[list(group)].tolist())) for group in second.groups)
    assert back == first.groups


@pytest.mark.parametrize("partition", [False, True])
def test_two_searches_are_equal(partition):
    problem = make_problem(make_affinities(3, 12, "clusters"), partition=partition)
    assert solve(problem, 4) == solve(problem, 4)


@pytest.mark.parametrize("partition", [False, True])
def test_the_bound_is_true_when_the_time_ends_first(partition):
    problem = make_problem(make_affinities(4, 16, "noise"), partition=partition)
    full = solve(problem, 4)
    check_family(problem, full, 4)
    assert full.optimal
    for time_limit in (1e-9, 1e-3, 0.03, 0.1):
        family = solve(problem, 4, time_limit)
        check_family(problem, family, 4)
        assert family.score <= full.score + 1e-9 <= family.upper_bound + 2e-9
        if family.optimal:
            assert family.groups == full.groups


def test_no_group_is_useless_when_the_time_ends_first():
    # As many groups as tasks, of which most families at the beginning have some twice.
    for seed, num_tasks in itertools.product(range(4), (7, 12)):
        problem = make_problem(make_affinities(seed, num_tasks, "clusters"))
        for time_limit in (0.003, 0.03):
            family = solve(problem, num_tasks, time_limit)
            check_family(problem, family, num_tasks)
            for left_out in range(len(family.groups) if len(family.groups) > 1 else 0):
                rest = family.groups[:left_out] + family.groups[left_out + 1 :]
                members = np.array([np.isin(np.arange(num_tasks), group) for group in rest])
                assert problem.scores(members).max(axis=0).mean() < family.score


def test_one_solver_answers_as_new_ones_do():
    problem = make_problem(make_affinities(5, 11, "clusters"))
    solver = ColumnSolver(problem, fewest_groups(problem))
    scores = []
    for num_groups in (1, 3, 4, 6):
        family = solver.solve(num_groups, make_tolerance(problem), None)
        check_family(problem, family, num_groups)
        fresh = solve(problem, num_groups)
        assert family.groups == fresh.groups and family.optimal and fresh.optimal
        scores.append(family.score)
    assert scores == sorted(scores)


@pytest.mark.parametrize("partition", [False, True])
def test_one_group_is_all_tasks(partition):
    mean = make_affinities(6, 30, "noise")
    family = solve(make_problem(mean, partition=partition), 1)
    assert family.groups == [tuple(range(30))] and family.optimal
    np.fill_diagonal(mean, 0.0)
    assert family.score == pytest.approx(mean.sum() / 29 / 30)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("value", [0.0, 5.0, -1e-200])
def test_affinities_that_are_all_equal(value, partition, monkeypatch):
    # All 511 groups are tied, more than a proof may need.
    monkeypatch.setattr(f"{HERE}._MOST_IN_PROOF", 200)
    monkeypatch.setattr(f"{HERE}._MOST_NEW_GROUPS", 50)
    problem = make_problem(np.full((9, 9), value), partition=partition)
    for num_groups in (2, 4):
        family = solve(problem, num_groups)
        assert family.groups == [tuple(range(9))] and family.optimal
        assert family.score == pytest.approx(value)


@pytest.mark.parametrize("partition", [False, True])
def test_the_unit_of_affinities_does_not_matter(partition):
    mean = make_affinities(7, 9, "noise")
    first = solve(make_problem(mean, partition=partition), 4)
    for unit in (1e-200, 1e-3, 1e200):
        family = solve(make_problem(unit * mean, partition=partition), 4)
        assert family.groups == first.groups and family.optimal
        assert family.score == pytest.approx(unit * first.score)
    # Nor does what a task scores everywhere.
    offset = np.random.default_rng(0).normal(size=9)
    family = solve(make_problem(mean + offset, partition=partition), 4)
    assert family.groups == first.groups and family.optimal
    assert family.score == pytest.approx(first.score + offset.mean())


@pytest.mark.parametrize("partition", [False, True])
def test_a_task_that_every_group_serves_alike(partition):
    mean = make_affinities(8, 10, "noise")
    mean[:, 0] = 3.0
    check_against_the_table(make_problem(mean, partition=partition), 3)


@pytest.mark.parametrize("partition", [False, True])
def test_one_affinity_that_exceeds_all_others(partition):
    # Ties are within 1e-9 of 1e12, so nothing but task 1 counts, which has 0 as its only partner.
    mean = make_affinities(9, 8, "noise")
    mean[0, 1] = 1e12
    problem = make_problem(mean, partition=partition)
    family = solve(problem, 2)
    check_family(problem, family, 2)
    assert family.optimal and (0, 1) in family.groups
    assert family.score == pytest.approx(1e12 / 8, rel=1e-8)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("most_tasks", [60, 5])
def test_a_coarse_stage_bounds_all_families_as_closely_as_it_says(
    partition, most_tasks, monkeypatch
):
    monkeypatch.setattr(f"{HERE}._STAGES", ((0.3, 0.02),))
    monkeypatch.setattr(f"{HERE}._MOST_TASKS", most_tasks)
    proven = 0
    for seed, kind in itertools.product(range(2), ("noise", "clusters")):
        problem = make_problem(make_affinities(seed, 9, kind), partition=partition)
        family = solve(problem, 3)
        check_family(problem, family, 3)
        ((_, score),) = solve_by_table(problem, [3])
        assert family.score <= score + 1e-9 <= family.upper_bound + 2e-9
        distance = problem.scaled()[1].mean() - family.score
        proven += family.upper_bound <= family.score + 0.3 * distance * 1.001
    # Prices for more groups may not allow it.
    assert proven == 4 or most_tasks == 5


def test_prices_are_as_good_as_they_say():
    problem = make_problem(make_affinities(2, 12, "clusters"))
    solver = ColumnSolver(problem, fewest_groups(problem))
    search = ColumnSearch(solver._problem, solver._pool, solver._start, 4, 1e-9, math.inf)
    number, bounds = 4.1, []
    for error in (2.0, 0.2, 0.0):
        duals = search._price(1000, error)
        bounds.append(duals.tasks.sum() + number * duals.group)
        least = solver._pool.duals(number, math.inf)
        assert bounds[-1] <= least.tasks.sum() + number * least.group + error + 1e-6
        # No group that is known has a larger profit.
        profits = Pricing(search.problem, duals.tasks).profits(solver._pool.members)
        assert profits.max() <= duals.group + 1e-6
    # All groups: no prices have a lower bound than the exact ones.
    members, _ = all_members(search.problem)
    profits = Pricing(search.problem, duals.tasks).profits(members)
    assert profits.max() <= duals.group + 1e-6
    assert bounds[-1] == min(bounds)


# --- Through `select_groups`.


RULES = {
    "together": [["task0", "task3"], ["task3", "task7"]],
    "apart": [["task1", "task2", "task5"], ["task0", "task9"]],
    "max_group_size": 6,
}


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("singletons", ["forbid", "baseline", {"task4": 0.5}])
def test_many_tasks_follow_the_rules(singletons, partition, monkeypatch):
    monkeypatch.setattr("tag_keras.selection.groups.TABLE_TASKS", 0)
    affinity = make_affinity(make_affinities(10, 12, "noise"))
    options = RULES | {"partition": partition}
    grouping = tag_keras.select_groups(affinity, 6, singletons, **options)
    assert grouping.optimal and len(grouping.groups) <= 6
    free = tag_keras.select_groups(affinity, 6, singletons, partition=partition)
    assert free.optimal and grouping.score <= free.score + 1e-9
    for group in grouping.groups:
        assert len(group) <= 6
        assert len({"task0", "task3", "task7"} & set(group)) in (0, 3)
        for names in RULES["apart"]:
            assert len(set(names) & set(group)) <= 1
        alone = singletons == "baseline" or group[0] in singletons
        assert len(group) > 1 or alone
    if partition:
        assert sorted(sum(grouping.groups, ())) == sorted(affinity.tasks)
    for task, index in grouping.serves.items():
        assert task in grouping.groups[index]


@pytest.mark.parametrize("partition", [False, True])
def test_the_rules_bind_as_in_the_dynamic_program(partition, monkeypatch):
    affinity = make_affinity(make_affinities(11, 10, "noise"))
    options = RULES | {"partition": partition, "singletons": "baseline"}
    by_table = tag_keras.selection_frontier(affinity, 5, **options)
    monkeypatch.setattr("tag_keras.selection.groups.TABLE_TASKS", 0)
    by_columns = tag_keras.selection_frontier(affinity, 5, **options)
    assert len(by_columns) == len(by_table)
    for one, other in zip(by_columns, by_table, strict=True):
        assert one.groups == other.groups and one.serves == other.serves and one.optimal
        assert one.score == pytest.approx(other.score)


@pytest.mark.slow
@pytest.mark.parametrize("partition", [False, True])
def test_the_frontier_of_many_tasks(partition):
    affinity = make_affinity(make_affinities(12, 16, "clusters"))
    frontier = tag_keras.selection_frontier(affinity, 3, partition=partition)
    for num_groups, grouping in enumerate(frontier, 1):
        one = tag_keras.select_groups(affinity, num_groups, partition=partition)
        assert grouping.groups == one.groups and grouping.optimal
    scores = [grouping.score for grouping in frontier]
    assert scores == sorted(scores) and len(scores) == 3


@pytest.mark.parametrize("partition", [False, True])
def test_the_frontier_never_falls_nor_do_its_bounds_without_time(partition):
    affinity = make_affinity(make_affinities(15, 40, "noise"))
    frontier = tag_keras.selection_frontier(affinity, 8, partition=partition, time_limit=0.02)
    assert not frontier[-1].optimal
    for values in ([one.score for one in frontier], [one.upper_bound for one in frontier]):
        assert values == sorted(values)
    for number, one in enumerate(frontier, 1):
        assert len(one.groups) <= number and one.upper_bound >= one.score


def test_without_time_there_still_is_a_grouping():
    affinity = make_affinity(make_affinities(13, 60, "clusters"))
    for partition in (False, True):
        grouping = tag_keras.select_groups(affinity, 12, partition=partition, time_limit=1e-3)
        assert set(grouping.serves) == set(affinity.tasks)
        assert not grouping.optimal and grouping.upper_bound > grouping.score
        assert math.isfinite(grouping.upper_bound)


def test_apart_tasks_need_as_many_groups():
    # Any two of 16 tasks are apart but for 8 pairs: these are the only groups.
    allowed = [(task, task + 1) for task in range(0, 16, 2)]
    pairs = [pair for pair in itertools.combinations(range(16), 2) if pair not in allowed]
    problem = make_problem(make_affinities(14, 16, "noise"), apart=pairs_apart(16, *pairs))
    family = solve(problem, 8)
    assert family.groups == allowed and family.optimal
