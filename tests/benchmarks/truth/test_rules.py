"""Rules that choose networks: on tables of three tasks by hand, and against slow searches."""

import dataclasses
import itertools

import numpy as np
import pytest
from group_tables import best_by_search, losses_of, random_table, row, rows, table_of

import tag_keras
from benchmarks.truth import rules
from benchmarks.truth.rules import RULES, SLOW_RULES, Measured, networks_trained
from tag_keras.comparison.guard import serve_measured
from tag_keras.decision.group_losses import estimate_group_losses
from tag_keras.results import Row

# Of the pairs, "ab" is the best one for "b" without "c". Together the tasks are very bad.
SINGLE, PAIRS = {"a": (5,), "b": (5,), "c": (0.1,)}, {"ab": (1, 3), "ac": (1, 9), "bc": (1, 9)}
LOSSES = {**SINGLE, **PAIRS, "abc": (7, 7, 7)}


def measured_of(*losses, **changes):
    table = table_of(*map(losses_of, losses), **changes)
    return Measured.of(table, range(len(losses)))


def random_measured(seed, num_tasks=4):
    return Measured.of(random_table(num_tasks, seed=seed), [0, 2, 3])


def test_what_is_measured_is_of_the_chosen_seeds():
    table = random_table(3)
    measured = Measured.of(table, [1, 3])
    for name in ("validation", "early"):
        wanted = getattr(table, name)
        assert np.array_equal(getattr(measured, name), wanted[[1, 3]], equal_nan=True)
    assert np.array_equal(measured.affinities["lookahead"], table.affinities["lookahead"][[1, 3]])
    assert np.array_equal(measured.parts, table.folds, equal_nan=True)


def test_the_yardsticks():
    measured = measured_of(LOSSES)
    assert RULES["joint"](measured, 1) == rows("abc", "abc", "abc")
    assert RULES["single"](measured, 1) == rows("a", "b", "c")
    # 21 together, 10.1 apart.
    assert RULES["joint or single"](measured, 1) == rows("a", "b", "c")
    # Means over the seeds count: (21 + 0.3) / 2 together, 10.1 apart.
    better = {**LOSSES, "abc": (0.1, 0.1, 0.1)}
    assert RULES["joint or single"](measured_of(LOSSES, better), 1) == rows("a", "b", "c")
    # (21 + 2 * 0.3) / 3 together.
    three = measured_of(LOSSES, better, better)
    assert RULES["joint or single"](three, 1) == rows("abc", "abc", "abc")


def test_all_groups_by_hand():
    # 1 + 3 + 0.1; with "bc" beside "a" 15, with "bc" beside "ac" 11. The third network is "bc".
    assert RULES["all groups, raw"](measured_of(LOSSES), 2) == rows("ab", "ab", "c")
    # Either pair serves "a" with 1: "ac" now gains it.
    losses = {**LOSSES, "ac": (0.5, 9)}
    assert RULES["all groups, raw"](measured_of(losses), 3) == rows("ac", "bc", "c")
    assert RULES["all groups, raw"](measured_of(losses), 1) == rows("abc", "abc", "abc")


def test_higher_order_knows_three_tasks_by_their_pairs():
    # "abc" is estimated as ((1 + 1) / 2, (3 + 1) / 2, (9 + 9) / 2): 1 + 2 + 0.1 with "c" beside it.
    # Its measured losses of 7 do not count.
    assert RULES["HOA"](measured_of(LOSSES), 2) == rows("abc", "abc", "c")


@pytest.mark.parametrize("seed", range(2))
def test_higher_order_is_the_best_by_means_of_pairs(seed):
    measured = random_measured(seed)
    losses = measured.validation.mean(axis=0)
    estimates = losses.copy()
    for size in (3, 4):
        for group in itertools.combinations("abcd", size):
            for task in group:
                pairs = [row((task, other)) for other in group if other != task]
                place = "abcd".index(task)
                estimates[row(group), place] = sum(losses[pairs, place]) / (size - 1)
    found = [RULES["HOA"](measured, number) for number in (1, 2, 3, 4)]
    assert found == [best_by_search(estimates, number) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("seed", range(2))
def test_all_groups_and_early_losses_are_the_best_by_search(seed):
    measured = random_measured(seed)
    for number in (1, 2, 3, 4):
        wanted = best_by_search(measured.validation.mean(axis=0), number)
        assert RULES["all groups, raw"](measured, number) == wanted
        wanted = best_by_search(measured.early.mean(axis=0), number)
        assert RULES["ESA"](measured, number) == wanted


def test_esa_reads_early_losses():
    early = {**dict.fromkeys(["b", "c"], (5,)), **dict.fromkeys(["ab", "ac"], (5, 5))}
    early |= {"a": (0.1,), "bc": (0.1, 0.1), "abc": (5, 5, 5)}
    measured = measured_of(LOSSES, early=[losses_of(early)])
    assert RULES["ESA"](measured, 2) == rows("a", "bc", "bc")


def test_tag_reads_the_first_affinities_by_source_and_target():
    # Onto "a" from "b" 0.2 and "c" 0.1; onto "b" from "a" 0.1 and "c" 0.5; onto "c" from "a" 0.3
    # and "b" 0.1. "ac" and "bc" give 0.1 + 0.5 + 0.3; "bc" with "abc" 0.15 + 0.5 + 0.2, with "ab"
    # 0.2 + 0.5 + 0.1.
    first = [[0, 0.1, 0.3], [0.2, 0, 0.1], [0.1, 0.5, 0]]
    other = [[0, 9, 0], [9, 0, 0], [0, 0, 0]]
    alone = {**LOSSES, "a": (0.0,), "b": (0.0,), "c": (0.0,)}
    measured = measured_of(alone, alone, affinities=[first, other])
    assert RULES["TAG as in the paper"](measured, 2) == rows("ac", "bc", "ac")
    # No task may be alone, also one that all others hurt: "c" is served beside "a", not "b".
    hurt = [[0, 0.3, -0.1], [0.2, 0, -0.2], [0.1, -0.3, 0]]
    measured = measured_of(alone, affinities=[hurt])
    assert RULES["TAG as in the paper"](measured, 2) == rows("ab", "ab", "ac")


@pytest.mark.parametrize(
    ("pair", "single_c", "wanted"),
    [
        # Joint 1.9, single 2.0, and the groups 0.8.
        ((0.2, 0.2), 0.4, ("ab", "ab", "c")),
        # The groups lose 18.4: the joint network has less than the single ones.
        ((9, 9), 0.4, ("abc", "abc", "abc")),
        # Single 1.8.
        ((9, 9), 0.2, ("a", "b", "c")),
    ],
)
def test_anchored_affinities_or_a_yardstick(pair, single_c, wanted):
    # "a" and "b" gain 0.3 in the joint network, where "c" loses. The affinities say that "a" and
    # "b" help each other, and that "c" hurts both: without it they are to gain more.
    losses = {**LOSSES, "a": (0.8,), "b": (0.8,), "c": (single_c,), "abc": (0.5, 0.5, 0.9)}
    affinity = [[0, 1, 0], [1, 0, 0], [-1, -1, 0]]
    other = [[0, -1, 0], [-1, 0, 0], [1, 1, 0]]
    several = [{**losses, "ab": pair}] * 2
    measured = measured_of(*several, affinities=[affinity, other])
    assert RULES["anchored, or a yardstick"](measured, 2) == rows(*wanted)


@pytest.mark.parametrize("seed", range(4))
def test_what_experiment_run_does(seed):
    """Against its own steps: yardsticks, anchored affinities, groups, and what is served."""
    measured = random_measured(seed)
    networks = {"joint": "abcd", **{f"single_{task}": task for task in "abcd"}}
    found = [
        Row(name, tuple(group), seed, task, "validation", float(loss), {}, 1.0)
        for name, group in networks.items()
        for seed in range(3)
        for task in group
        for loss in [measured.validation[seed, row(group), "abcd".index(task)]]
    ]
    runs = [tag_keras.Affinity([*"abcd"], one) for one in measured.affinities["lookahead"][:3]]
    affinity = tag_keras.Affinity.combine(runs)
    anchored = tag_keras.anchor_affinity(affinity, found)
    grouping = tag_keras.select_groups(anchored, 3, "baseline", score="sum")
    found += [
        Row(f"group_{index}", group, seed, task, "validation", float(loss), {}, 1.0)
        for index, group in enumerate(grouping.groups)
        for seed in range(3)
        for task in group
        for loss in [measured.validation[seed, row(group), "abcd".index(task)]]
    ]
    # The rule knows parts of the validation data; equal ones say nothing.
    parts = np.repeat(measured.validation.mean(axis=0)[None], 5, axis=0)
    measured = dataclasses.replace(measured, parts=parts)
    served = serve_measured(found, estimate_group_losses(found), 3).grouping
    chosen = [served.groups[served.serves[task]] for task in "abcd"]
    assert RULES["experiment.run"](measured, 3) == rows(*chosen)


def test_without_differences_anchored_affinities_give_what_was_measured():
    # The joint network for tasks that gain there, and "c" alone; where one network is allowed, the
    # better yardstick: 1.9 together, 2.0 apart.
    losses = {**LOSSES, "a": (0.8,), "b": (0.8,), "c": (0.4,), "abc": (0.5, 0.5, 0.9)}
    measured = measured_of(losses)
    assert RULES["anchored, or a yardstick"](measured, 2) == rows("abc", "abc", "c")
    assert RULES["anchored, or a yardstick"](measured, 1) == rows("abc", "abc", "abc")
    apart = measured_of({**losses, "c": (0.1,)})
    assert RULES["anchored, or a yardstick"](apart, 1) == rows("a", "b", "c")


def test_on_a_line_affinities_do_not_count():
    # "a" and "b" gain 0.4 and 0.2 in the joint network, where "c" loses 0.6. With one other task
    # they are to gain half of it, so "abc" for "a" and "b", beside "c" alone, is best.
    losses = {**LOSSES, "a": (0.8,), "b": (0.6,), "c": (0.2,), "abc": (0.4, 0.4, 0.8)}
    affinity = [[0, 9, 0], [9, 0, 0], [-9, -9, 0]]
    for affinities in ([affinity], [np.zeros((3, 3))]):
        measured = measured_of(losses, affinities=affinities)
        assert RULES["on a line, or a yardstick"](measured, 2) == rows("abc", "abc", "c")
    # One network: 1.6 together and 1.6 apart, so that a little less apart is served.
    apart = measured_of({**losses, "c": (0.1,)}, affinities=[affinity])
    assert RULES["on a line, or a yardstick"](apart, 1) == rows("a", "b", "c")


def test_random_groups_cover_all_tasks():
    drawn = set()
    for seed, number in itertools.product(range(30), (1, 2, 3, 4)):
        measured = random_measured(seed)
        serving = RULES["random groups"](measured, number)
        losses = measured.validation.mean(axis=0)
        assert len({*serving}) <= number
        served = losses[serving, range(4)]
        # Each task is in its group, and has less loss there than in the other groups served.
        assert np.array_equal(served, np.nanmin(losses[sorted({*serving})], axis=0))
        assert RULES["random groups"](measured, number) == serving
        drawn.add((number, tuple(serving)))
    # One network is the joint one. Of several, seeds draw others.
    by_number = [sum(number == one for one, _ in drawn) for number in (1, 2, 3, 4)]
    assert by_number[0] == 1 and min(by_number[1:]) > 20


def test_more_random_groups_than_there_are_serve_all_tasks_best():
    measured = random_measured(0, num_tasks=2)
    wanted = best_by_search(measured.validation.mean(axis=0), 2)
    assert RULES["random groups"](measured, 5) == wanted


def rows_of(measured, largest):
    """Rows of the joint network and of groups up to a size, and of parts of validation data."""
    number = len(measured.tasks)
    found = []
    for size in range(1, number + 1):
        if largest < size < number:
            continue
        for group in itertools.combinations(measured.tasks, size):
            for seed, task in itertools.product(range(len(measured.validation)), group):
                place = row(group), measured.tasks.index(task)
                losses = {"validation": measured.validation[seed][place]}
                losses |= {f"part{i}": part[place] for i, part in enumerate(measured.parts)}
                found += [
                    Row("".join(group), group, seed, task, split, loss, {}, 0.0, role="group")
                    for split, loss in losses.items()
                ]
    return found


@pytest.mark.parametrize(
    ("name", "num_tasks", "largest", "seed"),
    [
        ("all groups, decided", 3, 3, 0),
        ("all groups, decided", 3, 3, 1),
        ("pairs, decided", 4, 2, 1),
        ("all groups and affinities, decided", 3, 3, 1),
    ],
)
def test_decided_is_what_decide_groups_says_of_rows(name, num_tasks, largest, seed, monkeypatch):
    seen, affinity = [], None
    decide = tag_keras.decide_groups

    def spy(*given):
        seen.append(given)
        return decide(*given)

    monkeypatch.setattr(rules, "decide_groups", spy)
    measured = random_measured(seed, num_tasks)
    found = {**RULES, **SLOW_RULES}[name](measured, 2)
    if "affinities" in name:
        affinity = tag_keras.Affinity(
            measured.tasks, sum(measured.affinities["lookahead"]) / len(measured.validation)
        )
    parts = [f"part{part}" for part in range(len(measured.parts))]
    wanted = tag_keras.estimate_group_losses(rows_of(measured, largest), affinity, parts=parts)
    grouping = decide(wanted, 2).grouping
    assert found == [row(grouping.groups[grouping.serves[task]]) for task in measured.tasks]
    assert found != measured.joint or seed == 0
    ((estimate, number),) = seen
    assert number == 2
    np.testing.assert_allclose(estimate.mean, wanted.mean, rtol=1e-9)
    choices = [measured.tasks] * num_tasks, [(task,) for task in measured.tasks]
    deviation = estimate.sampling_deviation(*choices)
    assert deviation == pytest.approx(wanted.sampling_deviation(*choices)) and deviation > 0


def test_estimated_is_the_best_by_estimated_losses():
    # Noise is much of the losses: measured losses choose otherwise.
    noisy = Measured.of(random_table(3, seed=1, noise=0.3), [0, 1])
    raw, found = (RULES[f"all groups, {name}"](noisy, 2) for name in ("raw", "estimated"))
    assert found == best_by_search(noisy.estimate.mean, 2) != raw


def test_networks_trained_by_hand():
    # Three tasks have three pairs and seven groups.
    wanted = {
        "joint": 1,
        "single": 3,
        "joint or single": 1 + 3,
        "random groups": 2,
        "TAG as in the paper": 1 + 2,
        "anchored, or a yardstick": 1 + (1 + 3) + 2,
        "on a line, or a yardstick": (1 + 3) + 2,
        "experiment.run": 3 + (1 + 3) + 2,
        "HOA": 3 + 3 + 2,
        "ESA": 7 / 5 + 2,
        "all groups, raw": 7,
        "all groups, estimated": 7,
        "all groups, decided": 7,
        "all groups, decided at .5": 7,
        "pairs, decided": 3 + 3 + 1 + 2,
        "all groups and affinities, decided": 1 + 7,
    }
    assert networks_trained(3, 2) == wanted
    assert set(wanted) == {*RULES, *SLOW_RULES}


def test_small_groups_are_single_tasks_pairs_and_the_joint_network():
    wanted = rows(*"abcd", *("ab", "ac", "ad", "bc", "bd", "cd"), "abcd")
    assert rules.small_groups(random_measured(0), 2) == sorted(wanted)
