"""Network selection: answers against exhaustive search, the rule for ties, files, the script."""

import functools
import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

import tag_keras
from tag_keras import group_selection, network_selection, selection_solver

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RULES = ["forbid", "baseline"]


def make_affinity(mean, tasks=None):
    return tag_keras.Affinity(tasks or [f"task{index}" for index in range(len(mean))], mean)


def random_means(seed, num_tasks, kind):
    random = np.random.default_rng([seed, num_tasks])
    mean = random.normal(size=(num_tasks, num_tasks))
    if kind == "rounded":
        return np.round(mean * 0.3, 1)
    # Relative to a step that helps nobody, most affinities can be negative.
    return mean - 0.5 if kind == "negative" else mean


# --- The oracle: every family of groups, by the definitions, one at a time.


@functools.cache
def all_groups(num_tasks, singletons):
    smallest = 2 if singletons == "forbid" else 1
    sizes = range(smallest, num_tasks + 1)
    return sorted(c for size in sizes for c in itertools.combinations(range(num_tasks), size))


@functools.cache
def all_families(num_candidates, size):
    numbers = itertools.chain.from_iterable(itertools.combinations(range(num_candidates), size))
    count = math.comb(num_candidates, size) * size
    return np.fromiter(numbers, np.int16, count).reshape(-1, size)


def score_in_group(mean, group, task):
    others = [mean[source][task] for source in group if source != task]
    return math.fsum(others) / len(others) if others else 0.0


def score_table(mean, singletons):
    groups = all_groups(len(mean), singletons)
    table = np.full((len(groups), len(mean)), -np.inf)
    for row, group in enumerate(groups):
        for task in group:
            table[row, task] = score_in_group(mean, group, task)
    return groups, table


def family_values(table, size):
    families = all_families(len(table), size)
    best = np.full((len(families), table.shape[1]), -np.inf)
    for column in families.T:
        np.maximum(best, table[column], out=best)
    return best.mean(axis=1)


def search_exhaustively(mean, max_groups, singletons):
    """(score, groups) of the best family for 1, 2, .. groups, by the rule for ties."""
    groups, table = score_table(mean, singletons)
    tolerance = 1e-9 * np.abs(table[np.isfinite(table)]).max()
    values, answers = [], []
    for num_groups in range(1, min(max_groups, len(groups)) + 1):
        values.append(family_values(table, num_groups))
        best = max(value.max() for value in values)
        size = next(i for i, value in enumerate(values, 1) if value.max() >= best - tolerance)
        rows = np.flatnonzero(values[size - 1] >= best - tolerance)
        families = [[groups[i] for i in all_families(len(groups), size)[row]] for row in rows]
        chosen = min(families, key=lambda family: (sum(map(len, family)), sorted(family)))
        answers.append((best, sorted(chosen)))
        # Nothing beats every task at its own best, whatever the number of groups.
        if values[-1].max() >= table.max(axis=0).mean() - 1e-6 * tolerance:
            break
    return answers + [answers[-1]] * (max_groups - len(answers))


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


def check_serves(mean, groups, grouping):
    for task, name in enumerate(grouping.tasks):
        scores = [score_in_group(mean, g, task) if task in g else -math.inf for g in groups]
        first = next(i for i, score in enumerate(scores) if score >= max(scores) - 1e-12)
        assert grouping.serves[name] == first
    assert set(grouping.serves.values()) == set(range(len(groups)))


# For 6 tasks the families of 4 groups and more are too many to list for each matrix.
@pytest.mark.parametrize("singletons", RULES)
@pytest.mark.parametrize("kind", ["normal", "rounded", "negative"])
@pytest.mark.parametrize(
    ("num_tasks", "max_groups", "count"),
    [(2, 3, 20), (3, 4, 25), (4, 5, 25), (5, 6, 20), (6, 3, 10)],
)
def test_equals_exhaustive_search(num_tasks, max_groups, count, kind, singletons):
    for seed in range(count):
        check_against_oracle(random_means(seed, num_tasks, kind), max_groups, singletons)


@pytest.mark.parametrize("kind", ["normal", "rounded"])
def test_equals_exhaustive_search_for_six_tasks_and_four_groups(kind):
    for seed in range(3):
        check_against_oracle(random_means(seed, 6, kind), 4, "forbid")


@pytest.mark.parametrize("levels", [[0.0, 1.0], [-1.0, 1.0], [-1.0, 0.0, 1.0]])
def test_ties_everywhere(levels):
    for seed in range(25):
        mean = np.random.default_rng(seed).choice(levels, size=(5, 5))
        for singletons in RULES:
            check_against_oracle(mean, 4, singletons)


def test_a_task_served_equally_well_goes_to_the_first_of_its_groups():
    # Onto 0: 0.15 from 1, and 0.1 from 2 and 0.2 from 3, with a mean of 0.15 that rounding makes
    # larger. 0 and 1 keep to themselves; 2 and 3 need 0 and each other.
    mean = np.array(
        [[0.0, 1.0, 1.0, 1.0], [0.15, 0.0, -9, -9], [0.1, -9, 0.0, 0.5], [0.2, -9, 0.5, 0.0]]
    )
    assert (0.1 + 0.2) / 2 > 0.15
    grouping = tag_keras.select_groups(make_affinity(mean), 2)
    assert grouping.groups == (("task0", "task1"), ("task0", "task2", "task3"))
    assert grouping.serves == {"task0": 0, "task1": 0, "task2": 1, "task3": 1}


@pytest.mark.parametrize("size", [1e-11, 2.7e-10, 8.3e-10, 3.1e-9, 1e-7])
def test_ties_are_counted_within_the_tolerance(size):
    # Whole numbers and noise of about the tolerance: many families are just inside or outside.
    for seed in range(20):
        random = np.random.default_rng(seed)
        mean = random.choice([0.0, 1.0], size=(4, 4)) + size * random.integers(-3, 4, size=(4, 4))
        affinity = make_affinity(mean)
        for num_groups, (_, groups) in enumerate(search_exhaustively(mean, 4, "forbid"), 1):
            grouping = tag_keras.select_groups(affinity, num_groups)
            expected = tuple(tuple(affinity.tasks[task] for task in group) for group in groups)
            assert grouping.groups == expected, (seed, num_groups)
            assert len(set(grouping.serves.values())) == len(groups)


def test_worked_example():
    # Onto a: b 0.2, c 0.1.  Onto b: a 0.3, c -0.3.  Onto c: a -0.1, b -0.2.
    # One group: a (0.2 + 0.1) / 2 = 0.15, b (0.3 - 0.3) / 2 = 0, c (-0.1 - 0.2) / 2 = -0.15,
    # which is 0 in the mean. Two: {a, b} gives a 0.2 and b 0.3, {a, c} gives c -0.1: 0.4 / 3,
    # and each task has its best partner. A third group is of no use. If tasks may be alone, c
    # scores 0 instead of -0.1: 0.5 / 3.
    mean = [[9.0, 0.3, -0.1], [0.2, 9.0, -0.2], [0.1, -0.3, 9.0]]
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    one = tag_keras.select_groups(affinity, 1)
    assert one.groups == (("a", "b", "c"),) and one.score == pytest.approx(0.0, abs=1e-15)
    for num_groups in (2, 3, 50):
        two = tag_keras.select_groups(affinity, num_groups)
        assert two.groups == (("a", "b"), ("a", "c"))
        assert two.serves == {"a": 0, "b": 0, "c": 1}
        assert two.score == pytest.approx(0.4 / 3) and two.upper_bound == two.score and two.optimal
    alone = tag_keras.select_groups(affinity, 2, singletons="baseline")
    assert alone.groups == (("a", "b"), ("c",)) and alone.score == pytest.approx(0.5 / 3)


def test_helpers_train_with_a_group_that_does_not_serve_them():
    # Task 0 helps all others, and only 1 helps 0; 2 and 3 hurt 1 and each other.
    mean = np.array([[0, 1.0, 1.0, 1.0], [1.0, 0, -9, -9], [-9, -9, 0, -9], [-9, -9, -9, 0]])
    grouping = tag_keras.select_groups(make_affinity(mean), 3)
    assert grouping.groups == (("task0", "task1"), ("task0", "task2"), ("task0", "task3"))
    assert grouping.serves == {"task0": 0, "task1": 0, "task2": 1, "task3": 2}
    assert grouping.score == pytest.approx(1.0)


def test_example_of_the_documentation():
    (block,) = re.findall("```python\n(.*?)```", tag_keras.select_groups.__doc__, flags=re.DOTALL)
    names = {"tag_keras": tag_keras}
    exec(re.sub("^    ", "", block, flags=re.MULTILINE), names)
    assert names["grouping"].groups == (("a", "b"), ("a", "c"))


# --- The published matrices.

TAG_CELEBA = [
    (1, -106.9054518575, "012345678"),
    (2, -99.4418187039, "06 12345678"),
    (3, -92.4384292862, "06 1245678 13"),
]
TAG_TASKONOMY = [
    (1, 0.1292923306, "01234"),
    (2, 0.3216958032, "012 34"),
    (3, 0.3486703983, "01 12 34"),
    # A fourth group is of no use.
    (4, 0.3486703983, "01 12 34"),
]


@pytest.mark.parametrize(
    ("name", "answers"), [("tag_celeba", TAG_CELEBA), ("tag_taskonomy", TAG_TASKONOMY)]
)
def test_published_affinities(name, answers):
    path = SHARED / "data" / "published" / f"{name}.json"
    if not path.exists():
        pytest.skip("The published affinities are not there.")
    published = json.loads(path.read_text())
    # Their rows are targets, ours are sources.
    affinity = tag_keras.Affinity(published["tasks"], np.transpose(published["matrix"]))
    for num_groups, score, groups in answers:
        grouping = tag_keras.select_groups(affinity, num_groups)
        assert grouping.score == pytest.approx(score, rel=1e-9)
        expected = [tuple(affinity.tasks[int(task)] for task in group) for group in groups.split()]
        assert grouping.groups == tuple(expected)


def test_optima_in_the_fixtures_are_the_ones_typed_here():
    path = SHARED / "methods_fixtures.json"
    if not path.exists():
        pytest.skip("The fixtures are not there.")
    fixtures = json.loads(path.read_text())["tag_selection"]
    for name, answers in {"tag_celeba": TAG_CELEBA, "tag_taskonomy": TAG_TASKONOMY}.items():
        typed = {str(num_groups): score for num_groups, score, _ in answers}
        assert typed == {key: answer["value"] for key, answer in fixtures[name].items()}


def test_search_takes_scores_of_any_kind():
    # Higher order approximation: pairs are measured, a task alone has the loss of its own network
    # on the diagonal, and less is better. Optima of the Taskonomy table.
    path = SHARED / "data" / "published" / "hoa_taskonomy.json"
    if not path.exists():
        pytest.skip("The published losses are not there.")
    losses = np.array(json.loads(path.read_text())["matrix"])
    scores = group_selection.group_scores(-losses.T, "baseline")
    scores[np.isfinite(scores).sum(axis=1) == 1] += np.where(np.eye(5) == 1, -losses, 0.0)
    for num_groups, loss in [(1, 0.108935), (2, 0.10186), (3, 0.09792), (4, 0.09648)]:
        rows = selection_solver.choose_groups(scores, num_groups, 1e-12)
        assert len(rows) == num_groups
        assert -scores[rows].max(axis=0).mean() == pytest.approx(loss, abs=1e-9)


def test_derived_figures():
    # Whole numbers from -20 to 20. Scores in a group of up to 7 have denominators up to 6, so that
    # 7 * 60 times the mean is a whole number; listing all families of up to 4 groups gave these.
    positions = range(7)
    mean = [[(7 * s * s + 3 * t * t + 5 * s * t) % 41 - 20.0 for t in positions] for s in positions]
    for num_groups, score in {1: 150, 2: 2400, 3: 4050, 4: 5190}.items():
        grouping = tag_keras.select_groups(make_affinity(mean), num_groups)
        assert len(grouping.groups) == num_groups
        assert grouping.score * 420 == pytest.approx(score, abs=1e-9)
    # At last every task has its best partner: 6 pairs, one of them the best for both.
    best = np.max(np.where(np.eye(7) == 1, -np.inf, mean), axis=0)
    grouping = tag_keras.select_groups(make_affinity(mean), 7)
    assert len(grouping.groups) == 6 and grouping.score == pytest.approx(best.mean())


# --- Larger problems.


def maximise_by_integer_program(mean, num_groups, singletons):
    """The best score, by an integer program with a column for each group and each task in it."""
    groups, table = score_table(mean, singletons)
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
    grouping = tag_keras.select_groups(affinity, 4)
    assert set(grouping.groups) == planted
    assert grouping.score == pytest.approx(level.mean())
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
    three = tag_keras.select_groups(affinity, 3)
    assert merged - 1e-12 <= three.score < grouping.score


def mean_with_one_helper(num_tasks):
    # Task 0 helps all others by 1 and nobody else helps: {0} and m others score 1 in sum,
    # whatever m, so that all ways to part the others are tied.
    mean = np.zeros((num_tasks, num_tasks))
    mean[0] = 1.0
    return make_affinity(mean)


def test_many_thousands_of_ties_end_soon_and_always_alike():
    first, second = (tag_keras.select_groups(mean_with_one_helper(15), 7) for _ in range(2))
    assert first == second
    assert first.score == pytest.approx(7 / 15)
    # 0 in each of the seven groups, and each other task once.
    assert sum(map(len, first.groups)) == 7 + 14


def test_search_among_ties_ends_at_its_limit_with_an_optimum(monkeypatch):
    full = tag_keras.select_groups(mean_with_one_helper(8), 3)
    assert full.groups[:2] == (("task0", "task1"), ("task0", "task2"))
    monkeypatch.setattr(selection_solver, "_TIE_STEPS", 5)
    short = tag_keras.select_groups(mean_with_one_helper(8), 3)
    assert short.groups != full.groups
    assert (len(short.groups), short.score) == (3, pytest.approx(full.score))


# --- Properties.


@pytest.mark.parametrize("singletons", RULES)
def test_permuting_the_tasks_permutes_the_groups(singletons):
    for seed in range(10):
        mean = random_means(seed, 7, "normal")
        order = np.random.default_rng(seed).permutation(7)
        tasks = [f"task{index}" for index in range(7)]
        permuted = make_affinity(mean[np.ix_(order, order)], [tasks[index] for index in order])
        for num_groups in (2, 3, 4):
            one = tag_keras.select_groups(make_affinity(mean, tasks), num_groups, singletons)
            two = tag_keras.select_groups(permuted, num_groups, singletons)
            assert set(map(frozenset, one.groups)) == set(map(frozenset, two.groups))
            assert one.score == pytest.approx(two.score)
            for task in tasks:
                served = [set(g.groups[g.serves[task]]) for g in (one, two)]
                assert served[0] == served[1]


@pytest.mark.parametrize("singletons", RULES)
def test_more_groups_never_score_less_and_useless_ones_stay_away(singletons):
    for seed in range(10):
        affinity = make_affinity(random_means(seed, 7, "rounded"))
        found = [tag_keras.select_groups(affinity, k, singletons) for k in range(1, 10)]
        scores = [grouping.score for grouping in found]
        assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(scores))
        # A family with more groups is a better one, and has no group without a task to serve.
        for earlier, later in itertools.pairwise(found):
            more = len(later.groups) - len(earlier.groups)
            assert more >= 0 and (more > 0) == (later.score > earlier.score + 1e-9)
            assert len(set(later.serves.values())) == len(later.groups)
        assert len(found[-1].groups) <= 7


def test_a_shift_of_all_sources_of_a_target_changes_no_group():
    for seed in range(10):
        mean = random_means(seed, 6, "normal")
        shift = np.random.default_rng(seed).normal(scale=5.0, size=6)
        for num_groups in (1, 2, 3, 4):
            one = tag_keras.select_groups(make_affinity(mean), num_groups)
            two = tag_keras.select_groups(make_affinity(mean + shift), num_groups)
            assert (one.groups, one.serves) == (two.groups, two.serves)
            assert two.score == pytest.approx(one.score + shift.mean())


@pytest.mark.parametrize("factor", [1e-200, 1e-6, 7.0, 1e200])
def test_a_positive_factor_changes_no_group(factor):
    for singletons, kind in itertools.product(RULES, ["normal", "rounded"]):
        mean = random_means(1, 6, kind)
        one = tag_keras.select_groups(make_affinity(mean), 3, singletons)
        two = tag_keras.select_groups(make_affinity(mean * factor), 3, singletons)
        assert (one.groups, one.serves) == (two.groups, two.serves)
        assert two.score == pytest.approx(one.score * factor, rel=1e-12)


def test_the_diagonal_is_not_used():
    mean = random_means(0, 4, "normal")
    expected = tag_keras.select_groups(make_affinity(mean), 2, "baseline")
    np.fill_diagonal(mean, 1e9)
    assert tag_keras.select_groups(make_affinity(mean), 2, "baseline") == expected
    np.fill_diagonal(mean, np.nan)
    count = np.where(np.eye(4) == 1, 0, 5)
    affinity = tag_keras.Affinity(expected.tasks, mean, count=count)
    assert tag_keras.select_groups(affinity, 2, "baseline") == expected


def test_all_tasks_share_a_network_when_nothing_matters():
    grouping = tag_keras.select_groups(make_affinity(np.zeros((5, 5))), 5, "baseline")
    assert grouping.groups == (grouping.tasks,) and grouping.score == 0.0


def test_one_task_alone():
    grouping = tag_keras.select_groups(tag_keras.Affinity(["a"], [[0.5]]), 3, "baseline")
    assert grouping == tag_keras.Grouping(("a",), (("a",),), {"a": 0}, 0.0, 0.0, True)


# --- Errors.


@pytest.mark.parametrize(
    ("num_groups", "message"),
    [
        (0, r"`num_groups` should be at least 1\. Received: num_groups=0\."),
        (-2, r"`num_groups` should be at least 1\. Received: num_groups=-2\."),
        (2.0, r"`num_groups` should be an integer\. Received: num_groups=2\.0\."),
        (True, r"`num_groups` should be an integer\. Received: num_groups=True\."),
        ("2", r"`num_groups` should be an integer\. Received: num_groups='2'\."),
        (None, r"`num_groups` should be an integer\. Received: num_groups=None\."),
    ],
)
def test_refuses_wrong_numbers_of_groups(num_groups, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.select_groups(make_affinity(np.zeros((3, 3))), num_groups)


def test_refuses_an_unknown_rule():
    message = '`singletons` should be "forbid" or "baseline". Received: singletons=\'diagonal\''
    with pytest.raises(ValueError, match=message):
        tag_keras.select_groups(make_affinity(np.zeros((3, 3))), 2, singletons="diagonal")


def test_refuses_affinities_that_are_not_finite():
    mean = np.array([[0.0, np.nan, 0.1], [0.2, 0.0, np.nan], [0.1, 0.3, 0.0]])
    count = np.where(np.isnan(mean), 0, 5)
    affinity = tag_keras.Affinity(["a", "b", "c"], mean, count=count)
    with pytest.raises(ValueError, match=r"finite for all pairs.*a -> b: nan, b -> c: nan"):
        tag_keras.select_groups(affinity, 2)
    affinity = make_affinity(np.zeros((3, 3)))
    affinity.mean = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, -np.inf], [1.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match=r"finite for all pairs.*'task1 -> task2: -inf'"):
        tag_keras.select_groups(affinity, 2)


def test_refuses_one_task_unless_it_may_be_alone():
    with pytest.raises(ValueError, match=r'2 to 15 tasks with singletons="forbid".*num_tasks=1'):
        tag_keras.select_groups(tag_keras.Affinity(["a"], [[0.5]]), 1)


def test_names_the_limit_for_more_tasks_than_it_can_search():
    with pytest.raises(ValueError, match=r"2 to 15 tasks .*num_tasks=16"):
        tag_keras.select_groups(make_affinity(np.zeros((16, 16))), 2)


def test_refuses_what_is_not_an_affinity():
    with pytest.raises(ValueError, match=r"`affinity` should be an Affinity.*ndarray"):
        tag_keras.select_groups(np.zeros((3, 3)), 2)


# --- Grouping.

FIELDS = {
    "tasks": ["a", "b", "c"],
    "groups": [["a", "b"], ["a", "c"]],
    "serves": {"a": 0, "b": 0, "c": 1},
    "score": 0.25,
    "upper_bound": 0.5,
    "optimal": False,
}


def test_grouping_round_trip(tmp_path):
    affinity = make_affinity(random_means(0, 6, "normal"))
    for grouping in (tag_keras.select_groups(affinity, 3), tag_keras.Grouping(**FIELDS)):
        grouping.save(tmp_path / "groups.json")
        assert tag_keras.Grouping.load(tmp_path / "groups.json") == grouping
    assert json.loads((tmp_path / "groups.json").read_text()) == FIELDS
    assert [path.name for path in tmp_path.iterdir()] == ["groups.json"]


def test_grouping_is_made_of_tuples_in_the_order_of_tasks():
    fields = FIELDS | {"serves": {"c": 1, "a": 0, "b": 0}}
    grouping = tag_keras.Grouping(**fields)
    assert grouping.tasks == ("a", "b", "c") and grouping.groups == (("a", "b"), ("a", "c"))
    assert list(grouping.serves) == ["a", "b", "c"]


WRONG_FIELDS = [
    ({"tasks": 3}, "`tasks` should be a tuple"),
    ({"tasks": "abc"}, "`tasks` should be a tuple"),
    ({"tasks": ["a", "b", "b"]}, "`tasks` should be unique"),
    ({"tasks": ["a", "b", ""]}, "`tasks` should be a list of names"),
    ({"tasks": ["a", "b", 3]}, "`tasks` should be a list of names"),
    ({"groups": 3}, "`groups` should be tuples of names out of"),
    ({"groups": "ab"}, "`groups` should be tuples of names out of"),
    ({"groups": ["ab", ["a", "c"]]}, "`groups` should be tuples of names out of"),
    ({"groups": [["a", "b"], []]}, "`groups` should be tuples of names out of"),
    ({"groups": [["a", "b"], ["a", "x"]]}, r"`groups` .* out of \('a', 'b', 'c'\).*'x'"),
    ({"groups": [["a", "b"], ["c", "c"]]}, "`groups` should be tuples of names out of"),
    ({"groups": [["a", "b"], [["c"]]]}, "`groups` should be tuples of names out of"),
    ({"serves": [0, 0, 1]}, "`serves` should give each of"),
    ({"serves": {"a": 0, "b": 0}}, "`serves` should give each of"),
    ({"serves": {"a": 0, "b": 0, "c": 1, "d": 1}}, "`serves` should give each of"),
    (
        {"serves": {"a": 0, "b": 0, "c": 2}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    (
        {"serves": {"a": 0, "b": 0, "c": -1}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    (
        {"serves": {"a": 0, "b": 0, "c": True}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    (
        {"serves": {"a": 0, "b": 0, "c": 1.0}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    (
        {"serves": {"a": 0, "b": 0, "c": [1]}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    (
        {"serves": {"a": 0, "b": 1, "c": 1}},
        "`serves` should give each of .* the index of a group that contains it",
    ),
    ({"score": None}, "`score` should be a finite number"),
    ({"score": True}, "`score` should be a finite number"),
    ({"score": math.nan}, "`score` should be a finite number"),
    ({"upper_bound": "1"}, "`upper_bound` should be a finite number"),
    ({"upper_bound": math.inf}, "`upper_bound` should be a finite number"),
    ({"optimal": 1}, "`optimal` should be a bool"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_FIELDS)
def test_refuses_groupings_that_contradict_themselves(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tag_keras.Grouping(**(FIELDS | wrong))
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(FIELDS | wrong))
    with pytest.raises(ValueError, match=f"foreign.json does not hold a grouping: {message}"):
        tag_keras.Grouping.load(path)


def test_load_names_the_file_and_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "groups.json"
    with pytest.raises(FileNotFoundError, match=r"groups\.json"):
        tag_keras.Grouping.load(path)
    path.write_text('{"tasks": ["a", ')
    with pytest.raises(ValueError, match=r"groups\.json is not a JSON file"):
        tag_keras.Grouping.load(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"groups\.json should hold a JSON object"):
        tag_keras.Grouping.load(path)
    for field in FIELDS:
        path.write_text(json.dumps({key: FIELDS[key] for key in FIELDS if key != field}))
        with pytest.raises(ValueError, match=rf"groups\.json lacks the field '{field}'"):
            tag_keras.Grouping.load(path)


# --- The script.


def run(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def save_example(folder):
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    affinity.save(folder / "affinity.json")
    return affinity


def test_script(tmp_path):
    affinity = save_example(tmp_path)
    flags = ["--scores=affinity.json", "--num_groups=3", "--output=new/groups.json"]
    done = run("-m", "tag_keras.network_selection", *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "group 0: a, b; serves a, b",
        "group 1: a, c; serves c",
        "score 0.133333, optimal",
    ]
    loaded = tag_keras.Grouping.load(tmp_path / "new" / "groups.json")
    assert loaded == tag_keras.select_groups(affinity, 3)


def test_script_ends_with_a_status_and_without_a_traceback(tmp_path):
    done = run("-m", "tag_keras.network_selection", "--num_groups=few", folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("network_selection: flag --num_groups=few:")


def call_main(folder, capsys, **changed):
    flags = {"scores": folder / "affinity.json", "num_groups": 2, "output": folder / "groups.json"}
    flags |= changed
    options = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    status = network_selection.main(["network_selection.py", *options])
    return status, capsys.readouterr()


def test_script_allows_tasks_alone(tmp_path, capsys):
    save_example(tmp_path)
    status, printed = call_main(tmp_path, capsys, singletons="baseline")
    assert status == 0 and "group 1: c; serves c" in printed.out


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"scores": "missing.json"}, 1, "No such file or directory: 'missing.json'"),
        ({"scores": __file__}, 1, "test_network_selection.py is not a JSON file"),
        ({"num_groups": 0}, 1, "`num_groups` should be at least 1. Received: num_groups=0."),
        ({"num_groups": None}, 2, "--num_groups must have a value"),
        ({"num_groups": None, "scores": None}, 2, "--scores must have a value"),
        ({"singletons": "diagonal"}, 2, "value should be one of <forbid|baseline>"),
        ({"groups": 3}, 2, "Unknown command line flag 'groups'"),
    ],
)
def test_script_says_what_is_wrong_in_one_line(changed, status, message, tmp_path, capsys):
    save_example(tmp_path)
    returned, printed = call_main(tmp_path, capsys, **changed)
    assert returned == status and printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("network_selection: ") and message in line
    assert not (tmp_path / "groups.json").exists()


def test_script_refuses_other_arguments_and_explains_its_flags(capsys):
    flags = ["--scores=a", "--num_groups=2", "--output=b"]
    assert network_selection.main(["network_selection.py", *flags, "more"]) == 2
    assert "Unknown arguments: more" in capsys.readouterr().err
    assert network_selection.main(["network_selection.py", "--help"]) == 0
    assert "--num_groups" in capsys.readouterr().out


def test_importing_it_loads_neither_tensorflow_nor_flags(tmp_path):
    code = (
        "import sys, tag_keras, tag_keras.network_selection; tag_keras.select_groups; "
        "print([name for name in ('tensorflow', 'keras', 'absl') if name in sys.modules])"
    )
    done = run("-c", code, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")
