"""Names, numbers and draws of a study's networks."""

import collections
import itertools
import json
import math

import numpy as np
import pytest

from tag_keras.selection.grouping import Grouping
from tag_keras.study.methods import METHODS
from tag_keras.study.networks import (
    Choice,
    groups_of,
    load_choice,
    method_network,
    plain_network,
    random_groups,
    save_choice,
)
from tag_keras.sweep.network import Network

TASKS = ("a", "b", "c", "d")


def test_names_and_fields():
    networks = [plain_network(group, TASKS) for group in (TASKS, ("b",), ("a", "c", "d"))]
    assert [one.name for one in networks] == ["joint", "single_b", "group_0-2-3"]
    assert [one.role for one in networks] == ["joint", "single", "group"]
    assert method_network("uw", TASKS) == Network("uw_joint", TASKS, role="uw")
    half = plain_network(("d",), TASKS, half_size=True)
    assert (half.name, half.role, half.early, half.half_size) == (
        *("half_single_d", "single"),
        *(False, True),
    )
    early = plain_network(("a", "b"), TASKS, early=True)
    assert (early.name, early.role, early.early) == ("early_group_0-1", "group", True)
    # Version 0.1 had the names alone.
    for one in (*networks, half, early):
        assert Network(one.name, one.tasks) == one


def test_no_two_networks_have_the_same_name():
    # A name that holds what joins the numbers, and tasks that are numbers themselves.
    tasks = ("0-1", "0", "1", "joint", "a_b")
    networks = [
        plain_network(group, tasks, early, half_size)
        for group in groups_of(tasks, 5)
        for early in (False, True)
        for half_size in (False, True)
    ]
    networks.append(method_network("tag", tasks))
    assert len({network.name for network in networks}) == len(networks) == 4 * (2**5 - 1) + 1


def test_costs_in_standard_network_times():
    for early in (False, True):
        assert plain_network(("a",), TASKS, early).cost == 1.0
        assert plain_network(("a",), TASKS, early, half_size=True).cost == 0.5


@pytest.mark.parametrize("half_size", [False, True])
def test_how_many_networks_each_method_trains_to_choose(half_size):
    # Standley et al. 2020: 31 networks of five tasks, 36 with those of half the size; HOA trains
    # the 5 single tasks and the 10 pairs of these. TAG trains one network.
    tasks = ("s", "d", "n", "k", "e")
    expected = {"optimal": 31, "esa": 31, "hoa": 15}
    for method, number in expected.items():
        networks = METHODS[method].networks(tasks, half_size)
        assert len(set(networks)) == len(networks) == number + 5 * half_size
    for method in ("tag", "first_order", "cs"):
        assert METHODS[method].networks(tasks, half_size) == [method_network(method, tasks)]
    assert METHODS["random"].networks(tasks, half_size) == []


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
            METHODS[method].networks(tasks)
    assert METHODS["tag"].networks(tasks)


def test_fixed_choices():
    def names(method):
        return METHODS[method].choice(("a", "b")).names()

    assert names("stl") == {"a": "single_a", "b": "single_b"}
    assert names("mtl") == {"a": "joint", "b": "joint"}
    assert names("pcgrad") == dict.fromkeys("ab", "pcgrad_joint")


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
    save_choice(path, grouping, [False, True])
    tasks = ("a", "b")
    networks = (plain_network(tasks, tasks), plain_network(("b",), tasks, half_size=True))
    expected = Choice(networks, {"a": 0, "b": 1})
    assert load_choice(path, ("a", "b")) == expected
    # The file is one of the package's groupings, too.
    assert Grouping.load(path) == grouping
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "kinds": ["plain"]}))
    with pytest.raises(ValueError, match=r"groups\.json: `kinds` should have a name for each"):
        load_choice(path, ("a", "b"))
    grouping.save(path)
    with pytest.raises(ValueError, match=r"groups\.json lacks the field 'kinds'"):
        load_choice(path, ("a", "b"))
    path.write_text(json.dumps({**fields, "kinds": ["plain", "early"]}))
    with pytest.raises(ValueError, match=r"should be .plain. or .half.: \['early'\]\. Delete the"):
        load_choice(path, ("a", "b"))
    with pytest.raises(ValueError, match=r"groups\.json should have the tasks \['b', 'a'\]\. Rece"):
        load_choice(path, ("b", "a"))
