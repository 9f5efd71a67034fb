"""The page as a whole: its structure, its style, its size, and names that could break it."""

import html
import json
import re
import shutil
import subprocess
import time

import numpy as np
import pytest
from report_cases import Tables, make_affinity

import tag_keras
from tag_keras.report import pages, report
from tag_keras.results import Row

NASTY = (
    "<script>alert('1')</script>",
    '$x^2$ & "a"/b\\c',
    "双下巴 مهمة",
    "{{ title }}{% raw %}",
    "a" * 90,
)


def make_run(tasks, groups, seeds=(0, 1, 2), splits=("validation", "test")):
    """Groups, and rows of a run in which networks of three tasks are the best."""
    generator = np.random.default_rng(0)
    grouping = tag_keras.Grouping.from_groups(tasks, groups)
    networks = {"joint": tasks, **{f"single_{task}": (task,) for task in tasks}}
    networks |= {f"group_{index}": group for index, group in enumerate(groups)}
    return grouping, [
        Row(name, group, seed, task, split, 1 + abs(len(group) - 3) / 10 + noise, {}, 2.0)
        for name, group in networks.items()
        for seed in seeds
        for task in group
        for split, noise in zip(splits, generator.normal(0, 0.01, len(splits)), strict=True)
    ]


def write(path, grouping, rows, **options):
    report.write_report(path, make_affinity(grouping.tasks), grouping, rows, **options)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A page of names that could break it, with all of its sections."""
    grouping, rows = make_run(NASTY, (NASTY[:3], NASTY[3:]))
    others = report.other_groups(make_affinity(NASTY), grouping, 2, "forbid")
    return write(
        tmp_path_factory.mktemp("nasty") / "report.html",
        grouping,
        rows,
        title=NASTY[0],
        frontier=others["frontier"],
        serving=tag_keras.guard_groups(grouping, rows),
        estimate=tag_keras.estimate_group_losses(rows),
        settings={"seeds": [0, 1, 2], "name": NASTY[1]},
        environments=[{"date": NASTY[0], "device": "CPU"}],
    )


def test_names_are_escaped_and_stay_whole(nasty):
    found = Tables(nasty)
    names = [line[0] for line in found.by_section["Each task alone, with all, and in its group"][0]]
    assert [" ".join(name) for name in names[1:]] == [" ".join(name.split()) for name in NASTY]
    assert nasty.count("<script") == 1 and "alert('1')" not in nasty
    for name in NASTY:
        assert html.escape(name, quote=True).replace("&#x27;", "&#39;") in nasty
    for _, label, _ in found.drawings:
        assert label


def test_every_table_has_headings_and_lines_of_one_length(nasty):
    found = Tables(nasty)
    assert set(found.by_section) >= {"Affinity between tasks", "Networks", "Settings and versions"}
    for table in found.tables:
        assert len({len(line) for line in table}) == 1
    assert nasty.count("<th ") == nasty.count('<th scope="')
    settings, versions = found.by_section["Settings and versions"]
    assert settings[1:] == [[["seeds"], ["0, 1, 2"]], [["name"], [NASTY[1]]]]
    assert versions == [[["date"], ["device"]], [[NASTY[0]], ["CPU"]]]


def test_behind_every_drawing_stands_a_table(nasty):
    assert {kind for kind, _, _ in Tables(nasty).drawings} == {"strip", "diagram", "panel"}
    for words in ("strips", "diagram", "lines"):
        assert f"<details><summary>The numbers of the {words}</summary>" in nasty


def test_numbers_of_networks_can_be_sorted(nasty):
    table = re.search(r'<table class="sortable">.*?</table>', nasty, re.DOTALL)[0]
    head = re.findall(r'<th scope="col"( class="text")?>', table)
    # Name, kind and tasks are text; all others have their number behind them.
    assert [bool(text) for text in head] == [True] * 3 + [False] * 6
    lines = table.split("<tr")[2:]
    values = [re.findall(r'data-value="([^"]*)"', line) for line in lines]
    assert {len(line) for line in values} == {6}
    joint = next(line for line in lines if ">joint<" in line)
    # The joint network is not compared with itself.
    assert re.findall(r'data-value="([^"]*)"', joint)[3] == ""
    assert all(float(text) == float(text) for line in values for text in line if text)


CLICKS = """
const table = document.querySelector("table.sortable"), heads = [...table.tHead.rows[0].cells];
const cells = (column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
const click = (column) => heads[column].querySelector("button").click();
const found = {};
click(6);
found.rising = [heads[6].getAttribute("aria-sort"), ...cells(6)];
click(6);
found.falling = [heads[6].getAttribute("aria-sort"), ...cells(6)];
click(2);
found.names = [heads[6].getAttribute("aria-sort"), ...cells(2)];
const input = document.querySelector(".filter input");
input.value = "ONE task";
input.dispatchEvent(new Event("input"));
const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden);
found.shown = shown.map((row) => row.cells[1].textContent);
found.status = document.querySelector(".filter [role=status]").textContent;
document.body.textContent = JSON.stringify(found);
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_the_script_sorts_numbers_and_filters(nasty, tmp_path):
    path = tmp_path / "clicked.html"
    path.write_text(nasty.replace("</body>", f"<script>{CLICKS}</script></body>"), "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, check=True)
    body = re.search(r"<body>(.*)</body>", shown.stdout, re.DOTALL)[1]
    found = json.loads(html.unescape(body))

    def changes(name, sort):
        assert found[name][0] == sort
        # The joint network, which is not compared with itself, stands last.
        assert found[name][-1] == "\N{EN DASH}"
        texts = [text.removesuffix(" %").replace("\N{MINUS SIGN}", "-") for text in found[name]]
        return [float(text) for text in texts[1:-1]]

    rising, falling = changes("rising", "ascending"), changes("falling", "descending")
    assert rising == sorted(rising) and falling == sorted(rising, reverse=True)
    assert len(rising) == 7 and rising[0] < -10 and rising[-1] > -5
    assert found["names"][0] is None and len(found["names"]) == 9
    assert [text.partition(",")[0] for text in found["shown"]] == ["one task"] * 5
    assert found["status"] == "5 of 8"


def test_a_page_without_settings_says_so(tmp_path):
    grouping, rows = make_run(("a", "b"), (("a",), ("b",)))
    page = write(tmp_path / "report.html", grouping, rows)
    assert "The settings of the run are not recorded." in page
    assert "Versions, date and device are not recorded." in page


def test_a_run_that_is_half_done_says_so_first(tmp_path):
    grouping, rows = make_run(("a", "b", "c"), (("a", "b"), ("c",)), seeds=(0,))
    left = [row for row in rows if row.role != "group"]
    page = write(tmp_path / "report.html", grouping, left, settings={"seeds": [0]})
    first = Tables(page).texts[""]
    words = "Not finished: 4 of 5 trainings are there. Missing: group_0."
    assert words in first and "What to serve is not decided." in first
    assert "Not finished" not in write(tmp_path / "report.html", grouping, rows)


def test_results_without_test_losses(tmp_path):
    grouping, rows = make_run(("a", "b", "c"), (("a", "b"), ("c",)), splits=("validation",))
    serving = tag_keras.guard_groups(grouping, rows)
    page = write(tmp_path / "report.html", grouping, rows, serving=serving)
    found = Tables(page)
    assert "Mean validation losses" in page
    assert "No kind of network has a complete set of test losses." in page
    # What serves has no test loss, and no network has.
    assert [line[-1] for line in found.by_section["What is served"][-1][1:]] == [
        ["\N{EN DASH}"]
    ] * 4
    assert "nan" not in page.lower().replace("lang", "")


def test_one_seed(tmp_path):
    grouping, rows = make_run(("a", "b", "c"), (("a", "b"), ("c",)), seeds=(4,))
    serving = tag_keras.guard_groups(grouping, rows)
    page = write(tmp_path / "report.html", grouping, rows, serving=serving)
    first = Tables(page).texts[""]
    assert "Train 3 seeds or more of each network before you deploy." in first
    assert "probability" not in first and "Gain" not in first
    assert "Test losses of one seed: how much of this is noise is not known." in page


@pytest.mark.parametrize("changes", [{"anchored": "abd"}, {"estimate": "abd"}])
def test_other_tasks_are_refused(tmp_path, changes):
    grouping, rows = make_run(("a", "b", "c"), (("a", "b"), ("c",)))
    _, others = make_run(("a", "b", "d"), (("a", "b", "d"),))
    (name,) = changes
    other = make_affinity(("a", "b", "d"))
    if name == "estimate":
        other = tag_keras.estimate_group_losses(others)
    with pytest.raises(ValueError, match=f"`{name}` should be of the tasks of `affinity`"):
        write(tmp_path / "report.html", grouping, rows, **{name: other})
    assert not list(tmp_path.iterdir())


def test_forty_tasks_take_little_room_and_time(tmp_path):
    tasks = tuple(f"Attribute_of_a_long_name_{index}" for index in range(40))
    grouping, rows = make_run(tasks, tuple(tasks[index::5] for index in range(5)))
    begin = time.process_time()
    page = write(tmp_path / "report.html", grouping, rows)
    assert time.process_time() - begin < 5
    assert len(page.encode()) < 1_500_000
    (affinities,) = Tables(page).by_section["Affinity between tasks"]
    assert len(affinities) == 41 and {len(line) for line in affinities} == {41}


# The style.


def style(dark):
    """The colours of the page by name, and those of the steps of heat maps."""
    page = pages.render("page.css.jinja")
    light, _, rest = page.partition("@media screen and (prefers-color-scheme: dark) {")
    colours = dict(re.findall(r"--(\w+): (#\w+)", light))
    parts = rest.split("@media screen and (prefers-color-scheme: dark) {")
    if dark:
        colours |= dict(re.findall(r"--(\w+): (#\w+)", rest.partition("}\n  }")[0]))
    pattern = r"\.h(\d+) \{ background: (#\w+); color: (#\w+)"
    return colours, re.findall(pattern, parts[1] if dark else parts[0])


def contrast(first, second):
    """Contrast of two colours by WCAG 2.1."""

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = np.array([int(digits[place : place + 2], 16) for place in (0, 2, 4)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_lines_can_be_seen_on_their_grounds(dark):
    colours, steps = style(dark)
    assert (contrast(colours["page"], "#000") < 2) == dark
    for ground in ("page", "panel", "best", "own"):
        assert contrast(colours["ink"], colours[ground]) > 4.5, ground
    for ground in ("page", "panel", "best"):
        assert contrast(colours["soft"], colours[ground]) > 4.5, ground
    lines = ("joint", "single", "grouped", "served", "line0", "line1", "line2", "line3", "focus")
    for name in (*lines, "rule"):
        assert contrast(colours[name], colours["page"]) > 3, name
    assert [int(step) for step, _, _ in steps] == [*range(21)]
    # The value 0 has the ground of the page, more or less.
    assert (contrast(steps[10][1], "#000") < 2) == dark
    for step, ground, text in steps:
        assert contrast(ground, text) > 4.5, step


def test_the_style_has_its_media():
    page = pages.render("page.css.jinja")
    for media in ("print", "(max-width: 40rem)", "screen and (prefers-color-scheme: dark)"):
        assert f"@media {media}" in page
    assert ":focus-visible" in page
    assert page.count("{") == page.count("}")
