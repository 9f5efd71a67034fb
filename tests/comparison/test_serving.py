"""What is served: as a file, which comes back as it was, in words and in HTML."""

import dataclasses
import json

import pytest
from guard_cases import GROUPING, LOSSES, make_rows
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
        ({"seeds": None}, "`seeds` should be at least one whole number"),
        ({"seeds": []}, "`seeds` should be at least one whole number"),
        ({"author": 1}, "unexpected keyword argument 'author'"),
        ({"grouping": []}, r"`grouping` should hold objects. Received: grouping=\[\]"),
        ({"grouping": {}}, "missing 6 required positional arguments"),
        ({"moves": {}}, r"`moves` should be a list. Received: moves={}"),
        ({"moves": [1]}, "`moves` should hold objects. Received: moves=1"),
        ({"networks": [["group_0", 1]]}, "a name and a seed for each of the 2 groups"),
        ({"networks": [["group_0", 1], ["single_c", "0"]]}, "a name and a seed for each"),
        ({"total": "1"}, "`total` should be a finite number. Received: total='1'"),
        ({"total_joint": "1"}, "`total_joint` should be a finite number or None"),
        ({"total_single": "1"}, "`total_single` should be a finite number or None"),
        ({"split": 1}, "`split` should be a name"),
        ({"beyond_noise": 1}, "`beyond_noise` should be a bool"),
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
        ({"task": 1}, "`task` should be a name"),
        ({"noise": float("nan")}, "`noise` should be a finite number or None"),
        ({"mean_after": None}, "`mean_after` should be a finite number. Received"),
        ({"reason": "luck"}, '`reason` should be "beyond the noise", "the guarantee" or'),
    ],
)
def test_a_wrong_move_is_named(change, message):
    serving = tag_keras.guard_groups(GROUPING, make_rows())
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(serving.moves[0], **change)
    with pytest.raises(ValueError, match="`moves` should be of different tasks"):
        dataclasses.replace(serving, moves=serving.moves * 2)


def text_of(losses=LOSSES, **options):
    rows = make_rows(losses, seeds=options.pop("seeds", None))
    serving = tag_keras.guard_groups(GROUPING, rows, **options)
    return serving_as_text(GROUPING, serving)


def test_the_text_says_what_moved_and_why():
    assert text_of() == (
        "The guard moved 1 of 3 tasks: c from group_1 to single_c, better there beyond the noise "
        "between seeds. Total validation loss: 1.8 served, 2 without the guard, 2.1 by the joint "
        "network."
    )
    losses = {**LOSSES, "group_0": {"a": (0.90, 1.20, 0.75), "b": (0.55, 0.90, 0.90)}}
    # c is moved first; 1.45 + 0.8 is above 2.1 still, and a loses 0.4 against the joint network.
    # Without group_0 it is 0.5 + 0.6 + 0.8.
    assert text_of(losses).startswith(
        "The guard moved 3 of 3 tasks: a from group_0 to joint, to keep the total at or below that "
        "of the joint network; b from group_0 to joint, so that fewer networks serve; c "
        "from group_1 to single_c, better there beyond the noise between seeds. Total validation "
        "loss: 1.9 served, 2.45 without the guard"
    )
    # a is better alone, too, and nobody else who serves has b.
    losses["single_a"] = {"a": (0.50, 0.55, 0.50)}
    assert text_of(losses).endswith("It takes 3 networks, the groups 2.")
    losses |= {"single_a": LOSSES["single_a"], "single_b": {"b": (0.6, 0.6, 0.6)}}
    assert "at or below that of the joint network and of one network per task; b" in text_of(losses)


def test_the_text_where_nothing_moved():
    losses = {name: LOSSES[name] for name in ("group_0", "group_1", "joint")}
    assert text_of(losses, seeds=(1,)) == (
        "The guard moved no task: each is served by the network of its group. With 1 seed the "
        "noise is not known: no task moves for its own sake. Total validation loss: 2.1 served, "
        "2.5 by the joint network."
    )


def test_the_text_without_a_guarantee():
    losses = {name: LOSSES[name] for name in ("group_0", "group_1", "single_c")}
    assert text_of(losses) == (
        "The guard moved 1 of 3 tasks: c from group_1 to single_c, better there beyond the noise "
        "between seeds. Total validation loss: 1.8 served, 2 without the guard. There is neither a "
        "joint network nor one network per task to compare with, so nothing is guaranteed."
    )
    assert "No task moves for its own sake." in text_of(beyond_noise=False)


def test_many_moves_are_counted():
    tasks = tuple(f"t{index}" for index in range(13))
    grouping = tag_keras.Grouping(tasks, (tasks,), dict.fromkeys(tasks, 0), 0.0, 0.0, True)
    losses = {"group_0": dict.fromkeys(tasks, (2.0, 2.1, 2.2))}
    losses["joint"] = dict.fromkeys(tasks, (1.0, 1.1, 1.2))
    serving = tag_keras.guard_groups(grouping, make_rows(losses, grouping))
    text = serving_as_text(grouping, serving)
    assert text.startswith("The guard moved 13 of 13 tasks: 13 tasks, better there beyond")


def test_html_says_what_serves_each_task_and_why():
    serving = tag_keras.guard_groups(GROUPING, make_rows())
    page = serving._repr_html_()
    served, losses = Tables(page).tables
    assert served == [
        [["task"], ["served by"], ["seed"], ["moved"]],
        [["a"], ["group_0"], ["1"], []],
        [["b"], ["group_0"], ["1"], []],
        [["c"], ["single_c"], ["0"], ["from group_1: beyond the noise"]],
    ]
    assert losses == [
        [[], ["total validation loss"]],
        [["what is served"], ["1.8"]],
        [["the groups without the guard"], ["2"]],
        [["the joint network"], ["2.1"]],
    ]
    assert "<p>2 networks for 3 tasks, out of 3 seeds.</p>" in page


def test_html_escapes_names():
    tasks = ("<b>", "$x$")
    grouping = tag_keras.Grouping.from_groups(tasks, [tasks])
    losses = {"group_0": dict.fromkeys(tasks, (1.0, 1.1, 1.2))}
    page = tag_keras.guard_groups(grouping, make_rows(losses, grouping))._repr_html_()
    assert "<b>" not in page and "mathjax_ignore" in page
    assert [row[0] for row in Tables(page).tables[0][1:]] == [["<b>"], ["$x$"]]
