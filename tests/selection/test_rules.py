"""What a selection may be told of its groups: the problem it makes, and what it refuses."""

import numpy as np
import pytest

import tag_keras
from tag_keras.selection.rules import build_problem

TASKS = ("a", "b", "c", "d", "e")


def affinity(num_tasks=5):
    return tag_keras.Affinity(TASKS[:num_tasks], np.arange(num_tasks**2).reshape(num_tasks, -1))


def build(**changed):
    options = {"singletons": "forbid", "partition": False, "max_group_size": None}
    options |= {"together": (), "apart": (), **changed}
    return build_problem(affinity(), **options)


def test_the_problem_without_options():
    problem = build()
    assert problem.units == ((0,), (1,), (2,), (3,), (4,)) and not problem.apart.any()
    assert problem.max_size == 5 and problem.partition is False
    assert (problem.alone == -np.inf).all() and (problem.affinity == affinity().mean).all()


def test_scores_of_tasks_alone():
    assert (build(singletons="baseline").alone == 0).all()
    problem = build(singletons={"c": np.float32(1.5), "a": -2})
    assert problem.alone.tolist() == [-2.0, -np.inf, 1.5, -np.inf, -np.inf]


def test_lists_that_share_a_task_are_together():
    assert build(together=[["d", "a"], ("a", "c"), ["e"], []]).units == ((0, 2, 3), (1,), (4,))
    assert build(together=[["a", "b"], ["c", "d"], ["b", "c"]]).units == ((0, 1, 2, 3), (4,))


def test_what_is_together_is_apart_together():
    problem = build(together=[["a", "b"]], apart=[["a", "c", "e"]])
    pairs = {(0, 2), (1, 2), (0, 4), (1, 4), (2, 4)}
    expected = {*pairs, *((second, first) for first, second in pairs)}
    assert set(map(tuple, np.argwhere(problem.apart).tolist())) == expected


def test_options_change_the_groups():
    # Each task is helped by the ones before it in the alphabet, the more the nearer.
    mean = -np.abs(np.subtract.outer(range(5), range(5))).astype(float)
    select = tag_keras.select_groups
    near = tag_keras.Affinity(TASKS, mean)
    assert select(near, 2).groups == (("a", "b"), ("c", "d", "e"))
    assert select(near, 2, apart=[["a", "b"]]).groups == (("a", "c"), ("b", "c", "d", "e"))
    two = select(near, 2, partition=True, together=[["a", "c"]])
    assert two.groups == (("a", "b", "c"), ("d", "e"))
    assert len(select(near, 3, max_group_size=2).groups) == 3
    alone = select(near, 2, partition=True, singletons={"e": 9.0})
    assert alone.groups == (("a", "b", "c", "d"), ("e",)) and alone.score == pytest.approx(
        (9 - 2 - 4 / 3 - 4 / 3 - 2) / 5
    )


@pytest.mark.parametrize("number", [np.int64(2), np.int32(2), np.uint8(2)])
def test_whole_numbers_of_numpy_will_do(number):
    found = tag_keras.select_groups(affinity(), number, max_group_size=np.int64(4))
    assert found == tag_keras.select_groups(affinity(), 2, max_group_size=4)
    assert len(tag_keras.selection_frontier(affinity(), number)) == 2


WRONG_OPTIONS = [
    ({"singletons": "alone"}, r'"forbid", "baseline" or a dict of scores by task\. .*=\'alone\''),
    ({"singletons": np.zeros(5)}, "`singletons` should be .* Received: singletons=array"),
    ({"singletons": 0.0}, "`singletons` should be .* Received: singletons=0.0"),
    ({"singletons": {"x": 1.0}}, r"`singletons` should name tasks out of .*unknown=\['x'\]"),
    (
        {"singletons": {"a": "1"}},
        "`singletons` should give 'a' a number of at most 1e.300 in.*score='1'",
    ),
    ({"singletons": {"a": True}}, "`singletons` should give 'a' a number of at most.*score=True"),
    ({"singletons": {"b": np.nan}}, "`singletons` should give 'b' a number of at most.*score=nan"),
    ({"singletons": {"a": -1e301}}, "`singletons` should give 'a' a number of at most .*-1e.301"),
    ({"singletons": {"a": 1j}}, "`singletons` should give 'a' a number of at most .*score=1j"),
    ({"partition": 1}, "`partition` should be a bool. Received: partition=1"),
    ({"max_group_size": 0}, "`max_group_size` should be at least 1. Received: max_group_size=0"),
    ({"max_group_size": 2.0}, "`max_group_size` should be an integer"),
    ({"max_group_size": True}, "`max_group_size` should be an integer"),
    ({"max_group_size": 1}, '`max_group_size` should be at least 2 with singletons="forbid"'),
    (
        {"together": "ab"},
        r'`together` should be a list of lists of task names, such as \[\["a".*=\'ab\'',
    ),
    ({"together": ["ab"]}, "`together` should be a list of lists of task names"),
    ({"together": 3}, "`together` should be a list of lists of task names.*: together=3"),
    ({"apart": {"a": ["b"]}}, "`apart` should be a list of lists of task names"),
    ({"apart": [["a", 3]]}, r"`apart` should name tasks out of .*unknown=\[3\]"),
    ({"together": [["a", "x", "y"]]}, r"`together` should name tasks out of .*'x', 'y'"),
    (
        {"together": [["a", "b"]], "apart": [["b", "c", "a"]]},
        "`together` joins 'a' and 'b', so `apart` cannot part them; take them out of one",
    ),
    (
        {"together": [["a", "b"], ["d", "b"]], "apart": [["a", "d"]]},
        r"`together` joins 'a' and 'd', .* Received: apart=\('a', 'd'\)",
    ),
    (
        {"together": [["a", "b"], ["c", "b"]], "max_group_size": 2},
        r"`max_group_size` should be at least 3, because `together` joins \['a', 'b', 'c'\]",
    ),
    (
        {"apart": [["a", other] for other in "bcde"]},
        "'a' should have a group: it may not be alone, and no other task may join it",
    ),
    (
        {"singletons": dict.fromkeys("abcd", 0.0), "max_group_size": 1},
        "'e' should have a group: it may not be alone",
    ),
    (
        # The others come in pairs, which leave no room for a third.
        {"together": [["a", "b"], ["c", "d"]], "max_group_size": 2},
        "'e' should have a group: it may not be alone",
    ),
    ({"time_limit": 0}, "`time_limit` should be a positive number of seconds, or None"),
    ({"time_limit": float("inf")}, "`time_limit` should be a positive number of seconds"),
    ({"time_limit": "9"}, "`time_limit` should be a positive number of seconds"),
    ({"time_limit": True}, "`time_limit` should be a positive number of seconds"),
]


def test_refuses_affinities_whose_sums_are_not_finite():
    # Up to that size, the sums are: two pairs of 1e300 make a mean of 1e300.
    mean = np.array([[0, 1, -1, -1], [1, 0, -1, -1], [-1, -1, 0, 1], [-1, -1, 1, 0]]) * 1e300
    largest = tag_keras.select_groups(tag_keras.Affinity(list("abcd"), mean), 2)
    assert largest.groups == (("a", "b"), ("c", "d"))
    assert largest.score == pytest.approx(1e300)
    mean[0, 2] = -1e301
    message = r"`affinity` should be at most 1e\+300 in size; .* pairs='a -> c: -1e\+301'"
    with pytest.raises(ValueError, match=message):
        tag_keras.select_groups(tag_keras.Affinity(list("abcd"), mean), 2)


@pytest.mark.parametrize(("wrong", "message"), WRONG_OPTIONS)
def test_refuses_wrong_options(wrong, message):
    for select in (tag_keras.select_groups, tag_keras.selection_frontier):
        with pytest.raises(ValueError, match=message):
            select(affinity(), 2, **wrong)


@pytest.mark.parametrize(
    ("options", "fewest"),
    [
        ({"max_group_size": 2}, 3),
        ({"apart": [["a", "b", "c"]]}, 3),
        ({"max_group_size": 2, "together": [["a", "b"]]}, 3),
        ({"max_group_size": 1, "singletons": "baseline"}, 5),
    ],
)
def test_says_how_many_groups_would_do(options, fewest):
    message = f"`num_groups` should be at least {fewest}: fewer groups that are allowed do not "
    with pytest.raises(ValueError, match=f"{message}cover all tasks. Received: num_groups=2"):
        tag_keras.select_groups(affinity(), 2, **options)
    with pytest.raises(ValueError, match=f"`max_groups` should be at least {fewest}: fewer"):
        tag_keras.selection_frontier(affinity(), 2, **options)
    assert len(tag_keras.select_groups(affinity(), fewest, **options).groups) == fewest
    assert len(tag_keras.selection_frontier(affinity(), fewest + 2, **options)) == 3


def test_says_that_nothing_covers_all_tasks():
    message = "No family of groups without overlap covers all tasks: allow tasks alone, larger"
    with pytest.raises(ValueError, match=message):
        tag_keras.select_groups(affinity(), 5, partition=True, max_group_size=2)
