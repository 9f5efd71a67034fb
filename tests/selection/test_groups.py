"""Selecting groups: worked examples, published answers, properties, what it refuses."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from selection_oracle import (
    family_values,
    list_groups,
    make_affinity,
    random_means,
    score_table,
)

import tag_keras
from tag_keras.selection import groups as selection
from tag_keras.selection.solvers.column_generation import ColumnSolver

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
RULES = ["forbid", "baseline"]


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


def run_example(function):
    (block,) = re.findall("```python\n(.*?)```", function.__doc__, flags=re.DOTALL)
    names = {"tag_keras": tag_keras}
    exec(re.sub("^    ", "", block, flags=re.MULTILINE), names)
    return names


def test_examples_of_the_documentation():
    grouping = run_example(tag_keras.select_groups)["grouping"]
    assert grouping.groups == (("a", "b"), ("a", "c"))
    frontier = run_example(tag_keras.selection_frontier)["frontier"]
    assert [round(grouping.score, 3) for grouping in frontier] == [0.0, 0.133, 0.133]


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
    tasks = list("abcde")
    affinity = tag_keras.Affinity(tasks, -losses.T)
    alone = dict(zip(tasks, -np.diag(losses), strict=True))
    for num_groups, loss in [(1, 0.108935), (2, 0.10186), (3, 0.09792), (4, 0.09648)]:
        grouping = tag_keras.select_groups(affinity, num_groups, singletons=alone)
        assert len(grouping.groups) == num_groups
        assert -grouping.score == pytest.approx(loss, abs=1e-9)


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


def test_ties_of_thousands_of_groups():
    # Whoever is with whom, nobody gains. So the four that gain alone are alone, which leaves one
    # group for the others: 5 groups, and no task in two of them.
    tasks = [f"task{index}" for index in range(13)]
    alone = dict.fromkeys(["task1", "task3", "task5", "task7"], 1.0)
    affinity = tag_keras.Affinity(tasks, np.zeros((13, 13)))
    others = tuple(task for task in tasks if task not in alone)
    expected = (others, *((task,) for task in alone))
    chosen = tag_keras.select_groups(affinity, 5, singletons=alone)
    assert chosen.groups == expected and chosen.score == pytest.approx(4 / 13)
    assert tag_keras.selection_frontier(affinity, 5, singletons=alone)[-1] == chosen


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
    message = r'`singletons` should be "forbid", "baseline" or a dict of scores by task.*diagonal'
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
    with pytest.raises(ValueError, match="'a' should have a group: it may not be alone"):
        tag_keras.select_groups(tag_keras.Affinity(["a"], [[0.5]]), 1)


def test_refuses_what_is_not_an_affinity():
    with pytest.raises(ValueError, match=r"`affinity` should be an Affinity.*ndarray"):
        tag_keras.select_groups(np.zeros((3, 3)), 2)


# --- Every number of groups.


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("singletons", RULES)
def test_the_frontier_is_what_each_number_of_groups_gives(singletons, partition):
    for seed, kind in enumerate(["normal", "rounded", "negative"]):
        affinity = make_affinity(random_means(seed, 8, kind))
        frontier = tag_keras.selection_frontier(affinity, 10, singletons, partition=partition)
        for num_groups, grouping in enumerate(frontier, 1):
            one = tag_keras.select_groups(affinity, num_groups, singletons, partition=partition)
            assert grouping == one
        assert len(frontier) == 10


def test_the_frontier_leaves_out_what_cannot_cover_all_tasks():
    affinity = make_affinity(random_means(0, 7, "normal"))
    frontier = tag_keras.selection_frontier(affinity, 5, max_group_size=2)
    assert len(frontier) == 2
    for num_groups, grouping in zip((4, 5), frontier, strict=True):
        assert grouping == tag_keras.select_groups(affinity, num_groups, max_group_size=2)


def test_a_partition_scores_no_more_than_groups_that_may_overlap():
    for seed in range(10):
        affinity = make_affinity(random_means(seed, 7, "normal"))
        for num_groups in range(1, 5):
            overlap = tag_keras.select_groups(affinity, num_groups)
            apart = tag_keras.select_groups(affinity, num_groups, partition=True)
            assert apart.score <= overlap.score + 1e-12
            assert sorted(sum(apart.groups, ())) == sorted(apart.tasks)
            assert not any(apart.helpers(index) for index in range(len(apart.groups)))


def test_an_affinity_that_no_group_uses_does_not_blur_the_others():
    # The tolerance for ties is relative to the largest affinity, and 1e12 is not among them.
    mean = [[0.0, -0.1, 0.3], [0.1, 0.0, 1e12], [0.2, 1e12, 0.0]]
    options = {"singletons": "baseline", "apart": [["task1", "task2"]]}
    grouping = tag_keras.select_groups(make_affinity(mean), 2, **options)
    assert grouping.groups == (("task0", "task2"), ("task1",))


@pytest.mark.slow_cases
@pytest.mark.parametrize("table_tasks", [15, 4])
@pytest.mark.parametrize("huge", [-1e6, -4.5e10, -1e20, -1e299])
def test_a_huge_affinity_that_serves_no_task_does_not_blur_the_others(
    huge, table_tasks, monkeypatch
):
    # With 4, column generation solves what the dynamic program would.
    monkeypatch.setattr(selection, "TABLE_TASKS", table_tasks)
    for seed in range(4):
        random = np.random.default_rng(seed)
        mean = random.normal(size=(5, 5))
        mean[0, 1], mean[2, 3] = huge, huge / 7
        table = score_table(mean, list_groups([None] * 5), [0.0] * 5)
        for partition in (False, True):
            # All five tasks in two groups are never without a choice.
            best = max(family_values(table, size, partition).max() for size in (1, 2))
            grouping = tag_keras.select_groups(make_affinity(mean), 2, partition=partition)
            assert grouping.optimal and grouping.score == pytest.approx(best, abs=1e-7)


@pytest.mark.slow_cases
@pytest.mark.parametrize("table_tasks", [15, 4])
@pytest.mark.parametrize("huge", [1e6, 1e9, 1e12, 1e299])
def test_a_huge_affinity_that_serves_a_task_does_not_blur_the_others(
    huge, table_tasks, monkeypatch
):
    monkeypatch.setattr(selection, "TABLE_TASKS", table_tasks)
    for seed in range(4):
        mean = np.random.default_rng(seed).normal(size=(5, 5))
        mean[0, 1] = huge
        grouping = tag_keras.select_groups(make_affinity(mean), 3)
        assert grouping.optimal and grouping.score == pytest.approx(huge / 5, 1e-4)
        # Only the pair gives task 1 that much, and the others are worth what is best beside it.
        table = score_table(mean, list_groups([None] * 5), [0.0] * 5)
        pair = next(row for row in table if row[0] > -np.inf and row[1] == huge)
        families = itertools.combinations(table, 2)
        sums = [np.delete(np.max([pair, *two], axis=0), 1).sum() for two in families]
        scores = [
            max(
                selection.score_in_group(make_affinity(mean), group, task, "mean")
                for group in grouping.groups
                if task in group
            )
            for task in grouping.tasks
        ]
        assert sum(np.delete(scores, 1)) == pytest.approx(max(sums), abs=1e-9)


def test_scores_that_are_all_huge_for_one_task_do_not_blur_the_others():
    mean = np.random.default_rng(0).normal(size=(5, 5))
    expected = tag_keras.select_groups(make_affinity(mean), 2)
    mean[:, 1] -= 1e7
    grouping = tag_keras.select_groups(make_affinity(mean), 2)
    assert grouping.groups == expected.groups and grouping.serves == expected.serves
    assert grouping.score == pytest.approx(expected.score - 1e7 / 5, abs=1e-6)


def test_a_low_affinity_stays_below_the_score_of_a_task_alone():
    # Every task reaches its best score, 0, alone; so no gap says how far below 0 counts.
    mean = [[0.0, -0.35, 0.0], [-1e9, 0.0, -0.2], [0.0, -0.1, 0.0]]
    grouping = tag_keras.select_groups(make_affinity(mean), 3, "baseline")
    assert grouping.groups == (("task0", "task2"), ("task1",)) and grouping.score == 0


@pytest.mark.parametrize("factor", [1e-290, 1e-298, 1e-303])
def test_tiny_affinities_choose_as_others_do(factor):
    mean = random_means(0, 6, "normal")
    large, tiny = (tag_keras.select_groups(make_affinity(mean * f), 2) for f in (1.0, factor))
    assert tiny.groups == large.groups and tiny.serves == large.serves
    assert tiny.score / factor == pytest.approx(large.score) and tiny.upper_bound == tiny.score


@pytest.mark.parametrize("max_groups", [0, 2.0, True, None])
def test_the_frontier_refuses_wrong_numbers_of_groups(max_groups):
    with pytest.raises(ValueError, match="`max_groups` should be a"):
        tag_keras.selection_frontier(make_affinity(np.zeros((3, 3))), max_groups)


def test_refuses_more_than_100_tasks():
    with pytest.raises(ValueError, match=r"at most 100 tasks\. Received: num_tasks=101"):
        tag_keras.select_groups(make_affinity(np.zeros((101, 101))), 2)


@pytest.mark.slow
def test_the_frontier_of_many_tasks_searches_only_as_far_as_groups_are_of_use(monkeypatch):
    searched = []
    solve = ColumnSolver.solve

    def count(solver, num_groups, *options):
        searched.append(num_groups)
        return solve(solver, num_groups, *options)

    monkeypatch.setattr(ColumnSolver, "solve", count)
    # Two clusters, all of whose members are equally good partners.
    affinity = make_affinity(np.kron(np.eye(2), np.ones((8, 8))))
    frontier = tag_keras.selection_frontier(affinity, 1000)
    clusters = (affinity.tasks[:8], affinity.tasks[8:])
    assert len(frontier) == 1000 and frontier[0].groups == (affinity.tasks,)
    assert all(grouping.groups == clusters and grouping.optimal for grouping in frontier[1:])
    assert all(grouping.score == 1 for grouping in frontier[1:])
    assert searched == [1, 2, 3]
