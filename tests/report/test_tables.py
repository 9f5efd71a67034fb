"""The numbers of the report's tables, each against a computation of its own."""

import dataclasses
import statistics

import guard_cases
import pytest
from report_cases import (
    ABC,
    FOUR,
    FOUR_AFFINITY,
    FOUR_GROUPS,
    METRIC_TASKS,
    MINUS,
    SERVES,
    TASKS,
    Tables,
    make_choice,
    make_grouping,
    make_rows,
    make_stability,
)

import tag_keras
from tag_keras.affinity import Affinity
from tag_keras.report import tables
from tag_keras.report.tables import (
    costs_table,
    describe_stability,
    frontier_table,
    networks_table,
    options_table,
    scores_table,
    served_table,
    settings_table,
)
from tag_keras.results import Row


def loss_of(rows, kind, task, seed, value):
    network = {"joint": "joint", "single": f"single_{task}", "grouped": f"group_{SERVES[task]}"}
    found = [
        value(row)
        for row in rows
        if (row.network, row.task, row.seed, row.split) == (network[kind], task, seed, "test")
    ]
    (value,) = found
    return value


def test_every_loss_of_the_table(page):
    rows, table = make_rows(), Tables(page).by_section["Test loss by task"][0]
    assert [cell for (cell,) in table[0]] == [
        "Task",
        "joint network",
        "one network per task",
        "groups",
    ]
    assert len(table) == len(TASKS) + 2
    for line, tasks in zip(table[1:], [*([task] for task in TASKS), TASKS], strict=True):
        assert line[0] == [tasks[0] if len(tasks) == 1 else "Total"]
        losses = {
            kind: [
                sum(loss_of(rows, kind, t, seed, lambda r: r.loss) for t in tasks)
                for seed in range(3)
            ]
            for kind in ("joint", "single", "grouped")
        }
        joint = statistics.mean(losses["joint"])
        for kind, cell in zip(losses, line[1:], strict=True):
            mean = statistics.mean(losses[kind])
            expected = [f"{mean:.4f}", f"± {statistics.stdev(losses[kind]):.4f}"]
            if kind != "joint":
                differences = [
                    100 * (own - other) / joint
                    for own, other in zip(losses[kind], losses["joint"], strict=True)
                ]
                noise = 2 * statistics.stdev(differences) / 3**0.5
                change = f"{100 * (mean / joint - 1):+.1f} ± {noise:.1f} %"
                expected.append(change.replace("-", MINUS))
            assert cell == expected


def test_the_lowest_of_each_line_is_marked(page):
    # Lines below the head, fourth cell: the groups win everywhere in these rows.
    found = Tables(page)
    table = 1 + found.tables.index(found.by_section["Test loss by task"][0])
    assert found.marked == [(table, line, 4) for line in range(2, len(TASKS) + 3)]


def test_every_metric_of_the_table(page):
    rows, table = make_rows(), Tables(page).by_section["Test loss by task"][1]
    assert [line[0] for line in table[1:]] == [[task] for task in METRIC_TASKS]
    for line, task in zip(table[1:], METRIC_TASKS, strict=True):
        assert line[1] == ["accuracy"]
        for kind, cell in zip(("joint", "single", "grouped"), line[2:], strict=True):
            values = [
                loss_of(rows, kind, task, s, lambda r: r.metrics["accuracy"]) for s in range(3)
            ]
            mean, deviation = float(cell[0]), float(cell[1].removeprefix("± "))
            assert mean == pytest.approx(statistics.mean(values), abs=1e-4)
            assert deviation == pytest.approx(statistics.stdev(values), abs=1e-4)


def test_costs_count_each_network_once(page):
    # Seconds are 10 + the number of tasks: joint 19, of which the fourth seed takes 18; groups 14
    # + 13 + 13 = 40 for each of 3 seeds; single 9 * 11 = 99 for each of 3 seeds. The mean of
    # joint is (3 * 19 + 18) / 4 = 18.75.
    lines = [["".join(cell) for cell in line] for line in Tables(page).by_section["Cost"][0]]
    assert lines[1:] == [
        ["Measuring: joint training with probes", "1", "60.0", "3.20"],
        ["Retraining the groups", "9", "120", "6.40"],
        ["Yardstick: joint network", "4", "75.0", "4.00"],
        ["Yardstick: one network per task", "27", "297", "15.84"],
        ["Sum", "41", "552", "29.44"],
    ]
    # (60 + 40) / 18.75
    assert "To measure and to train each group once takes 5.33 joint trainings." in page


def test_costs_of_a_group_that_is_a_yardstick():
    # By name: tasks and seconds with each of two seeds. group_1 is single_c under another name, as
    # its losses and seconds to the last bit say; group_0 has only as many.
    networks = {
        "affinity": (ABC, 20.0),
        "joint": (ABC, 10.0),
        **{f"single_{task}": ((task,), 4.0) for task in ABC},
        "group_0": (("a", "b"), 7.0),
        "group_1": (("c",), 4.0),
    }
    rows = [
        Row(name, tasks, seed, task, "test", 0.5, {}, seconds + seed)
        for name, (tasks, seconds) in networks.items()
        for seed in (0, 1)
        for task in tasks
    ]
    costs = costs_table(make_grouping(ABC, (("a", "b"), ("c",))), rows)
    found = {line["stage"]: (line["networks"], line["seconds"]) for line in costs["lines"]}
    assert found == {
        "Measuring: joint training with probes": ("2", "41.0"),
        "Retraining the groups": ("2", "15.0"),
        "Yardstick: joint network": ("2", "21.0"),
        "Yardstick: one network per task": ("6", "27.0"),
        "Sum": ("12", "104"),
    }
    # Measuring takes both seeds, the others are means: 41 + 7.5 + 4.5 of 10.5, and with all
    # yardsticks 41 + 10.5 + 3 * 4.5 + 7.5.
    assert costs["once"] == "5.05"
    costs = costs_table(make_grouping(ABC, (("a", "b"), ("c",))), rows, by_yardsticks=True)
    assert costs["once"] == "6.90"


def test_the_tables_of_what_is_served():
    levels = {**guard_cases.LEVELS, "single_c": {"c": 0.3}}
    rows = guard_cases.make_rows(levels, noise=0.0)
    rows += [dataclasses.replace(row, split="test", loss=row.loss + 1) for row in rows]
    serving = tag_keras.guard_groups(guard_cases.GROUPING, rows)
    # Served: a and b from group_0, c from its own network. Test losses are 3 more.
    lines = served_table(guard_cases.GROUPING, serving, rows)
    assert [tuple(line.values()) for line in lines] == [
        ("what is served", 2, "1.300", "4.300"),
        ("the groups as selected", 2, "1.800", "4.800"),
        ("the joint network", 1, "2.800", "5.800"),
        ("one network per task", 3, "1.900", "4.900"),
    ]
    (first, *_) = served_table(guard_cases.GROUPING, serving, guard_cases.make_rows(levels))
    assert first["test"] == ""
    two, three = options_table(serving)
    assert (two["networks"], two["choice"], two["served"]) == ("2", "a, b; c", True)
    assert (three["networks"], three["choice"]) == ("3", "one network per task")
    assert not three["served"]
    # 1.5 of 2.8.
    assert two["gain"].startswith("53.") and two["probability"] == "1.00"
    low, high = serving.decision.interval
    joint = serving.decision.gain.mean / serving.decision.gain.share
    assert two["gain"].endswith(f"({100 * low / joint:.1f} to {100 * high / joint:.1f} %)")


def test_stability_in_words():
    assert describe_stability(make_stability(), FOUR_AFFINITY) == (
        "The chosen groups win in 129 of 200 draws of the affinities from their standard errors. "
        "The expected regret is 0.27, in units of 10⁻³: on average over the draws, the chosen "
        "groups score by that much less than the best groups for the draw. For the means of "
        "the affinities they score 10."
    )
    worse = make_stability(grouping=make_choice(-0.0123), regret=0.0)
    words = describe_stability(worse, FOUR_AFFINITY)
    assert "regret is 0, in units" in words
    assert f"they score {MINUS}12.3." in words


def test_scores_of_the_groups():
    # a gets .2 from b, b -.1 from a, c is alone; b helps c.
    mean = [[0.9, -0.1, 0.3], [0.2, 0.9, 0.3], [0.4, 0.2, 0.9]]
    grouping = make_grouping(ABC, (("a", "b"), ("c",), ("b", "c")), {"a": 0, "b": 0, "c": 1})
    unit, lines = scores_table(grouping, Affinity(ABC, mean), "mean")
    assert unit == ", in units of 10⁻³"
    assert [tuple(line.values()) for line in lines] == [
        ("a", "group_0", "+200", ""),
        ("b", "group_0", f"{MINUS}100", "group_2"),
        ("c", "group_1", "alone", "group_2"),
    ]
    grouping = make_grouping(ABC, (ABC,))
    _, lines = scores_table(grouping, Affinity(ABC, mean), "sum")
    # .2 + .4, -.1 + .2 and .3 + .3.
    assert [line["score"] for line in lines] == ["+600", "+100", "+600"]


def test_the_frontier_says_what_each_network_gains():
    frontier = [make_choice(score, groups=(FOUR,)) for score in (-0.005, 0.01, 0.0124, 0.0124)]
    frontier[3] = dataclasses.replace(frontier[3], upper_bound=0.02, optimal=False)
    found = frontier_table(frontier, make_choice(), FOUR_AFFINITY)
    assert found["unit"] == ", in units of 10⁻³"
    names = ("networks", "score", "gain", "chosen", "proven")
    assert [tuple(line[name] for name in names) for line in found["lines"]] == [
        ("1", f"{MINUS}5", "", False, True),
        ("2", "10", "+15", True, True),
        ("3", "12.4", "+2", False, True),
        ("4", "12.4", "+0", False, False),
    ]
    # The first has the least score of all, the last the largest.
    assert 'x="3.0%"' in found["lines"][0]["strip"] and 'x="97.0%"' in found["lines"][3]["strip"]
    # Two digits of the largest gain.
    close = [make_choice(score, groups=(FOUR,)) for score in (0.01, 0.010042, 0.010049)]
    lines = frontier_table(close, make_choice(), FOUR_AFFINITY)["lines"]
    assert [line["gain"] for line in lines] == ["", "+0.042", "+0.007"]


def test_the_frontier_begins_where_the_groups_are_enough():
    frontier = [make_choice(score, groups=FOUR_GROUPS) for score in (0.01, 0.02)]
    lines = frontier_table(frontier, make_choice(), FOUR_AFFINITY)["lines"]
    assert [(line["networks"], line["chosen"]) for line in lines] == [("2", True), ("3", False)]


def test_every_network_has_its_line():
    levels = {**guard_cases.LEVELS, "single_c": {"c": 0.3}, "candidate_0-2": {"a": 0.5, "c": 0.5}}
    rows = guard_cases.make_rows(levels, noise=0.0)
    rows += [
        dataclasses.replace(row, split="test", loss=row.loss + 1)
        for row in rows
        if row.network != "group_1"
    ]
    # A seed that the joint network lacks, and a network whose losses are incomplete.
    rows.append(Row("single_a", ("a",), 7, "a", "validation", 1.3, {}, 9.0))
    rows.append(Row("rival", ("a", "b", "c"), 0, "a", "validation", 1.0, {}, 2.0))
    rows.append(Row("affinity", ("a", "b", "c"), 0, "a", "test", 1.0, {}, 5.0))
    serving = tag_keras.guard_groups(guard_cases.GROUPING, rows)
    found = networks_table(rows, serving)
    assert found["left_out"] == 0
    lines = {line["name"]: line for line in found["lines"]}
    assert set(lines) == {row.network for row in rows}
    # Those that serve stand first.
    served = [name for name, _ in serving.networks]
    assert [line["name"] for line in found["lines"]][: len(served)] == served[::-1]
    assert all(lines[name]["seed"] == seed for name, seed in serving.networks)
    assert lines["joint"]["tasks"] == "all tasks" and lines["group_1"]["tasks"] == "b, c"
    # b .9 and c .8, of .8 and 1.1 in the joint network: -10.5 %.
    group = lines["group_1"]
    assert (group["loss"], group["number"]) == (("1.7", pytest.approx(1.7)), ("2", 2.0))
    assert group["change"] == (f"{MINUS}10.5 %", pytest.approx(100 * (1.7 / 1.9 - 1)))
    assert group["test"][0] == "" and group["seconds"] == ("1.0", 1.0)
    # Three seeds of .9, and 1.3; only the three are compared.
    assert lines["single_a"]["loss"] == ("1", pytest.approx(1.0))
    assert lines["single_a"]["change"][0] == "+0.0 %" and lines["single_a"]["seeds"] == ("4", 4.0)
    assert lines["rival"]["loss"][0] == lines["rival"]["change"][0] == ""
    assert lines["joint"]["change"][0] == "" and lines["affinity"]["role"] == "measures"


def test_of_many_networks_some_are_left_out(monkeypatch):
    monkeypatch.setattr(tables, "MOST_NETWORKS", 3)
    rows = guard_cases.make_rows()
    found = networks_table(rows)
    assert len(found["lines"]) == 3 and found["left_out"] == 3
    assert [line["name"] for line in found["lines"]] == ["joint", "single_a", "single_b"]


def test_settings_are_text():
    settings = {"tasks": ("a", "b"), "on": None, "every": 2, "data": {"version": [1, 2]}}
    assert settings_table(settings) == [
        ("tasks", "a, b"),
        ("on", "none"),
        ("every", "2"),
        ("data", "version: 1, 2"),
    ]
