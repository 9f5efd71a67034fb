"""The drawings: what stands where, and that they say what they show."""

import re

import numpy as np
import pytest
from report_cases import ABC_GROUPING, Tables, make_grouping

from tag_keras.report.drawings import Mark, Series, chart, groups_diagram, panel, strip

NASTY = "<script>alert('1')</script> & \"$x^2$\" 温度"


def numbers(pattern, drawing):
    return [tuple(map(float, found)) for found in re.findall(pattern, drawing)]


def test_a_strip_has_its_marks_on_one_scale():
    marks = [Mark("single", 4.0, 3.0, 5.0), Mark("joint", 2.0), Mark("grouped", 1.0, 0.0, 2.0)]
    drawing = strip(marks, NASTY)
    # From 0 at 3 % to 5 at 97 %: a mark on each line of 14 pixels.
    places = numbers(r'<svg x="([\d.]+)%" y="(\d+)"', drawing)
    assert places == [(78.2, 7), (40.6, 21), (21.8, 35)]
    bars = numbers(r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="(\d+)"', drawing)
    assert bars == [(59.4, 97, 7), (3, 40.6, 35)]
    assert re.findall(r'<g class="(\w+)"', drawing) == ["single", "joint", "grouped"]
    assert Tables(drawing).drawings == [("strip", NASTY, [])]


def test_a_strip_of_equal_values_and_one_with_given_ends():
    equal = strip([Mark("joint", 2.0), Mark("single", 2.0, 2.0, 2.0)], "")
    assert re.findall(r'<svg x="([\d.]+)%"', equal) == ["50.0", "50.0"]
    given = strip([Mark("grouped", 2.0)], "", (0.0, 8.0))
    assert re.findall(r'<svg x="([\d.]+)%"', given) == ["26.5"]


def test_the_diagram_has_a_line_for_each_member():
    drawing = groups_diagram(make_grouping(**ABC_GROUPING), ["+1", "+2", "alone"], NASTY)
    # a and b at 13 and 39, c at 65; group_0 between a and b, group_1, which b helps, at c.
    lines = re.findall(r'class="(\w+)" d="M226 ([\d.]+)L470 ([\d.]+)"', drawing)
    assert [(kind, float(start), float(end)) for kind, start, end in lines] == [
        ("serves", 13, 26),
        ("serves", 39, 26),
        ("helps", 39, 65),
        ("serves", 65, 65),
    ]
    ((_, label, texts),) = Tables(drawing).drawings
    assert label == NASTY
    assert texts[:2] == ["+1", "+2"] and "alone" in texts
    assert "group_0: serves 2" in texts and "group_1: serves 1, helped by 1" in texts


def test_the_diagram_of_idle_networks_and_long_names():
    tasks = (NASTY, "名" * 20, "c")
    groups = (tasks[:1], tasks[1:], (tasks[0], "c"))
    grouping = make_grouping(tasks, groups, {tasks[0]: 0, tasks[1]: 1, "c": 1})
    drawing = groups_diagram(grouping, ["1", "2", "3"], "")
    texts = Tables(drawing).drawings[0][2]
    assert "group_2: serves 0, helped by 2" in texts
    # Cut to 26 columns, of which a Chinese letter takes two; whole in its title.
    assert NASTY in texts and f"{NASTY[:25]}…" in texts and f"{'名' * 12}…" in texts
    assert "<script" not in drawing and float(re.search(r'0 0 700 (\d+)"', drawing)[1]) > 100


def test_a_panel_has_its_zero_and_its_gaps():
    lines = [np.array([0.0, 50.0, 100.0]), np.array([-100.0, np.nan, 0.0])]
    drawing = panel(lines, "label", ("epoch 1", "3"))
    first, second = re.findall(r'<path class="line\d" d="([^"]*)"', drawing)
    # 100 is at 8, 0 at 50 and -100 at 92.
    assert first == "M34 50.0h0L114 29.0L194 8.0"
    assert second == "M34 92.0h0M194 50.0h0"
    assert 'class="zero" d="M34 50.0H196"' in drawing
    texts = Tables(drawing).drawings[0][2]
    assert texts == ["0", "100", "\N{MINUS SIGN}100", "epoch 1", "3"]


def test_beside_the_zero_of_a_panel_there_is_no_other_number():
    texts = Tables(panel([np.array([-100.0, 5.0])], "label", ("1", "2"))).drawings[0][2]
    assert texts == ["0", "\N{MINUS SIGN}100", "1", "2"]


def test_a_panel_of_one_step_and_of_zeros():
    drawing = panel([np.zeros(1)], "label", ("epoch 1", ""))
    assert re.findall(r'<path class="line\d" d="([^"]*)"', drawing) == ["M114 92.0h0"]


def test_a_chart_has_its_points_and_bars():
    x, y = np.array([2.0, 3.0]), np.array([10.0, 20.0])
    series = [
        Series("one", x, y, np.array([0.0, 5.0]), True, False, 0),
        Series("other", x, y - 10, np.zeros(2), False, True, 5),
    ]
    drawing = chart(series, [2, 3], NASTY, "across", "up")
    places = numbers(r'<svg x="([\d.]+)" y="([\d.]+)"', drawing)
    # 1.8 units on 540 pixels; from -1.25 to 26.25 on 290.
    across, down = 540 / 1.8, 290 / 27.5
    expected = [
        (70 + across * (one - 1.6), 10 + down * (26.25 - up)) for one, up in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(places[:2], expected, atol=0.06)
    np.testing.assert_allclose(
        np.array(places[2:])[:, 1] - np.array(places[:2])[:, 1], 10 * down, atol=0.11
    )
    # One line, and a bar of the second point.
    assert drawing.count("line0 thin") == 2 and drawing.count("line1 thin") == 0
    assert drawing.count("line1 hollow") == 2
    (bar,) = numbers(r'd="M[\d.]+ ([\d.]+)V([\d.]+)"', drawing)
    assert bar[1] - bar[0] == pytest.approx(10 * down, abs=0.11)
    ((kind, label, texts),) = Tables(drawing).drawings
    assert (kind, label) == ("chart", NASTY)
    found = [text for text in texts if text not in ("across", "up")]
    assert found == ["0", "5", "10", "15", "20", "25", "2", "3"]


@pytest.mark.parametrize("size", [1e-9, 1.0, 3.7, 1e6])
def test_a_chart_has_round_ticks(size):
    one = Series("one", np.arange(3), size * np.arange(3), np.zeros(3), True, False, 0)
    texts = Tables(chart([one], [0, 1, 2], "", "", "")).drawings[0][2]
    ticks = [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts[:-3]]
    assert 3 <= len(ticks) <= 8
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert f"{steps[0]:.0e}"[0] in "125"


def test_a_chart_of_equal_points():
    one = Series("one", np.ones(1), np.zeros(1), np.zeros(1), True, False, 3)
    assert "nan" not in chart([one], [1], "", "", "")
