"""What is served, in words and as tables."""

import dataclasses

from guard_cases import GROUPING, LOSSES, make_rows

import tag_keras
from tag_keras.comparison.serving import serving_as_text
from tag_keras.report.tables import moves_table, served_table


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


def test_the_tables():
    rows = make_rows() + [
        dataclasses.replace(row, split="test", loss=row.loss + 1) for row in make_rows()
    ]
    serving = tag_keras.guard_groups(GROUPING, rows)
    (line,) = moves_table(serving, rows)
    assert (line["task"], line["before"], line["after"]) == ("c", "group_1", "single_c")
    assert line["means"] == "1.10 → 0.900"
    assert line["difference"].startswith("\N{MINUS SIGN}0.2")
    assert line["test"] == "2.10 → 1.90"
    # Of the seeds that were compared, all or none.
    some = [row for row in rows if (row.network, row.seed, row.split) != ("group_1", 2, "test")]
    for without in (some, make_rows()):
        assert moves_table(serving, without) == [{**line, "test": ""}]
    # Of the single networks that of b is missing. Test losses are 3 more.
    lines = served_table(GROUPING, serving, rows)
    assert [tuple(line.values()) for line in lines] == [
        ("what is served", 2, "1.800", "4.800"),
        ("the groups without the guard", 2, "2.000", "5.000"),
        ("the joint network", 1, "2.100", "5.100"),
    ]
    (first, *_) = served_table(GROUPING, serving, make_rows())
    assert first["test"] == ""
