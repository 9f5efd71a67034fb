"""What is served: as a file, which comes back as it was, in words and in HTML."""

import json

import pytest
from guard_cases import GROUPING, LEVELS, make_rows, networks_of
from report_cases import Tables

import tag_keras
from tag_keras.comparison.serving import serving_as_text


def test_save_and_load(tmp_path):
    for seeds in ((0, 1, 2), (0,)):
        serving = tag_keras.guard_groups(GROUPING, make_rows(seeds=seeds))
        serving.save(tmp_path / "served.json")
        assert tag_keras.Serving.load(tmp_path / "served.json") == serving


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "is not a JSON file .* Delete it"),
        ("[]", "should hold a JSON object"),
        ({"author": 1}, "unexpected keyword argument 'author'"),
        ({"decision": []}, r"`decision` should hold objects. Received: decision=\[\]"),
        ({"networks": [["group_0", 1]]}, "a name and a seed for each of the 2 groups"),
        ({"networks": [["group_0", 1], ["single_c", "0"]]}, "a name and a seed for each"),
        ({"total": "1"}, "`total` should be a finite number. Received: total='1'"),
        ({"total_joint": None}, "`total_joint` should be a finite number"),
        ({"total_single": "1"}, "`total_single` should be a finite number"),
        ({"split": 1}, "`split` should be a name"),
        ({"checksum": 1}, "`checksum` should be text"),
    ],
)
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, change, message):
    path = tmp_path / "served.json"
    tag_keras.guard_groups(GROUPING, make_rows()).save(path)
    if isinstance(change, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        message += ".* Delete it and run the step that wrote it again"
    else:
        path.write_text(change)
    with pytest.raises(ValueError, match=f"served.json .*{message}"):
        tag_keras.Serving.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "many"}, '`kind` should be "joint", "single" or "groups"'),
        ({"reason": 1}, "`reason` should be text. Received: reason=1"),
        ({"options": {}}, "`options` should be a list, with the joint network at least"),
        ({"options": []}, "`options` should be a list, with the joint network at least"),
        ({"options": [1]}, "`options` should hold objects"),
        ({"grouping": []}, "`grouping` should hold objects"),
        ({"grouping": {}}, "missing 6 required positional arguments"),
        ({"gain": 1.0}, "`gain` should hold objects"),
        ({"gain": {}}, r"`interval` should have two ends"),
        ({"gain": {"interval": [0.0, "1"]}}, "`high` should be a finite number"),
        ({"gain": {"interval": [0.0, 1.0], "mean": None}}, "`mean` should be a finite number"),
        ({"gain": {"interval": [0.0, 1.0]}}, "missing 3 required positional arguments"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_damaged_decision_is_named(tmp_path, change, message):
    path = tmp_path / "served.json"
    tag_keras.guard_groups(GROUPING, make_rows()).save(path)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "decision": {**fields["decision"], **change}}))
    with pytest.raises(ValueError, match=f"served.json does not say what is served: .*{message}"):
        tag_keras.Serving.load(path)


def test_the_words_for_groups():
    serving = tag_keras.guard_groups(GROUPING, make_rows(noise=0.0))
    # 0.6 + 0.4 + 0.8 = 1.8 against 2.8 and 2.6: 30.8 % below 2.6. The estimate pulls a little.
    share = 100 * serving.decision.over_yardstick.share
    assert share == pytest.approx(100 * 0.8 / 2.6, abs=0.5)
    assert serving_as_text(serving) == (
        f"{serving.decision.reason} Of these groups it is {share:.1f} % below that of one network "
        "per task; that it is below has a probability of 1.00. 2 networks served. Total validation "
        "loss at the best seeds: 1.8 by them, 2.8 by the joint network, 2.6 by one network per "
        "task."
    )


def test_the_words_for_groups_that_are_a_little_worse_than_single_networks():
    single = {f"single_{task}": {task: 1.0} for task in "abc"}
    levels = {**LEVELS, **single, "joint": dict.fromkeys("abc", 2.0)}
    levels |= {"group_0": {"a": 1.001, "b": 1.001}, "group_1": {"b": 2.0, "c": 1.001}}
    serving = tag_keras.guard_groups(GROUPING, make_rows(levels, noise=0.01))
    assert serving.decision.kind == "groups" and serving.decision.over_yardstick.mean < 0
    assert "% above that of one network per task; that it is below" in serving_as_text(serving)


def test_the_words_where_the_joint_network_is_the_yardstick():
    levels = {f"single_{task}": {task: 2.0} for task in "abc"}
    text = serving_as_text(tag_keras.guard_groups(GROUPING, make_rows({**LEVELS, **levels})))
    assert text.startswith("2 groups: the total loss is ") and "Of these groups" not in text


def test_the_words_for_yardsticks():
    joint = make_rows({**LEVELS, "joint": {"a": 0.4, "b": 0.3, "c": 0.4}})
    serving = tag_keras.guard_groups(GROUPING, joint)
    assert serving_as_text(serving) == (
        f"{serving.decision.reason} 1 network served. Total validation loss at the best seeds: "
        f"{serving.total:.4g} by it, {serving.total_single:.4g} by one network per task."
    )
    single = make_rows({**LEVELS, **{f"single_{task}": {task: 0.1} for task in "abc"}})
    serving = tag_keras.guard_groups(GROUPING, single)
    assert serving_as_text(serving) == (
        f"{serving.decision.reason} 3 networks served. Total validation loss at the best seeds: "
        f"{serving.total:.4g} by them, {serving.total_joint:.4g} by the joint network."
    )


def test_html_says_what_serves_each_task_and_why():
    serving = tag_keras.guard_groups(GROUPING, make_rows())
    page = serving._repr_html_()
    served, losses = Tables(page).tables
    assert served == [
        [["task"], ["served by"], ["seed"]],
        *([[task], [name], [str(seed)]] for task, (name, seed) in networks_of(serving).items()),
    ]
    assert losses == [
        [[], ["total validation loss"]],
        [["what is served"], [f"{serving.total:.4g}"]],
        [["the joint network"], [f"{serving.total_joint:.4g}"]],
        [["one network per task"], [f"{serving.total_single:.4g}"]],
    ]
    assert f"<p>{serving.decision.reason}</p>" in page


def test_html_escapes_names():
    tasks = ("<b>", "$x$")
    grouping = tag_keras.Grouping.from_groups(tasks, [tasks])
    losses = {"group_0": dict.fromkeys(tasks, 1.0), "joint": dict.fromkeys(tasks, 1.0)}
    losses |= {f"single_{task}": {task: 2.0} for task in tasks}
    page = tag_keras.guard_groups(grouping, make_rows(losses, grouping, noise=0.0))._repr_html_()
    assert "<b>" not in page and "mathjax_ignore" in page
    assert [row[0] for row in Tables(page).tables[0][1:]] == [["<b>"], ["$x$"]]
