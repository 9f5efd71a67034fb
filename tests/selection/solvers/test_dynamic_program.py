"""The dynamic program that selects groups, against exhaustive search and an integer program."""

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from selection_oracle import (
    list_groups,
    make_affinity,
    random_means,
    score_in_group,
    score_table,
    search_exhaustively,
    search_families,
    search_partitions,
)

import tag_keras

RULES = ["forbid", "baseline"]


def check_against_oracle(mean, max_groups, singletons):
    affinity = make_affinity(mean)
    answers = search_exhaustively(mean, max_groups, singletons)
    for num_groups, (score, groups) in enumerate(answers, 1):
        grouping = tag_keras.select_groups(affinity, num_groups, singletons)
        expected = tuple(tuple(affinity.tasks[task] for task in group) for group in groups)
        assert grouping.groups == expected, (mean.tolist(), num_groups)
        assert grouping.score == pytest.approx(score, rel=0, abs=1e-9 * np.abs(mean).max())
        assert grouping.optimal is True and grouping.upper_bound == grouping.score
        check_serves(mean, groups, grouping)


def check_serves(mean, groups, grouping, alone=None):
    for task, name in enumerate(grouping.tasks):
        own = alone[task] if alone else 0.0
        scores = [score_in_group(mean, g, task, own) if task in g else -math.inf for g in groups]
        first = next(i for i, score in enumerate(scores) if score >= max(scores) - 1e-12)
        assert grouping.serves[name] == first
    assert set(grouping.serves.values()) == set(range(len(groups)))


# For 6 tasks the families of 4 groups and more are too many to list for each matrix.
@pytest.mark.parametrize("singletons", RULES)
@pytest.mark.parametrize("kind", ["normal", "rounded", "negative"])
@pytest.mark.parametrize(
    ("num_tasks", "max_groups", "count"),
    [(2, 3, 10), (3, 4, 15), (4, 5, 15), (5, 5, 6), (6, 3, 5)],
)
def test_equals_exhaustive_search(num_tasks, max_groups, count, kind, singletons):
    for seed in range(count):
        check_against_oracle(random_means(seed, num_tasks, kind), max_groups, singletons)


@pytest.mark.parametrize("kind", ["normal", "rounded"])
def test_equals_exhaustive_search_for_six_tasks_and_four_groups(kind):
    check_against_oracle(random_means(0, 6, kind), 4, "forbid")


@pytest.mark.parametrize("levels", [[0.0, 1.0], [-1.0, 1.0], [-1.0, 0.0, 1.0]])
def test_ties_everywhere(levels):
    for seed in range(10):
        mean = np.random.default_rng(seed).choice(levels, size=(5, 5))
        for singletons in RULES:
            check_against_oracle(mean, 4, singletons)


@pytest.mark.parametrize("size", [1e-11, 2.7e-10, 8.3e-10, 3.1e-9, 1e-7])
def test_ties_are_counted_within_the_tolerance(size):
    # Whole numbers and noise of about the tolerance: many families are just inside or outside.
    for seed in range(12):
        random = np.random.default_rng(seed)
        mean = random.choice([0.0, 1.0], size=(4, 4)) + size * random.integers(-3, 4, size=(4, 4))
        affinity = make_affinity(mean)
        for num_groups, (_, groups) in enumerate(search_exhaustively(mean, 4, "forbid"), 1):
            grouping = tag_keras.select_groups(affinity, num_groups)
            expected = tuple(tuple(affinity.tasks[task] for task in group) for group in groups)
            assert grouping.groups == expected, (seed, num_groups)
            assert len(set(grouping.serves.values())) == len(groups)


def maximise_by_integer_program(mean, num_groups, singletons):
    """The best score, by an integer program with a column for each group and each task in it."""
    alone = [None if singletons == "forbid" else 0.0] * len(mean)
    groups = list_groups(alone)
    table = score_table(mean, groups, alone)
    tasks, rows = np.nonzero(np.isfinite(table.T))
    num_pairs, num_candidates = len(tasks), len(groups)
    one = np.ones(num_pairs)
    serve = scipy.sparse.coo_array((one, (tasks, np.arange(num_pairs))), (len(mean), num_pairs))
    chosen = scipy.sparse.coo_array(
        (-one, (np.arange(num_pairs), rows)), (num_pairs, num_candidates)
    )
    constraints = [
        scipy.optimize.LinearConstraint(
            scipy.sparse.hstack([serve, scipy.sparse.coo_array((len(mean), num_candidates))]), 1, 1
        ),
        scipy.optimize.LinearConstraint(
            scipy.sparse.hstack([scipy.sparse.eye(num_pairs), chosen]), -np.inf, 0
        ),
        scipy.optimize.LinearConstraint(
            np.r_[np.zeros(num_pairs), np.ones(num_candidates)][None], 0, num_groups
        ),
    ]
    gain = np.r_[-table[rows, tasks], np.zeros(num_candidates)]
    integrality = np.r_[np.zeros(num_pairs), np.ones(num_candidates)]
    result = scipy.optimize.milp(
        gain, constraints=constraints, integrality=integrality, bounds=scipy.optimize.Bounds(0, 1)
    )
    return -result.fun / len(mean)


@pytest.mark.parametrize("singletons", RULES)
@pytest.mark.parametrize("num_groups", [2, 3, 4, 5])
def test_equals_an_integer_program(num_groups, singletons):
    mean = random_means(5, 8, "negative")
    grouping = tag_keras.select_groups(make_affinity(mean), num_groups, singletons)
    expected = maximise_by_integer_program(mean, num_groups, singletons)
    assert grouping.score == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_fifteen_tasks_in_planted_groups():
    # Inside its own group a task gets at least 1 from each member, the same from all; from
    # outside at most -1. With a network for each group, that is the best there is for all of
    # them. Shuffled, so that no group is contiguous.
    random = np.random.default_rng(3)
    labels = random.permutation(np.repeat(np.arange(4), [3, 4, 3, 5]))
    inside = labels[:, None] == labels
    level = 1 + random.random(15)
    mean = np.where(inside, level, -1 - random.random((15, 15)))
    affinity = make_affinity(mean)
    planted = {
        tuple(affinity.tasks[task] for task in np.flatnonzero(labels == label))
        for label in range(4)
    }
    # The largest table there is: one for all numbers of groups.
    _, _, three, four = tag_keras.selection_frontier(affinity, 4)
    assert set(four.groups) == planted
    assert four.score == pytest.approx(level.mean())
    # With three, two planted groups have to share, or lend their members: at least as good as the
    # best merger, and short of the four.
    merged = max(
        np.mean(
            [
                np.mean([mean[s, t] for s in range(15) if s != t and joint[s] == joint[t]])
                for t in range(15)
            ]
        )
        for pair in itertools.combinations(range(4), 2)
        for joint in [np.where(labels == pair[0], pair[1], labels)]
    )
    assert merged - 1e-12 <= three.score < four.score


def mean_with_one_helper(num_tasks):
    # Task 0 helps all others by 1 and nobody else helps: {0} and m others score 1 in sum,
    # whatever m, so that all ways to part the others are tied.
    mean = np.zeros((num_tasks, num_tasks))
    mean[0] = 1.0
    return make_affinity(mean)


def test_many_thousands_of_ties_end_soon_and_always_alike():
    first, second = (tag_keras.select_groups(mean_with_one_helper(12), 6) for _ in range(2))
    assert first == second
    assert first.score == pytest.approx(6 / 12)
    # 0 in each of the six groups, and each other task once.
    assert sum(map(len, first.groups)) == 6 + 11


def test_search_among_ties_ends_at_its_limit_with_an_optimum(monkeypatch):
    full = tag_keras.select_groups(mean_with_one_helper(8), 3)
    assert full.groups[:2] == (("task0", "task1"), ("task0", "task2"))
    monkeypatch.setattr("tag_keras.selection.solvers.dynamic_program._MOST_TIE_STEPS", 5)
    short = tag_keras.select_groups(mean_with_one_helper(8), 3)
    assert short.groups != full.groups
    assert (len(short.groups), short.score) == (3, pytest.approx(full.score))


# --- Every option, with ties planted: affinities are small whole numbers.


def draw_options(random, num_tasks):
    """Options of `select_groups`, and the arguments of `list_groups` for the same."""
    tasks = [f"task{index}" for index in range(num_tasks)]
    rule = random.choice(["forbid", "baseline", "dict"])
    alone = [{"forbid": None, "baseline": 0.0}.get(rule, int(random.integers(-2, 3)))] * num_tasks
    if rule == "dict":
        alone = [score if random.random() < 0.6 else None for score in alone]
        rule = {task: score for task, score in zip(tasks, alone, strict=True) if score is not None}
    options = {"singletons": rule if isinstance(rule, dict) else str(rule)}
    options["partition"] = bool(random.random() < 0.5)
    limits = {}
    if random.random() < 0.4:
        smallest = 2 if rule == "forbid" else 1
        limits["max_size"] = int(random.integers(smallest, num_tasks + 1))
        options["max_group_size"] = limits["max_size"]
    for name in ("together", "apart"):
        if random.random() < 0.3:
            sets = [
                random.choice(num_tasks, size=min(num_tasks, size), replace=False).tolist()
                for size in random.choice([1, 2, 2, 3], size=random.integers(1, 3))
            ]
            limits[name] = sets
            options[name] = [[tasks[task] for task in names] for names in sets]
    return options, alone, limits


def check_options(seed, num_tasks, search):
    random = np.random.default_rng([seed, num_tasks])
    mean = random.integers(-3, 4, size=(num_tasks, num_tasks)).astype(float)
    options, alone, limits = draw_options(random, num_tasks)
    affinity, partition = make_affinity(mean), options["partition"]
    groups = list_groups(alone, **limits)
    table = score_table(mean, groups, alone)
    answers = search(groups, table, num_tasks, 1e-9, partition)
    number = int(random.integers(1, num_tasks + 1))
    if answers[-1] is None:
        with pytest.raises(ValueError, match=r"should|cannot part|No family"):
            tag_keras.selection_frontier(affinity, num_tasks, **options)
        return False
    frontier = tag_keras.selection_frontier(affinity, num_tasks, **options)
    possible = [answer for answer in answers if answer is not None]
    assert len(frontier) == len(possible)
    for grouping, (score, family) in zip(frontier, possible, strict=True):
        expected = tuple(tuple(affinity.tasks[task] for task in group) for group in family)
        assert grouping.groups == expected, (mean.tolist(), options)
        assert grouping.score == pytest.approx(score, abs=1e-9)
        assert grouping.optimal and grouping.upper_bound == grouping.score
        check_serves(mean, family, grouping, alone)
    if answers[number - 1] is None:
        fewest = num_tasks + 1 - len(possible)
        with pytest.raises(ValueError, match=f"`num_groups` should be at least {fewest}: fewer"):
            tag_keras.select_groups(affinity, number, **options)
    else:
        one = tag_keras.select_groups(affinity, number, **options)
        assert one == frontier[number - num_tasks - 1]
    return True


@pytest.mark.parametrize(
    ("num_tasks", "seeds"),
    [
        *((number, range(60)) for number in range(2, 8)),
        *(pytest.param(number, range(60, 200), marks=pytest.mark.slow) for number in range(3, 8)),
    ],
)
def test_every_option_equals_a_search_over_the_ways_to_part_the_tasks(num_tasks, seeds):
    solved = sum(check_options(seed, num_tasks, search_partitions) for seed in seeds)
    # The others cannot be covered, which the search finds as well.
    assert solved > len(seeds) / 2


@pytest.mark.parametrize(("num_tasks", "count"), [(2, 30), (3, 60), (4, 60), (5, 8)])
def test_every_option_equals_a_search_over_all_families(num_tasks, count):
    for seed in range(1000, 1000 + count):
        check_options(seed, num_tasks, search_families)


def test_arrays_of_any_size_give_the_same(monkeypatch):
    # So few together that small tables take every turn that those of 15 tasks do.
    here = "tag_keras.selection.solvers.dynamic_program"
    monkeypatch.setattr(f"{here}._LARGEST_ARRAY", 8)
    for together in (1, 2, 3):
        monkeypatch.setattr(f"{here}._TOGETHER", together)
        for seed in range(8):
            check_options(seed, 4, search_partitions)
            check_against_oracle(random_means(seed, 4, "rounded"), 3, "forbid")
