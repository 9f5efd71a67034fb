"""The numbers of the report's tables, each against a computation of its own."""

import dataclasses
import statistics

import guard_cases
import pytest
from report_cases import ABC, METRIC_TASKS, MINUS, SERVES, TASKS, Tables, make_grouping, make_rows

import tag_keras
from tag_keras.report.tables import costs_table, options_table, served_table
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
    rows, table = make_rows(), Tables(page).tables[0]
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
                expected.append(f"{100 * (mean / joint - 1):+.1f} %".replace("-", MINUS))
            assert cell == expected


def test_the_lowest_of_each_line_is_marked(page):
    # Table 1, lines below the head, fourth cell: the groups win everywhere in these rows.
    assert Tables(page).marked == [(1, line, 4) for line in range(2, len(TASKS) + 3)]


def test_every_metric_of_the_table(page):
    rows, table = make_rows(), Tables(page).tables[1]
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
    lines = [["".join(cell) for cell in line] for line in Tables(page).tables[2]]
    assert lines[1:] == [
        ["Measuring: joint training with probes", "1", "60.0", "3.20"],
        ["Retraining the groups", "9", "120", "6.40"],
        ["Yardstick: joint network", "4", "75.0", "4.00"],
        ["Yardstick: one network per task", "27", "297", "15.84"],
        ["Sum", "41", "552", "29.44"],
    ]
    # (60 + 40) / 18.75
    assert "To measure once and to train each group once takes 5.33 joint trainings." in page


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
    # Means over the seeds: 20.5 + 7.5 + 4.5 of 10.5, and with all yardsticks 20.5 + 10.5 + 3 * 4.5
    # + 7.5.
    assert costs["once"] == "3.10"
    costs = costs_table(make_grouping(ABC, (("a", "b"), ("c",))), rows, by_yardsticks=True)
    assert costs["once"] == "4.95"


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
