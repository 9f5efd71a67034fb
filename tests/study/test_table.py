"""The table of a study on results whose totals were worked out by hand, and its page."""

import dataclasses

import numpy as np
import pytest

from tag_keras.results import Row, save_results
from tag_keras.selection.grouping import Grouping
from tag_keras.study.methods import METHODS
from tag_keras.study.networks import Choice, plain_network, save_choice
from tag_keras.study.table import found_choices, load_study_rows, study_cells, study_lines

TASKS = ("a", "b", "c")


def make_rows(network, tasks, seconds, losses):
    """Rows of a network, its losses on test by seed, and one more on validation."""
    return [
        Row(network, tuple(tasks), seed, task, split, loss + (split == "validation"), {}, seconds)
        for seed, values in losses.items()
        for task, loss in zip(tasks, values, strict=True)
        for split in ("validation", "test")
    ]


ROWS = [
    *make_rows("joint", "abc", 10.0, {0: (1, 2, 3), 1: (2, 2, 4)}),
    *make_rows("single_a", "a", 4.0, {0: (0.5,), 1: (1.5,)}),
    *make_rows("single_b", "b", 5.0, {0: (2,), 1: (2,)}),
    *make_rows("single_c", "c", 6.0, {0: (3,), 1: (3,)}),
    *make_rows("group_0-1", "ab", 8.0, {0: (1, 1), 1: (1, 1)}),
    *make_rows("group_0-2", "ac", 7.0, {0: (9, 9)}),
    *make_rows("group_1-2", "bc", 9.0, {0: (9, 9)}),
    *make_rows("tag_joint", "abc", 30.0, {0: (1, 2, 3)}),
]
PAIR_AND_SINGLE = Choice(
    (plain_network(("a", "b"), TASKS), plain_network(("c",), TASKS)), {"a": 0, "b": 0, "c": 1}
)
SINGLES = METHODS["stl"].choice(TASKS)
JOINT = METHODS["mtl"].choice(TASKS)


def lines_by_name(choices, **kwargs):
    return {(one.method, one.budget): one for one in study_lines(ROWS, choices, TASKS, **kwargs)}


def test_totals_and_times_by_hand():
    choices = {
        "stl": {3: [SINGLES]},
        "mtl": {1: [JOINT]},
        "tag": {2: [PAIR_AND_SINGLE]},
        "hoa": {2: [PAIR_AND_SINGLE]},
        "random": {2: [PAIR_AND_SINGLE, SINGLES]},
    }
    lines = lines_by_name(choices)
    np.testing.assert_allclose(lines["stl", 3].totals, [5.5, 6.5])
    np.testing.assert_allclose(lines["mtl", 1].totals, [6, 8])
    # The pair has 1 and 1, the single task 3.
    np.testing.assert_allclose(lines["tag", 2].totals, [5, 5])
    np.testing.assert_allclose(lines["random", 2].totals, [5, 5, 5.5, 6.5])
    assert (lines["stl", 3].choosing, lines["stl", 3].seconds) == (0, 4 + 5 + 6)
    assert (lines["mtl", 1].choosing, lines["mtl", 1].seconds) == (0, 10)
    # The training that measures, and the networks that serve.
    assert (lines["tag", 2].choosing, lines["tag", 2].seconds) == (30, 30 + 8 + 6)
    # The networks that serve are among the singles and pairs.
    assert lines["hoa", 2].choosing == lines["hoa", 2].seconds == 4 + 5 + 6 + 8 + 7 + 9
    assert [lines[name].num_seeds for name in (("tag", 2), ("random", 2))] == [2, 2]
    assert (lines["random", 2].choosing, lines["random", 2].seconds) == (0, (8 + 6 + 15) / 2)


def test_cells():
    choices = {"mtl": {1: [JOINT]}, "tag": {2: [PAIR_AND_SINGLE], 3: [SINGLES]}}
    lines = study_lines(ROWS, choices, TASKS)
    # All trainings of tag take 44 and 45 s, on average 44.5; the joint one takes 10.
    assert study_cells(lines, {"stl": {3: 5.25, 9: 1}}) == [
        ["method", "1", "2", "3", "seeds", "choosing", "in all"],
        ["mtl", "7.000 ± 1.414", "", "", "2", "0.00", "0.22"],
        ["tag", "", "5.000 ± 0.000", "6.000 ± 0.707", "2", "0.67", "1.00"],
        ["stl, published", "", "", "5.25", "", "", ""],
    ]
    without = study_cells(study_lines(ROWS, {"mtl": {1: [JOINT]}}, TASKS))
    assert without[1] == ["mtl", "7.000 ± 1.414", "2", "", ""]


def test_a_choice_is_found_when_its_networks_are_trained(tmp_path):
    grouping = Grouping(TASKS, (("a", "b"), ("c",)), {"a": 0, "b": 0, "c": 1}, 0.0, 0.0, True)
    other = dataclasses.replace(grouping, groups=(("a", "b", "c"),), serves=dict.fromkeys("abc", 0))
    for name in ("tag/groups_2", "tag/groups_10", "random/groups_2_0", "random/groups_2_1"):
        save_choice(tmp_path / f"{name}.json", grouping)
    # Networks of half the size, which nobody has trained.
    save_choice(tmp_path / "hoa/groups_1.5.json", grouping, [False, True])
    save_choice(tmp_path / "esa/groups_1.5.json", other)
    # Nor is what somebody has put beside them.
    for name in ("tag/groups_2 (copy)", "tag/groups_2_old", "tag/groups_2_1", "random/groups_2"):
        (tmp_path / f"{name}.json").write_text("{")
    assert found_choices(tmp_path, ROWS, TASKS) == {
        "stl": {3: [SINGLES]},
        "mtl": {1: [JOINT]},
        "tag": {2: [PAIR_AND_SINGLE], 10: [PAIR_AND_SINGLE]},
        "esa": {1.5: [JOINT]},
        "random": {2: [PAIR_AND_SINGLE, PAIR_AND_SINGLE]},
    }


def test_networks_that_were_drawn_and_serve_nothing_take_their_time():
    drawn = Choice(
        (*PAIR_AND_SINGLE.networks, plain_network(("a", "c"), TASKS)), PAIR_AND_SINGLE.serves
    )
    (line,) = study_lines(ROWS, {"random": {3: [drawn]}}, TASKS)
    assert line.seconds == 8 + 6 + 7


def test_rows_of_all_methods(tmp_path):
    save_results(tmp_path / "results.json", ROWS[:2])
    save_results(tmp_path / "tag" / "results.json", ROWS[2:4])
    save_results(tmp_path / "worker_worker_1" / "results.json", ROWS[4:6])
    assert load_study_rows(tmp_path) == ROWS[:4]
    (tmp_path / "tag" / "results.json").write_text("[{}]")
    wanted = r"row 0 has missing .* Once .*tag/results\.json is deleted, the same sweep evaluates"
    with pytest.raises(ValueError, match=wanted):
        load_study_rows(tmp_path)


def write(folder, **kwargs):
    from tag_keras.study.report import write_study_report

    options = {"title": "Three <tasks>", "error": "total test loss", "errors": list, **kwargs}
    return write_study_report(folder, TASKS, **options)


def test_the_report(tmp_path):
    save_results(tmp_path / "results.json", ROWS)
    published = {"optimal": {1: 4.5}, "of other budgets": {7: 1.0}}
    text = write(tmp_path, published=published, source="a paper")
    assert "of other budgets" not in text
    assert "| optimal, published | 4.5           |" in text
    markdown = (tmp_path / "report.md").read_text()
    assert text in markdown
    assert markdown.endswith("Published: a paper.\n")
    assert "Published" not in write(tmp_path, published={"optimal": {7: 1.0}}, source="a paper")
    page = (tmp_path / "report.html").read_text()
    assert "<title>Three &lt;tasks&gt;</title>" in page
    assert '<th scope="row">mtl</th><td>7.000 ± 1.414</td><td>\N{EN DASH}</td>' in page
    assert "one network per task (single-task learning)" in page
    assert 'aria-label="total test loss by the number of networks: least by ' in page
    # Deviations of one seed are not known; what is summed up is what `errors` gives.
    one = [row for row in ROWS if row.seed == 0]
    save_results(tmp_path / "results.json", one)
    assert "| mtl    | 6.000 |" in write(tmp_path)
    tenfold = [dataclasses.replace(row, loss=10 * row.loss) for row in one]
    assert "| mtl    | 60.00 |" in write(tmp_path, errors=lambda rows: tenfold)


def test_nothing_to_report(tmp_path):
    with pytest.raises(ValueError, match=r"holds no method whose networks for \['a', 'b', 'c'\]"):
        write(tmp_path)
