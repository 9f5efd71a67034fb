"""Selection by sums of affinities, against exhaustive search and sums written out."""

import math

import numpy as np
import pytest
from selection_oracle import list_groups, make_affinity, random_means, search_families

import tag_keras
from tag_keras import network_selection
from tag_keras.selection.stability import _draw

RULES = ["forbid", "baseline", {"task0": 0.4, "task1": -0.3, "task3": 0.2}]


def sum_in_group(mean, group, task, alone=0.0):
    others = [mean[source][task] for source in group if source != task]
    return math.fsum(others) if others else alone


def score_table(mean, groups, alone):
    """Scores (G, T), -inf for a task that is not in the group."""
    return np.array(
        [
            [
                sum_in_group(mean, group, task, alone[task]) if task in group else -np.inf
                for task in range(len(mean))
            ]
            for group in groups
        ]
    )


def alone_scores(singletons, num_tasks):
    if isinstance(singletons, str):
        return [None if singletons == "forbid" else 0.0] * num_tasks
    return [singletons.get(f"task{task}") for task in range(num_tasks)]


def check_against_all_families(mean, singletons, max_groups=None, **options):
    """Holds the frontier against the best of all families, found one at a time."""
    num_tasks, options = len(mean), dict(options)
    max_groups = max_groups or num_tasks
    affinity, alone = make_affinity(mean), alone_scores(singletons, num_tasks)
    limits = {"max_size" if k == "max_group_size" else k: v for k, v in options.items()}
    partition = limits.pop("partition", False)
    for name in {"together", "apart"} & {*options}:
        options[name] = [[f"task{task}" for task in names] for names in options[name]]
    groups = list_groups(alone, **limits)
    table = score_table(mean, groups, alone)
    answers = search_families(groups, table, max_groups, 1e-9, partition)
    if answers[-1] is None:
        with pytest.raises(ValueError, match="No family of groups without overlap covers"):
            tag_keras.selection_frontier(affinity, max_groups, singletons, score="sum", **options)
        return
    frontier = tag_keras.selection_frontier(
        affinity, max_groups, singletons, score="sum", **options
    )
    possible = [answer for answer in answers if answer is not None]
    for number, (grouping, answer) in enumerate(zip(frontier, possible, strict=True)):
        expected = tuple(tuple(affinity.tasks[task] for task in group) for group in answer[1])
        assert grouping.groups == expected, (mean.tolist(), singletons, options)
        assert grouping.score == pytest.approx(answer[0], abs=1e-9)
        assert grouping.optimal and grouping.upper_bound == grouping.score
        for task, name in enumerate(affinity.tasks):
            own = {index: table[groups.index(group), task] for index, group in enumerate(answer[1])}
            assert own[grouping.serves[name]] == pytest.approx(max(own.values()), abs=1e-12)
        num_groups = max_groups - len(frontier) + 1 + number
        one = tag_keras.select_groups(affinity, num_groups, singletons, score="sum", **options)
        assert one == grouping


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("singletons", RULES)
@pytest.mark.parametrize("kind", ["normal", "rounded", "negative"])
def test_equals_a_search_over_all_families(kind, singletons, partition):
    for seed in range(4):
        mean = random_means(seed, 4, kind)
        check_against_all_families(mean, singletons, partition=partition)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize("singletons", RULES)
@pytest.mark.parametrize(
    "options",
    [
        {"max_group_size": 3},
        {"together": [[0, 3]]},
        {"apart": [[1, 2, 4]]},
        {"max_group_size": 4, "together": [[1, 4]], "apart": [[0, 1], [2, 3]]},
    ],
)
def test_equals_a_search_over_the_families_that_are_allowed(options, singletons, partition):
    for seed in range(2):
        mean = random_means(seed, 5, "rounded")
        check_against_all_families(mean, singletons, 4, partition=partition, **options)


def test_six_tasks_equal_a_search_over_all_families():
    for seed, kind in enumerate(["normal", "rounded", "negative"]):
        check_against_all_families(random_means(seed, 6, kind), "baseline", 3)


# a, b and c help each other, a and b the most; d hurts all of them, and only a helps it.
TASKS = ("a", "b", "c", "d")
MEAN = [
    [9.0, 0.5, 0.2, 0.1],
    [0.5, 9.0, 0.2, -0.4],
    [0.1, 0.1, 9.0, -0.4],
    [-0.6, -0.6, -0.6, 9.0],
]


def test_the_mean_and_the_sum_choose_other_groups():
    # Onto a: b .5, c .1.  Onto b: a .5, c .1.  Onto c: a .2, b .2.  Onto d: a .1.
    # By means, each task has its best partner in {a, b}, {a, c} and {a, d}, and none has more:
    # (.5 + .5 + .2 + .1) / 4. By sums, {a, b, c} gives a and b .6 each, and c .4, which is all
    # that helps them; {a, d} gives d .1: (.6 + .6 + .4 + .1) / 4. A third network is of no use.
    affinity = tag_keras.Affinity(TASKS, MEAN)
    by_mean = tag_keras.select_groups(affinity, 3, "baseline")
    assert by_mean.groups == (("a", "b"), ("a", "c"), ("a", "d"))
    assert by_mean.score == pytest.approx(1.3 / 4)
    for num_groups in (2, 3):
        by_sum = tag_keras.select_groups(affinity, num_groups, "baseline", score="sum")
        assert by_sum.groups == (("a", "b", "c"), ("a", "d"))
        assert by_sum.serves == {"a": 0, "b": 0, "c": 0, "d": 1}
        assert by_sum.score == by_sum.upper_bound == pytest.approx(1.7 / 4) and by_sum.optimal
    # One network: a and b have .6 - .6, c .4 - .6, d .1 - .4 - .4.
    one = tag_keras.select_groups(affinity, 1, "baseline", score="sum")
    assert one.score == pytest.approx((0 + 0 - 0.2 - 0.7) / 4)
    # Where they may not overlap, d is alone, at what `singletons` says.
    apart = tag_keras.select_groups(affinity, 2, "baseline", score="sum", partition=True)
    assert apart.groups == (("a", "b", "c"), ("d",)) and apart.score == pytest.approx(1.6 / 4)
    alone = tag_keras.select_groups(affinity, 2, {"d": 0.3}, score="sum")
    assert alone.groups == (("a", "b", "c"), ("d",)) and alone.score == pytest.approx(1.9 / 4)


def test_the_mean_is_what_is_taken_unless_told():
    affinity = make_affinity(random_means(0, 6, "normal"))
    assert tag_keras.select_groups(affinity, 3, score="mean") == tag_keras.select_groups(
        affinity, 3
    )


def test_groups_of_two_score_alike():
    # The sum over one other task is its mean.
    affinity = make_affinity(random_means(1, 8, "normal"))
    first, second = (
        tag_keras.selection_frontier(affinity, 8, "baseline", score=score, max_group_size=2)
        for score in ("mean", "sum")
    )
    assert first == second


def test_the_sum_of_gains_is_best_in_one_group_and_of_losses_alone():
    gains = np.abs(random_means(2, 10, "normal"))
    grouping = tag_keras.select_groups(make_affinity(gains), 10, "baseline", score="sum")
    assert grouping.groups == (grouping.tasks,)
    np.fill_diagonal(gains, 0)
    assert grouping.score == pytest.approx(gains.sum() / 10)
    grouping = tag_keras.select_groups(make_affinity(-gains), 10, "baseline", score="sum")
    assert grouping.groups == tuple((task,) for task in grouping.tasks) and grouping.score == 0


def test_rounding_of_sums_does_not_part_ties():
    # Whole numbers are added without rounding, their tenths are not: the ties are the same.
    for seed in range(4):
        whole = np.random.default_rng(seed).integers(-3, 4, size=(9, 9))
        exact, rounded = (
            tag_keras.selection_frontier(make_affinity(mean), 9, "baseline", score="sum")
            for mean in (whole.astype(float), whole * 0.1)
        )
        assert [one.groups for one in exact] == [one.groups for one in rounded]
        assert [one.serves for one in exact] == [one.serves for one in rounded]


@pytest.mark.parametrize("factor", [1e-200, 1e200, 1e300])
def test_a_positive_factor_changes_no_group(factor):
    mean = np.clip(random_means(1, 6, "rounded"), -1, 1)
    one = tag_keras.select_groups(make_affinity(mean), 3, "baseline", score="sum")
    two = tag_keras.select_groups(make_affinity(mean * factor), 3, "baseline", score="sum")
    assert (one.groups, one.serves) == (two.groups, two.serves)
    assert two.score == pytest.approx(one.score * factor, rel=1e-12)


@pytest.mark.parametrize(
    "huge",
    [
        {(0, 1): 2**45},
        {(0, 1): 2**45, (2, 1): 2**40},
        {(0, 1): 2**45, (3, 2): 2**44 + 1, (1, 0): -(2**45)},
    ],
)
def test_a_huge_affinity_does_not_hide_the_others(huge):
    """As of a single network that diverged; whole numbers, so that Python adds them up exactly."""
    for seed in range(3):
        mean = np.random.default_rng(seed).integers(-20, 21, (5, 5)).tolist()
        for (source, target), value in huge.items():
            mean[source][target] = value

        def total(groups, mean=mean):
            return sum(
                max(
                    sum(mean[source][task] for source in group if source != task)
                    for group in groups
                    if task in group
                )
                for task in range(5)
            )

        every = list_groups([0.0] * 5)
        families = [(one, two) for one in every for two in every if len({*one} | {*two}) == 5]
        affinity = make_affinity(np.array(mean, float))
        found = tag_keras.select_groups(affinity, 2, "baseline", score="sum")
        groups = [[affinity.tasks.index(task) for task in group] for group in found.groups]
        assert total(groups) == max(map(total, families)) and found.optimal
        assert found.score == pytest.approx(total(groups) / 5)


@pytest.mark.slow
def test_fifteen_tasks_are_exact():
    # Clusters of 5 whose members gain 1 from each other, and lose 10 from all others.
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], 5))
    mean = np.where(np.equal.outer(labels, labels), 1.0, -10.0)
    grouping = tag_keras.select_groups(make_affinity(mean), 3, score="sum")
    members = [{int(task[4:]) for task in group} for group in grouping.groups]
    assert sorted(map(sorted, members)) == sorted(
        np.flatnonzero(labels == label).tolist() for label in range(3)
    )
    assert grouping.score == 4 and grouping.optimal


# --- Stability.


def test_stability_equals_what_is_drawn_by_hand():
    # All families of at most two groups for each draw, with sums written out.
    mean = random_means(3, 4, "normal") * 0.3
    affinity = tag_keras.Affinity(TASKS, mean, np.full((4, 4), 0.15))
    found = tag_keras.grouping_stability(
        affinity, 2, num_samples=40, seed=5, singletons="baseline", score="sum"
    )
    alone = [0.0] * 4
    groups = list_groups(alone)

    def search(mean):
        return search_families(groups, score_table(mean, groups, alone), 2, 1e-9)[1]

    chosen = search(mean)[1]
    assert found.grouping.groups == tuple(tuple(TASKS[i] for i in group) for group in chosen)
    share, wins, regret = np.zeros((4, 4)), 0, 0.0
    for drawn in _draw(affinity, 40, np.random.default_rng(5)):
        best, family = search(drawn)
        wins += family == chosen
        regret += best - score_table(drawn, chosen, alone).max(axis=0).mean()
        for first, second in np.ndindex(4, 4):
            share[first, second] += any({first, second} <= {*group} for group in family)
    np.testing.assert_allclose(found.share, share / 40)
    assert 0 < found.wins < 1 and found.wins == wins / 40
    assert found.regret > 0 and found.regret == pytest.approx(regret / 40)


# --- The command.


def call_main(folder, capsys, *flags):
    tag_keras.Affinity(TASKS, MEAN).save(folder / "affinity.json")
    flags = [f"--scores={folder / 'affinity.json'}", "--singletons=baseline", *flags]
    status = network_selection.main(["network_selection.py", *flags])
    return status, capsys.readouterr()


def test_script_adds_up_what_it_is_told_to(tmp_path, capsys):
    flags = ["--num_groups=2", "--score=sum", f"--output={tmp_path / 'groups.json'}"]
    status, printed = call_main(tmp_path, capsys, *flags)
    assert (status, printed.err) == (0, "")
    assert printed.out.splitlines() == [
        "network 0: a, b, c; serves a 0.6, b 0.6, c 0.4",
        "network 1: a, d; serves d 0.1; helped by a",
        "mean score of 4 tasks: 0.425, optimal",
        "1 network would score -0.225, more than 2 networks no more",
    ]
    expected = tag_keras.select_groups(tag_keras.Affinity(TASKS, MEAN), 2, "baseline", score="sum")
    assert tag_keras.Grouping.load(tmp_path / "groups.json") == expected


def test_script_takes_means_unless_told(tmp_path, capsys):
    _, untold = call_main(tmp_path, capsys, "--num_groups=3")
    status, told = call_main(tmp_path, capsys, "--num_groups=3", "--score=mean")
    assert status == 0 and untold.out == told.out
    assert "mean score of 4 tasks: 0.325, optimal" in told.out


def test_script_says_that_a_table_has_its_own_scores(tmp_path, capsys):
    (tmp_path / "table.txt").write_text("a\tb\n0.3\t0.4\n0.35\t0.1\n")
    flags = [f"--scores={tmp_path / 'table.txt'}", "--sense=min", "--budget=2", "--score=mean"]
    assert network_selection.main(["network_selection.py", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--score is for affinities: a table holds the scores of its networks" in line


def test_script_takes_no_other_score(tmp_path, capsys):
    status, printed = call_main(tmp_path, capsys, "--num_groups=2", "--score=least")
    assert status == 2 and "value should be one of <mean|sum>" in printed.err


def test_script_says_that_sums_are_for_few_tasks(tmp_path, capsys):
    make_affinity(np.zeros((16, 16))).save(tmp_path / "many.json")
    flags = [f"--scores={tmp_path / 'many.json'}", "--num_groups=2", "--score=sum"]
    assert network_selection.main(["network_selection.py", *flags]) == 1
    assert "`score='sum'` takes up to 15 tasks" in capsys.readouterr().err


# --- Errors.


@pytest.mark.parametrize("score", ["total", "", None, 1, ["sum"]])
def test_refuses_an_unknown_score(score):
    affinity = tag_keras.Affinity(TASKS, MEAN, np.ones((4, 4)))
    calls = (tag_keras.select_groups, tag_keras.selection_frontier, tag_keras.grouping_stability)
    for call in calls:
        with pytest.raises(ValueError, match=r'`score` should be "mean" or "sum"\. Received: sc'):
            call(affinity, 2, score=score)


def test_refuses_sums_of_more_than_fifteen_tasks(monkeypatch):
    def never(*_):
        raise AssertionError("It worked before it checked.")

    monkeypatch.setattr("tag_keras.selection.groups.fewest_groups", never)
    affinity = tag_keras.Affinity(
        [f"t{task}" for task in range(16)], np.zeros((16, 16)), np.ones((16, 16))
    )
    calls = (tag_keras.select_groups, tag_keras.selection_frontier, tag_keras.grouping_stability)
    match = r"`score='sum'` takes up to 15 tasks, as the search for more bounds means\. "
    for call in calls:
        with pytest.raises(ValueError, match=match + r"Received: num_tasks=16\."):
            call(affinity, 2, score="sum")
