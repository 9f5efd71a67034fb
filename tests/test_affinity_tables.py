"""Affinities for people and their tools: as text, as HTML and as a data frame."""

import sys

import numpy as np
import pytest
from report_cases import ABC, Tables, make_affinity

from tag_keras.affinity import Affinity

NAN = float("nan")
MEAN = [[0.91, 0.0421, -0.013], [0.011, 0.8, 0.00123], [-0.02, 0.005, 0.7]]
NASTY = ("<script>alert(1)</script>", "$x^2$/温度", "a & b")


def coloured(page):
    """Background by tooltip, of the coloured cells."""
    parts = page.split("<td style=")[1:]
    return {
        part.split('title="')[1].split('"')[0]: part.split("background:")[1][:7]
        for part in parts
        if "background" in part
    }


def test_text_is_a_table_in_the_order_of_the_tasks():
    assert str(Affinity(["b", "a", "c"], MEAN)) == (
        "Inter-task affinities of 3 tasks.\n"
        "| source \\ target | b       | a      | c       |\n"
        "| --------------- | ------- | ------ | ------- |\n"
        "| b               | 0.9100  | 0.0421 | -0.0130 |\n"
        "| a               | 0.0110  | 0.8000 | 0.0012  |\n"
        "| c               | -0.0200 | 0.0050 | 0.7000  |"
    )


def test_text_has_standard_errors_where_they_are_known():
    error = np.full((2, 2), 0.021)
    error[1, 0] = NAN
    count = [[3, 0], [3, 3]]
    text = str(Affinity(["a", "b"], [[1.5, NAN], [-2.0, 0.5]], error, count))
    assert text.splitlines()[0] == "Inter-task affinities of 2 tasks, mean ± standard error."
    rows = [line.split("|")[2:4] for line in text.splitlines()[3:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["1.50 ± 0.02", "not measured"],
        ["-2.00", "0.50 ± 0.02"],
    ]


@pytest.mark.parametrize(
    ("scale", "shown"),
    [(1e-9, "4.21e-11"), (0.01, "0.000421"), (1e3, "42.1"), (1e10, "4.21e+08")],
)
def test_text_rounds_to_three_digits_of_any_size(scale, shown):
    # The largest between tasks is 0.0421 of the scale; the diagonal does not count.
    assert f" {shown} " in str(Affinity(ABC, np.array(MEAN) * scale))


def test_one_outlier_takes_no_digits_from_the_others():
    mean = np.array(MEAN)
    mean[2, 0] = -5e12
    text = str(Affinity(ABC, mean))
    assert "-5.00e+12" in text and "0.0421" in text


def test_text_cuts_long_names_unless_they_would_be_the_same():
    long, other = "a_name_of_20_letters", "another_of_21_letters"
    head = str(Affinity([long, other], np.eye(2))).splitlines()[1]
    assert "| a_name_of_20_le… | another_of_21_l… |" in head
    alike = [f"{long}_{index}" for index in range(2)]
    assert all(name in str(Affinity(alike, np.eye(2))).splitlines()[1] for name in alike)


def test_text_keeps_its_columns_with_wide_letters_and_line_ends():
    lines = str(Affinity(["温度", "a\nb", "e\u0301"], np.eye(3))).splitlines()[1:]
    # Each Chinese letter takes two columns of a terminal, and an accent on its own none.
    assert [len(line) for line in lines] == [len(lines[1]) + n for n in (-1, 0, -2, 0, 1)]
    assert lines[3].startswith("| a b ")


def test_text_of_many_tasks_names_the_strongest_pairs():
    tasks = [f"t{index}" for index in range(13)]
    # The diagonal is larger than all.
    mean = np.eye(13) * 9
    for place, value in enumerate((0.5, 0.9, -0.25, 0.125, 0.2, 0.3, 0.1), start=1):
        mean[0, place] = value
    assert str(Affinity(tasks, mean)).splitlines() == [
        "Inter-task affinities of 13 tasks.",
        "Strongest helpers (6 pairs in all):",
        "  t0 -> t2: 0.900",
        "  t0 -> t1: 0.500",
        "  t0 -> t6: 0.300",
        "  t0 -> t5: 0.200",
        "  t0 -> t4: 0.125",
        "Strongest harmers (1 pair in all):",
        "  t0 -> t3: -0.250",
    ]
    assert len(str(make_affinity([f"t{index}" for index in range(40)]))) < 1000
    assert len(str(Affinity(tasks[:12], np.eye(12))).splitlines()) == 15


def test_html_is_a_heat_map_without_the_diagonal():
    page = Affinity(ABC, MEAN)._repr_html_()
    (table,) = Tables(page).tables
    assert table[0] == [["source \\ target"], ["a"], ["b"], ["c"]]
    assert table[1] == [["a"], ["0.9100"], ["0.0421"], ["-0.0130"]]
    colours = coloured(page)
    assert len(colours) == 6
    assert colours["a → b: 0.0421"] == "#2166ac"
    # Red: less green than red, and as much blue.
    assert colours["c → a: -0.0200"].startswith("#d")


def test_html_colours_are_not_washed_out_by_one_outlier():
    mean = np.array(MEAN)
    mean[2, 0] = -5e12
    colours = coloured(Affinity(ABC, mean)._repr_html_())
    assert colours["a → b: 0.0421"] == "#2166ac"
    assert colours["c → a: -5.00e+12"] == "#b2182b"


def test_html_of_many_tasks_shows_numbers_at_the_pointer_only():
    tasks = [f"t{index}" for index in range(13)]
    mean = np.ones((13, 13))
    mean[0, 1] = NAN
    page = Affinity(tasks, mean, count=np.isfinite(mean))._repr_html_()
    assert Tables(page).tables[0][1] == [["t0"]] + [[]] * 13
    assert "t0 → t1: not measured" in page and "t0 → t1: not measured" not in coloured(page)
    assert "vertical-rl" in page


def test_html_escapes_names():
    page = Affinity(NASTY, np.eye(3))._repr_html_()
    assert "<script" not in page and "mathjax_ignore" in page
    assert [row[0] for row in Tables(page).tables[0][1:]] == [[name] for name in NASTY]


def test_frame_has_a_row_for_each_pair():
    pytest.importorskip("pandas")
    error = np.arange(9.0).reshape(3, 3)
    affinity = Affinity(ABC, MEAN, error, np.full((3, 3), 7))
    frame = affinity.to_frame()
    assert [*frame.columns] == ["source", "target", "mean", "standard_error", "count"]
    assert frame.shape == (9, 5) and frame["count"].dtype == np.int64
    assert [*frame.iloc[1]] == ["a", "b", 0.0421, 1.0, 7]
    # The arrays come back, in the order of the tasks.
    for name in ("mean", "standard_error", "count"):
        table = frame.pivot(index="source", columns="target", values=name)
        np.testing.assert_array_equal(table, getattr(affinity, name))


def test_frame_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'needs pandas\. .* pip install "tag_keras\[tools\]"'):
        Affinity(ABC, MEAN).to_frame()
