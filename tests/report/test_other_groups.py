"""What the report tells of other groups: those for more networks, and those of the noise."""

import functools
import html

import numpy as np
import pytest
from report_cases import FOUR, FOUR_AFFINITY, make_choice, make_stability

from tag_keras.affinity import Affinity
from tag_keras.report import report
from tag_keras.report.tables import describe_stability
from tag_keras.results import Row

ROWS = [Row("joint", FOUR, 0, task, "test", 0.5, {}, 1.0) for task in FOUR]


def write(folder, **changes):
    path = folder / "report.html"
    report.write_report(path, FOUR_AFFINITY, make_choice(), ROWS, **changes)
    return html.unescape(path.read_text("utf-8"))


def test_page_has_what_was_given(tmp_path):
    frontier = [make_choice(0.005), make_choice()]
    page = write(tmp_path, frontier=frontier, stability=make_stability())
    heads = ["What one more network would gain", "How sure the groups are", "Test loss by task"]
    places = [page.index(f">{head}</h") for head in heads]
    assert places == sorted(places)
    assert describe_stability(make_stability(), FOUR_AFFINITY) in page
    assert "Each pair of the chosen groups shares a network in 74 % of the draws or more." in page
    assert not any(head in write(tmp_path) for head in heads[:2])
    assert heads[1] not in write(tmp_path, frontier=frontier)
    assert heads[0] not in write(tmp_path, stability=make_stability())


def test_page_of_groups_that_were_selected_by_anchored_affinities(tmp_path):
    frontier = [make_choice(0.005), make_choice()]
    anchored = Affinity(FOUR, 2 * (np.ones((4, 4)) - np.eye(4)), np.full((4, 4), 0.01))
    page = write(tmp_path, frontier=frontier, stability=make_stability(), anchored=anchored)
    words = " ".join(page.split())
    assert "the number is by how much less loss than in a network of its own the task was" in words
    assert "the mean over the tasks of the sum of the anchored affinities that a task" in words
    assert "<dt>Anchored affinity</dt>" in words and "mean affinity" not in words
    assert "optimal for the anchored affinities." in words
    assert "The losses of the yardsticks are taken as exact." in words
    # In their unit, not in the thousandths of the affinities.
    assert "The expected regret is 0.00027: on average" in words


def test_page_of_groups_that_were_selected_by_affinities(tmp_path):
    page = write(tmp_path, frontier=[make_choice(0.005), make_choice()])
    words = " ".join(page.split())
    assert "number, in units of 10⁻³, is the mean affinity that the task gets from" in words
    assert "the mean over the tasks of the affinity that a task gets from its group; each" in words
    assert "nchored" not in words


def test_what_contradicts_the_grouping_is_an_error(tmp_path):
    other = make_choice(groups=(("a", "b"), ("c", "d<e>$f$")))
    match = r"`stability` should be of the groups of `grouping`. Received: \(\('a', 'b'\), .*'c'"
    with pytest.raises(ValueError, match=match):
        write(tmp_path, stability=make_stability(grouping=other))
    short = make_choice(groups=(("a", "b"),), tasks=("a", "b"))
    match = r"`frontier` should hold groupings of the tasks of `grouping`. Received: tasks="
    match += r"\('a', 'b'\) and \('a', 'b', 'c', 'd<e>\$f\$'\)\."
    with pytest.raises(ValueError, match=match):
        write(tmp_path, frontier=[make_choice(), short])
    other = Affinity(("a", "b"), np.zeros((2, 2)))
    match = r"`anchored` should be of the tasks of `affinity`\. Received: anchored=\('a', 'b'\)"
    with pytest.raises(ValueError, match=match):
        write(tmp_path, anchored=other)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def few_draws(monkeypatch):
    """Twenty draws of the affinities, not 200."""
    stability = functools.partial(report.grouping_stability, num_samples=20)
    monkeypatch.setattr(report, "grouping_stability", stability)


def test_what_a_run_tells_of_other_groups(few_draws):
    generator = np.random.default_rng(0)
    tasks = ("a", "b", "c", "d")
    mean = generator.normal(size=(4, 4))
    known = Affinity(tasks, mean, np.full((4, 4), 0.5))
    chosen = report.other_groups(known, make_choice(tasks=tasks, groups=(tasks,)), 2, "baseline")
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


def test_other_groups_have_the_score_of_the_chosen_ones(few_draws):
    # In one group, a, b and c have .3 + .3, .2 + .2 and .1 + .1 from each other; means are half.
    tasks = ("a", "b", "c")
    affinity = Affinity(tasks, np.tile([0.3, 0.2, 0.1], (3, 1)), np.full((3, 3), 0.01))
    one = make_choice(groups=(tasks,), tasks=tasks)
    for score, expected in {"mean": 0.2, "sum": 0.4}.items():
        others = report.other_groups(affinity, one, 1, "baseline", score)
        assert [best.score for best in others["frontier"]] == [pytest.approx(expected)] * 3
        assert others["stability"].grouping.score == pytest.approx(expected)


def test_nothing_is_told_where_groups_cannot_be_selected():
    unknown = Affinity(["a", "b"], [[0, np.nan], [1, 0]], count=[[1, 0], [1, 1]])
    both = make_choice(tasks=("a", "b"), groups=(("a", "b"),))
    assert report.other_groups(unknown, both, 1, "forbid") == {}
    one = make_choice(tasks=("a",), groups=(("a",),))
    assert report.other_groups(Affinity(["a"], [[1.0]]), one, 1, "forbid") == {}


@pytest.mark.parametrize(("size", "told"), [(13, {"frontier"}), (16, set())])
def test_what_takes_long_is_not_told_of_many_tasks(size, told):
    tasks = tuple(f"t{index}" for index in range(size))
    affinity = Affinity(tasks, np.ones((size, size)), np.ones((size, size)))
    grouping = make_choice(groups=(tasks,), tasks=tasks)
    assert set(report.other_groups(affinity, grouping, 2, "forbid")) == told
