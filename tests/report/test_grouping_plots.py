"""The figures of the groups: the groups, what they changed, and what other groups would."""

import dataclasses
import itertools

import matplotlib.colors
import numpy as np
import pytest
from report_cases import (
    ABC,
    ABC_GROUPING,
    FOUR,
    FOUR_AFFINITY,
    FOUR_GROUPS,
    MINUS,
    make_affinity,
    make_choice,
    make_grouping,
)

from tag_keras.affinity import Affinity
from tag_keras.report import grouping_plots


def test_grouping_diagram_has_a_line_for_each_member():
    grouping = make_grouping(**ABC_GROUPING)
    mean = [[0.9, 0.01, 0.0], [0.02, 0.9, 0.03], [0.0, 0.04, 0.9]]
    axes = grouping_plots.plot_grouping(grouping, Affinity(ABC, mean))
    ticks = dict(
        zip([t.get_text() for t in axes.get_yticklabels()], axes.get_yticks(), strict=True)
    )
    networks = {
        text.get_text().split("\n")[0]: text.get_position()[1]
        for text in axes.texts
        if text.get_text().startswith("group_")
    }
    lines = {(*map(float, line.get_ydata()), line.get_linestyle()) for line in axes.lines}
    assert lines == {
        (ticks["a"], networks["group_0"], "-"),
        (ticks["b"], networks["group_0"], "-"),
        (ticks["b"], networks["group_1"], "--"),
        (ticks["c"], networks["group_1"], "-"),
    }
    words = [text.get_text() for text in axes.texts]
    # a gets b -> a, b gets a -> b, c gets b -> c, in thousandths.
    assert [word for word in words if word[0] in "+" + MINUS] == ["+20", "+10", "+30"]
    assert "group_0\nserves 2" in words
    assert "group_1\nserves 1, helped by 1" in words


def test_grouping_diagram_says_whether_its_numbers_are_means_or_sums():
    # a gets .2 from b and .4 from c; b -.1 and .2; c .3 and .3.
    mean = [[0.9, -0.1, 0.3], [0.2, 0.9, 0.3], [0.4, 0.2, 0.9]]
    grouping = make_grouping(ABC, (ABC,))
    numbers = {"mean": ["+300", "+50", "+300"], "sum": ["+600", "+100", "+600"]}
    words = {"mean": "mean affinity", "sum": "sum of the affinities"}
    for score, expected in numbers.items():
        figure = grouping_plots.plot_grouping(grouping, Affinity(ABC, mean), score).figure
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert [text for text in texts if text[0] in "+" + MINUS] == expected
        assert figure.legends[0].get_texts()[0].get_text() == (
            f"served by ({words[score]} from its group, in units of 10⁻³)"
        )
    with pytest.raises(ValueError, match='`score` should be "mean" or "sum"'):
        grouping_plots.plot_grouping(grouping, Affinity(ABC, mean), "total")


def test_grouping_diagram_of_lone_tasks_and_idle_networks():
    grouping = make_grouping(ABC, (("a",), ("b", "c"), ("a", "c")), {"a": 0, "b": 1, "c": 1})
    axes = grouping_plots.plot_grouping(grouping, make_affinity(ABC))
    words = [text.get_text() for text in axes.texts]
    assert "alone" in words
    assert "group_2\nserves 0, helped by 2" in words


def test_comparison_figure():
    changes = {
        "single": np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [0.05, 0.05, 0.05]]),
        "grouped": np.array([[-0.1, -0.2, -0.3], [0.0, 0.1, 0.2], [-0.01, 0.0, 0.01]]),
    }
    figure = grouping_plots.plot_comparison(["x", "_y$z$"], changes).figure
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "_y$z$", "total"]
    single, grouped = (container.lines[0] for container in axes.containers)
    np.testing.assert_allclose(single.get_xdata(), [20, 0, 5])
    np.testing.assert_allclose(grouped.get_xdata(), [-20, 10, 0], atol=1e-12)
    # The two lie on either side of the name.
    heights = np.array([single.get_ydata(), grouped.get_ydata()])
    np.testing.assert_allclose(heights.mean(axis=0), axes.get_yticks())
    # Two standard errors of x: 2 * 10 % / sqrt(3) = 11.547 %.
    low, high = axes.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((-31.547, -8.453), abs=1e-3)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["joint network", "one network per task", "groups"]
    colours = [matplotlib.colors.to_hex(line.get_color()) for line in (single, grouped)]
    assert colours == ["#d55e00", "#009e73"]


def test_comparison_figure_of_one_seed_has_no_bars():
    figure = grouping_plots.plot_comparison(["x"], {"grouped": np.array([[0.1], [0.2]])}).figure
    assert not figure.axes[0].containers[0].has_xerr
    # A kind on its own is level with the names.
    dots = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(dots.get_ydata(), figure.axes[0].get_yticks())


def test_comparison_figure_without_a_change_that_is_known():
    figure = grouping_plots.plot_comparison(["x"], {"grouped": np.full((2, 1), np.nan)}).figure
    figure.draw_without_rendering()
    assert np.isnan(figure.axes[0].containers[0].lines[0].get_xdata()).all()


def plot_frontier(*scores, grouping=None, first=(FOUR,)):
    frontier = [make_choice(score, groups=first) for score in scores]
    return grouping_plots.plot_frontier(frontier, grouping or make_choice(), FOUR_AFFINITY)


def test_frontier_has_a_point_for_each_number_of_networks():
    axes = plot_frontier(-0.005, 0.01, 0.0124, 0.0124)
    line, chosen = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), [-5, 10, 12.4, 12.4])
    assert axes.get_ylabel() == "mean score of the tasks,\nin units of 10⁻³"
    # Two networks are chosen, with a score of 10 thousandths.
    np.testing.assert_allclose([chosen.get_xdata(), chosen.get_ydata()], [[2], [10]])
    assert matplotlib.colors.to_hex(chosen.get_color()) == "#009e73"
    words = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert words == ["best groups; the number is the gain of that network", "chosen groups"]


def test_frontier_says_which_groups_are_not_proven_to_be_the_best():
    frontier = [make_choice(score, groups=(FOUR,)) for score in (0.005, 0.01, 0.012, 0.013)]
    for index in (1, 3):
        frontier[index] = dataclasses.replace(frontier[index], upper_bound=0.02, optimal=False)
    axes = grouping_plots.plot_frontier(frontier, make_choice(), FOUR_AFFINITY)
    hollow = axes.lines[-1]
    np.testing.assert_allclose([hollow.get_xdata(), hollow.get_ydata()], [[2, 4], [10, 13]])
    assert hollow.get_markerfacecolor() == "white" and hollow.get_linestyle() == "None"
    words = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert words[2:] == ["best groups found, not proven"]


def test_frontier_says_what_each_network_gains():
    texts = plot_frontier(-0.005, 0.01, 0.0124, 0.0124).texts
    assert [text.get_text() for text in texts] == ["+15", "+2", "+0"]
    np.testing.assert_allclose([text.xy for text in texts], [[2, 10], [3, 12.4], [4, 12.4]])
    # Two digits of the largest gain.
    texts = plot_frontier(0.01, 0.010042, 0.010049).texts
    assert [text.get_text() for text in texts] == ["+0.042", "+0.007"]


def test_frontier_begins_where_the_groups_are_enough():
    axes = plot_frontier(0.01, 0.02, first=FOUR_GROUPS)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [2, 3])


def test_frontier_of_one_network_and_of_many():
    axes = plot_frontier(0.01)
    assert (len(axes.lines[0].get_xdata()), len(axes.texts)) == (1, 0)
    assert [text.get_text() for text in plot_frontier(0.01, 0.01).texts] == ["+0"]
    assert not plot_frontier(*np.linspace(0.001, 0.01, 17)).texts


def test_names_of_the_frontier_do_not_overlap():
    figure = plot_frontier(*np.cumsum(0.001 / np.arange(1, 17))).figure
    figure.savefig("/dev/null", format="png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 15
    for first, second in itertools.pairwise(boxes):
        assert first.x1 < second.x0
