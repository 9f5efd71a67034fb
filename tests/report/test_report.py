"""The page of the report: its files, its sections, what it leaves out, and what it refuses."""

import dataclasses
import importlib
import re
import sys

import guard_cases
import pytest
from guard_cases import GROUPING
from report_cases import (
    ABC,
    ABC_GROUPING,
    TASKS,
    Tables,
    make_affinity,
    make_grouping,
    rows_with_totals,
)

from tag_keras.affinity import Affinity
from tag_keras.comparison.guard import guard_groups
from tag_keras.report import report
from tag_keras.results import Row


def test_files(folder):
    assert [path.name for path in folder.iterdir()] == ["report.html"]


def test_page_needs_no_other_file(page):
    found = Tables(page)
    assert not found.resources and len({*found.ids}) == len(found.ids)
    assert not re.search(r"https?://|<link|<img|url\(|@import", page)
    # The one that sorts tables.
    assert page.count("<script") == 1


def test_page_escapes_names(page):
    assert "a<b>" not in page
    for task in TASKS:
        assert task.replace("<", "&lt;").replace(">", "&gt;") in page


def test_sections_stand_in_order(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Each task alone, with all, and in its group",
        "The groups that affinities selected",
        "Test loss by task",
        "Affinity between tasks",
        "Affinity over epochs",
        "Networks",
        "Cost",
        "Settings and versions",
        "Words",
    ]
    assert page.index("What to serve is not decided.") < page.index("<h2>")
    assert page.count("<dt>") <= 6
    assert "Left out, because not every kind of network has them: seeds 7." in page


def write_small(folder, affinity=None, **totals):
    grouping = make_grouping(**ABC_GROUPING)
    path = folder / "report.html"
    report.write_report(path, affinity or make_affinity(ABC), grouping, rows_with_totals(**totals))
    return path.read_text("utf-8")


def test_page_without_other_networks(tmp_path):
    page = write_small(tmp_path, make_affinity(ABC, epochs=0), joint=[1.0])
    assert Tables(page).by_section["Test loss by task"][0][0] == [["Task"], ["joint network"]]
    assert "There is no seed with all test losses of: one network per task." in page
    assert "There is no seed with all test losses of: groups." in page
    assert "The affinities have no history over epochs." in page
    assert "joint trainings" not in page


def test_page_without_single_networks(tmp_path):
    page = write_small(tmp_path, joint=[1.0, 1.1], grouped=[0.9, 1.2])
    assert Tables(page).by_section["Test loss by task"][0][0] == [
        ["Task"],
        ["joint network"],
        ["groups"],
    ]
    assert "test losses of: one network per task" in page
    assert "test losses of: groups" not in page
    assert "two standard errors" not in page


def test_page_without_joint_network_and_with_a_loss_of_zero(tmp_path):
    page = write_small(tmp_path, single=[0.0], grouped=[0.0])
    assert Tables(page).by_section["Test loss by task"][0][-1] == [["Total"], ["0.000"], ["0.000"]]


def test_a_joint_loss_of_zero_has_no_relative_change(tmp_path):
    page = write_small(tmp_path, joint=[0.0], grouped=[0.5])
    assert Tables(page).by_section["Test loss by task"][0][-1] == [["Total"], ["0.000"], ["0.500"]]


def test_incomplete_seeds_are_left_out(tmp_path):
    rows = rows_with_totals(joint=[1.0, 2.0, 3.0], grouped=[1.0, 2.0, 4.0])
    rows = [row for row in rows if (row.network, row.seed) != ("group_1", 1)]
    path = tmp_path / "report.html"
    report.write_report(path, make_affinity(ABC), make_grouping(**ABC_GROUPING), rows)
    page = path.read_text("utf-8")
    # Seeds 0 and 2: joint (1 + 3) / 2, groups (1 + 4) / 2, deviations sqrt(2) and sqrt(4.5).
    assert Tables(page).by_section["Test loss by task"][0][-1] == [
        ["Total"],
        ["2.00", "± 1.41"],
        ["2.50", "± 2.12", "+25.0 %"],
    ]
    assert "Left out, because not every kind of network has them: seeds 1." in page


def test_title_and_single_task(tmp_path):
    path = tmp_path / "page.html"
    rows = [Row("joint", ("a",), 0, "a", "test", 0.5, {}, 1.0)]
    grouping = make_grouping(("a",), (("a",),))
    report.write_report(path, Affinity(["a"], [[0.2]]), grouping, rows, title="<mine>")
    assert "<h1>&lt;mine&gt;</h1>" in path.read_text("utf-8")


# What is served.


def write_served(folder, rows, serving=None):
    serving = serving or guard_groups(GROUPING, rows)
    affinity = make_affinity(GROUPING.tasks)
    report.write_report(folder / "report.html", affinity, GROUPING, rows, serving=serving)
    return (folder / "report.html").read_text("utf-8")


def both_splits(**levels):
    rows = guard_cases.make_rows({**guard_cases.LEVELS, **levels})
    return rows + [dataclasses.replace(row, split="test", loss=row.loss + 1) for row in rows]


def test_page_says_what_is_served(tmp_path):
    rows = both_splits(single_c={"c": 0.3})
    page = write_served(tmp_path, rows)
    text = " ".join(re.sub("<[^>]*>", "", page).split())
    assert (
        "Grouping pays. Deploy the 2 networks, as one model. Gain over one joint network: " in text
    )
    assert "<li>a, b</li>\n  <li>c</li>" in page
    found = Tables(page)
    options, served = found.by_section["What is served"]
    losses = found.by_section["Test loss by task"][0]
    assert [cell for (cell,) in options[0]] == [
        "Networks",
        "Gain over the joint network",
        "Probability",
        "Of a gain over fewer",
        "Groups",
    ]
    assert [line[-1] for line in options[1:]] == [["a, b; c"], ["one network per task"]]
    assert [line[0] for line in served[1:]] == [
        ["what is served"],
        ["the groups as selected"],
        ["the joint network"],
        ["one network per task"],
    ]
    # What is served is none of the other kinds, and has a column of its own.
    assert losses[0][1:] == [
        ["joint network"],
        ["one network per task"],
        ["groups"],
        ["what is served"],
    ]
    assert "The test data took no part." in text
    assert re.findall(r"<h2>(.*?)</h2>", page)[:2] == [
        "What is served",
        "Each task alone, with all, and in its group",
    ]


def test_page_where_the_joint_network_is_served(tmp_path):
    page = write_served(tmp_path, both_splits(joint={"a": 0.3, "b": 0.2, "c": 0.4}))
    text = " ".join(re.sub("<[^>]*>", "", page).split())
    assert "No evidence that grouping pays: one joint network. Deploy the joint network." in text
    assert "The joint network is served." in text
    losses = Tables(page).by_section["Test loss by task"][0]
    assert losses[0][1:] == [["joint network"], ["one network per task"], ["groups"]]
    assert "What is served" not in write_small(tmp_path, joint=[1.0])


def test_page_of_a_guard_that_looked_at_the_test_data(tmp_path):
    rows = both_splits()
    serving = guard_groups(GROUPING, rows, split="test")
    assert "took no part" not in write_served(tmp_path, rows, serving)


def test_what_is_served_comes_from_the_same_networks(tmp_path):
    rows = both_splits(single_c={"c": 0.3})
    serving = guard_groups(GROUPING, rows)
    assert "single_c" in dict(serving.networks)
    rows = [row for row in rows if row.network != "single_c"]
    with pytest.raises(ValueError, match="`serving` should be of networks in `rows`"):
        write_served(tmp_path, rows, serving)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_anchored", [False, True])
@pytest.mark.parametrize("expected", [0.1, -0.1])
def test_page_explains_negative_numbers_at_the_groups(tmp_path, expected, is_anchored):
    grouping = make_grouping(("a", "b"), (("a", "b"),))
    affinity = Affinity(["a", "b"], [[0.0, 0.2], [expected, 0.0]])
    rows = [Row("joint", ("a", "b"), 0, task, "test", 0.5, {}, 1.0) for task in ("a", "b")]
    anchored = {"anchored": affinity} if is_anchored else {}
    path = tmp_path / "report.html"
    report.write_report(path, affinity, grouping, rows, **anchored)
    why = "was expected to have more loss than alone" if is_anchored else "members hurt the task"
    page = " ".join(path.read_text("utf-8").split())
    assert (why in page) == (expected < 0)
    assert ("a task is served where it fares best among them." in page) == (expected < 0)


# Errors, all before anything is written.


def check_error(folder, match, affinity=None, grouping=None, rows=None):
    affinity = affinity or make_affinity(ABC)
    grouping = grouping or make_grouping(**ABC_GROUPING)
    rows = rows_with_totals(joint=[1.0]) if rows is None else rows
    with pytest.raises(ValueError, match=match):
        report.write_report(folder / "report.html", affinity, grouping, rows)
    assert not list(folder.iterdir())


def test_no_rows(tmp_path):
    check_error(tmp_path, r"at least one result. Received: rows=\[\]", rows=[])


def test_tasks_of_grouping_and_affinity_disagree(tmp_path):
    check_error(
        tmp_path,
        r"`affinity` and `grouping` should have the same tasks. Only one of them has: \['c', 'd'\]",
        affinity=make_affinity(["a", "b", "d"]),
    )


def test_joint_network_of_other_tasks(tmp_path):
    rows = [Row("joint", ("a", "b", "x"), 4, "a", "test", 1.0, {}, 1.0)]
    match = r"tasks of the network 'joint', seed 4 differ by \['c', 'x'\]. Delete its results"
    check_error(tmp_path, match, rows=rows)


def test_group_of_another_grouping(tmp_path):
    rows = [Row("group_1", ("a", "c"), 0, "a", "test", 1.0, {}, 1.0)]
    check_error(tmp_path, r"'group_1', seed 0 differ by \['a', 'b'\]", rows=rows)


@pytest.mark.parametrize("network", ["group_2", "single_x"])
def test_unknown_network(tmp_path, network):
    rows = [Row(network, ("a",), 0, "a", "test", 1.0, {}, 1.0)]
    match = f"networks for the groups and tasks of `grouping`. Received: the network '{network}'"
    check_error(tmp_path, match, rows=rows)


def test_loss_that_is_not_finite(tmp_path):
    match = "finite losses. Received: inf for 'a' of the network 'joint', seed 0"
    check_error(tmp_path, match, rows=rows_with_totals(joint=[float("inf")]))


def test_no_seed_in_common(tmp_path):
    rows = rows_with_totals(joint=[1.0, 1.0], grouped=[1.0])
    rows = [row for row in rows if (row.network, row.seed) != ("joint", 0)]
    match = r"seed with the test losses of every kind .* \{'joint': \{1\}, 'grouped': \{0\}\}"
    check_error(tmp_path, match, rows=rows)


@pytest.mark.parametrize(
    ("missing", "module"),
    [("matplotlib", "tag_keras.report.plots"), ("jinja2", "tag_keras.report.pages")],
)
def test_missing_package(monkeypatch, missing, module):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=r'pip install "tag_keras\[experiments\]"'):
        importlib.import_module(module)
