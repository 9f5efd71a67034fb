"""Groupings: fields that agree, groups of your own, files and HTML."""

import json
import math

import pytest
from report_cases import Tables
from selection_oracle import make_affinity, random_means

import tag_keras

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
    ({"score": 10**400}, "`score` should be a finite number"),
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


def test_load_refuses_what_no_selection_gives(tmp_path):
    path = tmp_path / "groups.json"
    for wrong, message in [
        ({"score": 0.6}, "`score` should be at most `upper_bound`. Received: score=0.6, upper_bo"),
        ({"groups": [["a", "b"], ["b", "a"], ["c"]], "serves": {"a": 0, "b": 1, "c": 2}}, "differ"),
    ]:
        path.write_text(json.dumps(FIELDS | wrong))
        with pytest.raises(ValueError, match=f"groups.json does not hold a grouping: .*{message}"):
            tag_keras.Grouping.load(path)
    # A rounded sum is no contradiction.
    path.write_text(json.dumps(FIELDS | {"score": 0.5 + 1e-9}))
    assert tag_keras.Grouping.load(path).score > 0.5


def test_groups_of_your_own():
    grouping = tag_keras.Grouping.from_groups(["b", "a", "c"], [["c"], ["a", "b"]])
    assert grouping == tag_keras.Grouping(
        ("b", "a", "c"), (("c",), ("b", "a")), {"b": 1, "a": 1, "c": 0}, 0.0, 0.0, False
    )


def test_groups_of_your_own_that_share_a_task_need_to_know_who_serves_it(tmp_path):
    tasks, groups = ("a", "b", "c"), [("a", "b"), ("c", "b")]
    with pytest.raises(ValueError, match="`serves` should name the group that serves 'b', which"):
        tag_keras.Grouping.from_groups(tasks, groups)
    # The others are in one group only.
    grouping = tag_keras.Grouping.from_groups(tasks, groups, {"b": 1})
    assert grouping.serves == {"a": 0, "b": 1, "c": 1}
    assert grouping.groups == (("a", "b"), ("b", "c"))
    grouping.save(tmp_path / "groups.json")
    assert tag_keras.Grouping.load(tmp_path / "groups.json") == grouping


@pytest.mark.parametrize(
    ("tasks", "groups", "serves", "message"),
    [
        ("ab", [["a"], ["b"]], None, "`tasks` should be a list of names"),
        (["a", "a"], [["a"]], None, "`tasks` should be unique"),
        (["a", "b"], "ab", None, "`groups` should be lists of task names"),
        (["a", "b"], ["a", "b"], None, "`groups` should be lists of task names"),
        (["a", "b"], [["a", 1], ["b"]], None, "`groups` should be lists of task names"),
        (["a", "b"], [["a"]], None, "`groups` should have the task 'b' in a group"),
        (["a", "b"], [["a", "b", "x"]], None, r"`groups` should be tuples of names out of .*'x'"),
        (["a", "b"], [["a", "b", "b"]], None, "`groups` should be tuples of names"),
        (["a", "b"], [["a", "b"], []], None, "`groups` should be tuples of names"),
        (["a"], [["a"], ["a"]], {"a": 1}, "`groups` should be different"),
        (["a", "b"], [["a"], ["b"]], [0, 1], "`serves` should be a dict from tasks to indices"),
        (["a", "b"], [["a"], ["b"]], {"x": 0}, "`serves` should give each of"),
        (["a", "b"], [["a"], ["b"]], {"a": 1}, "`serves` should give each of"),
    ],
)
def test_wrong_groups_of_your_own_are_refused(tasks, groups, serves, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.Grouping.from_groups(tasks, groups, serves)


def test_html_has_a_row_for_each_group():
    tasks = ("a", "<b>", "$c$")
    groups = [["a", "<b>"], ["a", "$c$"]]
    grouping = tag_keras.Grouping.from_groups(tasks, groups, {"a": 0})
    page = grouping._repr_html_()
    assert Tables(page).tables == [
        [
            [["network"], ["trains"], ["serves"], ["helped by"]],
            [["group_0"], ["a, <b>"], ["a, <b>"], []],
            [["group_1"], ["a, $c$"], ["$c$"], ["a"]],
        ]
    ]
    assert "<b>" not in page and "mathjax_ignore" in page
    # Nobody has scored it.
    assert "<p>3 tasks in 2 groups.</p>" in page


def test_html_says_the_score_and_whether_it_is_proven():
    scored = tag_keras.Grouping(**FIELDS)
    assert "3 tasks in 2 groups, score 0.25 (bound 0.5).</p>" in scored._repr_html_()
    best = tag_keras.Grouping(**FIELDS | {"score": 0.0, "upper_bound": 0.0, "optimal": True})
    assert "groups, score 0 (proven to be the best).</p>" in best._repr_html_()
