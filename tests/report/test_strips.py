"""The strips of the tasks: each loss and interval against a computation of its own."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from guard_cases import GROUPING, LEVELS, TASKS, make_rows

import tag_keras
from tag_keras.comparison.guard import guard_groups
from tag_keras.report.strips import strips

# Served: a and b from group_0, c from its own network.
ROWS = make_rows({**LEVELS, "single_c": {"c": 0.3}})
TESTED = [dataclasses.replace(row, split="test", loss=row.loss + 1) for row in ROWS]


def line_of(found, task):
    (line,) = [line for line in found.lines if line.task == task]
    return line


def loss_of(rows, network, task):
    return [row.loss for row in rows if (row.network, row.task) == (network, task)]


def numbers(cell):
    """Value, low and high."""
    value, _, rest = cell.partition(" (")
    return [float(value), *map(float, rest.rstrip(")").split(" to "))]


def test_estimated_losses_have_the_intervals_of_the_posterior():
    estimate = tag_keras.estimate_group_losses(ROWS)
    found = strips(GROUPING, ROWS, guard_groups(GROUPING, ROWS), estimate)
    assert [line.task for line in found.lines] == [*TASKS]
    assert found.note.startswith("Estimated validation losses") and "90 %" in found.note
    assert found.kinds == {"single", "joint", "grouped", "served"}
    groups = {"single": ("c",), "joint": TASKS, "grouped": ("b", "c"), "served": ("c",)}
    cells = line_of(found, "c").cells
    assert list(cells) == ["single", "joint", "grouped", "served"]
    for kind, group in groups.items():
        row = estimate.groups.index(group)
        mean, error = estimate.mean[row, 2], estimate.standard_error[row, 2]
        half = scipy.stats.norm.ppf(0.95) * error
        expected = [mean, mean - half, mean + half]
        np.testing.assert_allclose(numbers(cells[kind]), expected, atol=half / 10)


def test_measured_losses_have_the_intervals_of_student():
    found = strips(GROUPING, ROWS + TESTED)
    assert found.note.startswith("Mean test losses") and "over 3 seeds" in found.note
    assert [line.task for line in found.lines] == [*TASKS, "Total"]
    assert found.kinds == {"single", "joint", "grouped"}
    losses = np.array(loss_of(TESTED, "joint", "b"))
    low, high = scipy.stats.t.interval(0.9, 2, losses.mean(), losses.std(ddof=1) / 3**0.5)
    cell = line_of(found, "b").cells["joint"]
    expected = [losses.mean(), low, high]
    np.testing.assert_allclose(numbers(cell), expected, atol=(high - low) / 20)
    total = sum(np.mean(loss_of(TESTED, "joint", task)) for task in TASKS)
    assert numbers(line_of(found, "Total").cells["joint"])[0] == pytest.approx(total, abs=0.01)


def test_a_strip_says_its_result():
    rows = make_rows({**LEVELS, "single_c": {"c": 0.3}}, noise=0.0)
    found = strips(GROUPING, rows, guard_groups(GROUPING, rows))
    # Without test losses, those of the split that decided.
    assert found.note.startswith("Mean validation losses")
    line = line_of(found, "c")
    # 0.3 of 1.1.
    assert (line.loss, line.change) == ("0.3", "\N{MINUS SIGN}72.7 %")
    assert (
        'aria-label="c: what is served 0.3, 72.7 % below the joint network, one network per task '
        '0.3, joint network 1.1, groups 0.8"'
    ) in line.drawing
    # a is served by group_0, too, under the name of what is served.
    assert line_of(found, "a").loss == "0.6"
    # The sum of .6, .4 and .3 of .9, .8 and 1.1.
    total = line_of(found, "Total")
    assert (total.loss, total.change) == ("1.3", "\N{MINUS SIGN}53.6 %")


def test_before_it_is_decided_what_serves_each_task_has_the_loss_of_its_group():
    found = strips(GROUPING, make_rows(noise=0.0))
    assert [line.loss for line in found.lines] == ["0.6", "0.4", "0.8", "1.8"]
    assert all("groups" in line.drawing for line in found.lines)


def test_what_is_served_may_be_a_yardstick():
    rows = make_rows({**LEVELS, "joint": {"a": 0.3, "b": 0.2, "c": 0.4}}, noise=0.1)
    found = strips(GROUPING, rows, guard_groups(GROUPING, rows))
    assert "served" not in found.kinds
    assert {line.change for line in found.lines} == {""}
    assert line_of(found, "a").drawing.count("a: joint network 0.3") == 1


def test_one_seed_has_no_interval():
    found = strips(GROUPING, make_rows(seeds=(0,)))
    assert found.note.startswith("Validation losses of one seed: how much of this is noise")
    assert not any("to" in cell for line in found.lines for cell in line.cells.values())
    assert not any("<line" in line.drawing for line in found.lines)
    # Nor has an estimate of three losses or fewer.
    estimate = tag_keras.estimate_group_losses(make_rows(seeds=(0,)))
    assert math.isinf(estimate.standard_error[0, 0])
    found = strips(GROUPING, make_rows(seeds=(0,)), estimate=estimate)
    assert "<line" not in line_of(found, "a").drawing and "to" not in str(found.lines[0].cells)


def test_without_any_complete_kind_there_are_no_strips():
    assert strips(GROUPING, [row for row in ROWS if row.network == "single_a"]) is None
