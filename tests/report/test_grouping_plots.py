"""The report on the selection: what a further network gains, and what noise would change."""

import dataclasses
import html
import itertools

import matplotlib.colors
import numpy as np
import pytest

from tag_keras.affinity import Affinity
from tag_keras.report import report
from tag_keras.report.grouping_plots import describe_stability
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping
from tag_keras.selection.stability import GroupingStability

TASKS = ("a", "b", "c", "d<e>$f$")
GROUPS = (("a", "c"), ("b", "d<e>$f$"))
MINUS = "\N{MINUS SIGN}"
# The largest is between 10 and 100 thousandths, so figures are in thousandths.
AFFINITY = Affinity(TASKS, 0.02 * (np.ones((4, 4)) - np.eye(4)), np.full((4, 4), 0.01))


def make_grouping(score=0.01, groups=GROUPS, tasks=TASKS):
    serves = {task: index for index, group in enumerate(groups) for task in group}
    return Grouping(tasks, groups, serves, score, score, True)


def make_stability(**changes):
    share = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0, 0.74], [0.9, 0, 1, 0.3], [0.2, 0.74, 0.3, 1]])
    fields = {"tasks": TASKS, "grouping": make_grouping(), "share": share, "wins": 0.645}
    return GroupingStability(**(fields | {"regret": 2.7e-4, "num_samples": 200} | changes))


def plot_frontier(*scores, grouping=None, first=(TASKS,)):
    frontier = [make_grouping(score, groups=first) for score in scores]
    return report.plot_frontier(frontier, grouping or make_grouping(), AFFINITY).axes[0]


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
    frontier = [make_grouping(score, groups=(TASKS,)) for score in (0.005, 0.01, 0.012, 0.013)]
    for index in (1, 3):
        frontier[index] = dataclasses.replace(frontier[index], upper_bound=0.02, optimal=False)
    axes = report.plot_frontier(frontier, make_grouping(), AFFINITY).axes[0]
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
    axes = plot_frontier(0.01, 0.02, first=GROUPS)
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


def test_stability_stands_in_the_order_of_the_groups():
    axes = report.plot_stability(make_stability(), make_grouping()).axes[0]
    names = ["a", "c", "b", "d<e>$f$"]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == names
    shown = axes.images[1].get_array()
    expected = [[0, 90, 10, 20], [90, 0, 0, 30], [10, 0, 0, 74], [20, 30, 74, 0]]
    np.testing.assert_array_equal(shown.mask, np.eye(4, dtype=bool))
    np.testing.assert_allclose(shown.filled(0), expected)
    assert axes.images[1].get_clim() == (0, 100)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {
        (column, row): str(expected[row][column])
        for row in range(4)
        for column in range(4)
        if row != column
    }


def test_stability_frames_the_pairs_of_the_chosen_groups():
    groups = (("a", "b"), ("b", "c"), ("d<e>$f$",))
    grouping = Grouping(TASKS, groups, {"a": 0, "b": 1, "c": 1, "d<e>$f$": 2}, 0.0, 0.0, True)
    axes = report.plot_stability(make_stability(grouping=grouping), grouping).axes[0]
    centres = {
        (round(frame.get_x() + frame.get_width() / 2), round(frame.get_y() + 0.46))
        for frame in axes.patches
    }
    # b helps a: the two share a network, which does not serve b.
    assert centres == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_stability_of_many_tasks_has_no_numbers():
    tasks = tuple(f"t{index}" for index in range(13))
    grouping = make_grouping(groups=(tasks,), tasks=tasks)
    stability = make_stability(tasks=tasks, grouping=grouping, share=np.ones((13, 13)))
    axes = report.plot_stability(stability, grouping).axes[0]
    assert not axes.texts
    assert len(axes.patches) == 13 * 12


def test_stability_in_words():
    assert describe_stability(make_stability(), AFFINITY) == (
        "The chosen groups win in 129 of 200 draws of the affinities from their standard errors. "
        "The expected regret is 0.27, in units of 10⁻³: on average over the draws, the chosen "
        "groups score by that much less than the best groups for the draw. For the means of "
        "the affinities they score 10."
    )
    worse = make_stability(grouping=make_grouping(-0.0123), regret=0.0)
    words = describe_stability(worse, AFFINITY)
    assert "regret is 0, in units" in words
    assert f"they score {MINUS}12.3." in words


ROWS = [Row("joint", TASKS, 0, task, "test", 0.5, {}, 1.0) for task in TASKS]


def write(folder, **changes):
    path = folder / "report.html"
    report.write_report(path, AFFINITY, make_grouping(), ROWS, **changes)
    return html.unescape(path.read_text("utf-8")), {file.stem for file in folder.glob("*.png")}


def test_page_has_what_was_given(tmp_path):
    frontier = [make_grouping(0.005), make_grouping()]
    page, images = write(tmp_path, frontier=frontier, stability=make_stability())
    assert {"frontier", "stability"} <= images
    heads = ["What one more network would gain", "How sure the groups are", "Test loss by task"]
    places = [page.index(f">{head}</h") for head in heads]
    assert places == sorted(places)
    assert describe_stability(make_stability(), AFFINITY) in page
    # Of an earlier report, they must not stay.
    page, images = write(tmp_path)
    assert not {"frontier", "stability"} & images
    assert not any(head in page for head in heads[:2])
    page, images = write(tmp_path, frontier=frontier)
    assert {"frontier", "stability"} & images == {"frontier"}
    page, images = write(tmp_path, stability=make_stability())
    assert {"frontier", "stability"} & images == {"stability"}
    assert heads[0] not in page


def test_page_of_groups_that_were_selected_by_anchored_affinities(tmp_path):
    frontier = [make_grouping(0.005), make_grouping()]
    anchored = Affinity(TASKS, 2 * (np.ones((4, 4)) - np.eye(4)), np.full((4, 4), 0.01))
    page, images = write(tmp_path, frontier=frontier, stability=make_stability(), anchored=anchored)
    assert {"grouping", "frontier", "stability"} <= images
    words = " ".join(page.split())
    assert "the number is by how much less loss than in a network of its own the task was" in words
    assert "the mean over the tasks of the sum of the anchored affinities that a task" in words
    assert "<dt>Anchored affinity</dt>" in words and "mean affinity" not in words
    assert "optimal for the anchored affinities." in words
    assert "The losses of the yardsticks are taken as exact." in words
    # In their unit, not in the thousandths of the affinities.
    assert "The expected regret is 0.00027: on average" in words
    page, _ = write(tmp_path, frontier=frontier)
    words = " ".join(page.split())
    assert "the number is the mean affinity that the task gets from the other members" in words
    assert "the mean over the tasks of the affinity that a task gets from its group; each" in words
    assert "nchored" not in words


def test_what_contradicts_the_grouping_is_an_error(tmp_path):
    other = make_grouping(groups=(("a", "b"), ("c", "d<e>$f$")))
    match = r"`stability` should be of the groups of `grouping`. Received: \(\('a', 'b'\), .*'c'"
    with pytest.raises(ValueError, match=match):
        write(tmp_path, stability=make_stability(grouping=other))
    short = make_grouping(groups=(("a", "b"),), tasks=("a", "b"))
    match = r"`frontier` should hold groupings of the tasks of `grouping`. Received: tasks="
    match += r"\('a', 'b'\) and \('a', 'b', 'c', 'd<e>\$f\$'\)\."
    with pytest.raises(ValueError, match=match):
        write(tmp_path, frontier=[make_grouping(), short])
    other = Affinity(("a", "b"), np.zeros((2, 2)))
    match = r"`anchored` should be of the tasks of `affinity`\. Received: anchored=\('a', 'b'\)"
    with pytest.raises(ValueError, match=match):
        write(tmp_path, anchored=other)
    assert not list(tmp_path.iterdir())


def test_what_a_run_tells_of_other_groups():
    generator = np.random.default_rng(0)
    tasks = ("a", "b", "c", "d")
    mean = generator.normal(size=(4, 4))
    known = Affinity(tasks, mean, np.full((4, 4), 0.5))
    chosen = report.other_groups(known, make_grouping(tasks=tasks, groups=(tasks,)), 2, "baseline")
    # The groups given are not those that would be chosen.
    assert set(chosen) == {"frontier"}
    frontier = chosen["frontier"]
    assert [len(grouping.groups) <= 1 + place for place, grouping in enumerate(frontier)] == [
        True
    ] * 4
    scores = [grouping.score for grouping in frontier]
    assert scores == sorted(scores)
    found = report.other_groups(known, frontier[1], 2, "baseline")
    assert set(found) == {"frontier", "stability"}
    assert found["stability"].grouping == frontier[1]
    error = np.full((4, 4), 0.5)
    error[1, 2] = np.nan
    assert set(report.other_groups(Affinity(tasks, mean, error), frontier[1], 2, "baseline")) == {
        "frontier"
    }


def test_other_groups_have_the_score_of_the_chosen_ones():
    # In one group, a, b and c have .3 + .3, .2 + .2 and .1 + .1 from each other; means are half.
    tasks = ("a", "b", "c")
    affinity = Affinity(tasks, np.tile([0.3, 0.2, 0.1], (3, 1)), np.full((3, 3), 0.01))
    one = make_grouping(groups=(tasks,), tasks=tasks)
    for score, expected in {"mean": 0.2, "sum": 0.4}.items():
        others = report.other_groups(affinity, one, 1, "baseline", score)
        assert [best.score for best in others["frontier"]] == [pytest.approx(expected)] * 3
        assert others["stability"].grouping.score == pytest.approx(expected)


def test_nothing_is_told_where_groups_cannot_be_selected():
    unknown = Affinity(["a", "b"], [[0, np.nan], [1, 0]], count=[[1, 0], [1, 1]])
    both = make_grouping(tasks=("a", "b"), groups=(("a", "b"),))
    assert report.other_groups(unknown, both, 1, "forbid") == {}
    one = make_grouping(tasks=("a",), groups=(("a",),))
    assert report.other_groups(Affinity(["a"], [[1.0]]), one, 1, "forbid") == {}


@pytest.mark.parametrize(("size", "told"), [(13, {"frontier"}), (16, set())])
def test_what_takes_long_is_not_told_of_many_tasks(size, told):
    tasks = tuple(f"t{index}" for index in range(size))
    affinity = Affinity(tasks, np.ones((size, size)), np.ones((size, size)))
    grouping = make_grouping(groups=(tasks,), tasks=tasks)
    assert set(report.other_groups(affinity, grouping, 2, "forbid")) == told
