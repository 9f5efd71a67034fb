"""Names, numbers and draws of a study's networks."""

import collections
import itertools
import math

import numpy as np
import pytest

from tag_keras.selection.grouping import Grouping
from tag_keras.study.networks import (
    Candidate,
    Choice,
    choosing_networks,
    fixed_choice,
    groups_of,
    load_choice,
    random_groups,
    save_choice,
)

TASKS = ("a", "b", "c", "d")


def test_names():
    names = [Candidate(tasks).name(TASKS) for tasks in (TASKS, ("b",), ("a", "c", "d"))]
    assert names == ["joint", "single_b", "group_0-2-3"]
    assert Candidate(TASKS, "uw").name(TASKS) == "uw_joint"
    assert Candidate(("d",), "half").name(TASKS) == "half_single_d"
    assert Candidate(("a", "b"), "early").name(TASKS) == "early_group_0-1"


def test_no_two_networks_have_the_same_name():
    # A name that holds what joins the numbers, and tasks that are numbers themselves.
    tasks = ("0-1", "0", "1", "joint", "a_b")
    kinds = ("plain", "half", "early", "early_half", "tag")
    networks = [Candidate(group, kind) for group in groups_of(tasks, 5) for kind in kinds]
    assert len({network.name(tasks) for network in networks}) == len(networks) == 5 * (2**5 - 1)


def test_costs_in_standard_network_times():
    assert [Candidate(("a",), kind).cost for kind in ("plain", "early", "half", "early_half")] == [
        1.0,
        1.0,
        0.5,
        0.5,
    ]


@pytest.mark.parametrize("half_size", [False, True])
def test_how_many_networks_each_method_trains_to_choose(half_size):
    # Standley et al. 2020: 31 networks of five tasks, 36 with those of half the size; HOA trains
    # the 5 single tasks and the 10 pairs of these. TAG trains one network.
    tasks = ("s", "d", "n", "k", "e")
    expected = {"optimal": 31, "esa": 31, "hoa": 15}
    for method, number in expected.items():
        networks = choosing_networks(method, tasks, half_size)
        assert len(set(networks)) == len(networks) == number + 5 * half_size
    for method in ("tag", "first_order", "cs"):
        assert choosing_networks(method, tasks, half_size) == [Candidate(tasks, method)]
    assert choosing_networks("random", tasks, half_size) == []


def test_groups_are_all_subsets():
    expected = {
        frozenset(group) for size in (1, 2, 3) for group in itertools.combinations(TASKS, size)
    }
    found = groups_of(TASKS, 3)
    assert {frozenset(group) for group in found} == expected
    assert len(found) == 4 + 6 + 4
    assert all(list(group) == sorted(group) for group in found)


def test_too_many_tasks_for_all_groups():
    tasks = tuple(map(str, range(13)))
    for method in ("hoa", "esa", "optimal"):
        with pytest.raises(ValueError, match=r"at most 12\. Received: num_tasks=13"):
            choosing_networks(method, tasks, False)
    assert choosing_networks("tag", tasks, False)


def test_fixed_choices():
    assert fixed_choice("stl", ("a", "b")).names(("a", "b")) == {"a": "single_a", "b": "single_b"}
    assert fixed_choice("mtl", ("a", "b")).names(("a", "b")) == {"a": "joint", "b": "joint"}
    assert fixed_choice("pcgrad", ("a", "b")).names(("a", "b")) == dict.fromkeys(
        "ab", "pcgrad_joint"
    )


def test_random_groups_are_uniform_over_all_sets_of_groups():
    tasks, draws = ("a", "b", "c"), 6000
    # By brute force: all pairs of different groups that cover the tasks.
    groups = groups_of(tasks, 3)
    pairs = [pair for pair in itertools.combinations(groups, 2) if set().union(*pair) == {*tasks}]
    random = np.random.default_rng(0)
    counts = collections.Counter(frozenset(random_groups(tasks, 2, random)) for _ in range(draws))
    assert set(counts) == {frozenset(pair) for pair in pairs}
    expected = draws / len(pairs)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # Mean and deviation of chi-square with k degrees of freedom: k and sqrt(2 k).
    freedom = len(pairs) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_random_groups_of_every_number():
    random = np.random.default_rng(0)
    for number in range(1, 5):
        groups = random_groups(TASKS, number, random)
        assert len({*groups}) == number
        assert set().union(*groups) == {*TASKS}
    assert random_groups(TASKS, 1, random) == [TASKS]
    for number in (0, 5):
        with pytest.raises(ValueError, match=r"from 1 to their number\. Received: num_groups="):
            random_groups(TASKS, number, random)


def test_a_choice_comes_back(tmp_path):
    grouping = Grouping(("a", "b"), (("a", "b"), ("b",)), {"a": 0, "b": 1}, 0.1, 0.1, True)
    path = tmp_path / "groups.json"
    save_choice(path, grouping, ["plain", "half"])
    expected = Choice((Candidate(("a", "b")), Candidate(("b",), "half")), {"a": 0, "b": 1})
    assert load_choice(path, ("a", "b")) == expected
    # The file is one of the package's groupings, too.
    assert Grouping.load(path) == grouping
    save_choice(path, grouping, ["plain"])
    with pytest.raises(ValueError, match=r"groups\.json: `kinds` should have a name for each"):
        load_choice(path, ("a", "b"))
    grouping.save(path)
    with pytest.raises(ValueError, match=r"groups\.json lacks the field 'kinds'"):
        load_choice(path, ("a", "b"))
    save_choice(path, grouping, ["plain", "early"])
    with pytest.raises(ValueError, match=r"should be .plain. or .half.: \['early'\]\. Delete the"):
        load_choice(path, ("a", "b"))
    with pytest.raises(ValueError, match=r"groups\.json should have the tasks \['b', 'a'\]\. Rece"):
        load_choice(path, ("b", "a"))
