"""All benchmarks by one command: what is measured, what is kept, and the table."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import all as everything
from benchmarks.all import Benchmark

# The calendar of a month stands for a benchmark.
CALENDAR = Benchmark("calendar", "the days of January", ("2000", "1"))
BROKEN = Benchmark("benchmarks.nothing", "nothing")
KEPT = Path(__file__).resolve().parents[2] / "docs" / "measured.md"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def run(*benchmarks, **options):
        monkeypatch.setattr(everything, "BENCHMARKS", benchmarks)
        given = [f"--{name}={value}" for name, value in options.items()]
        everything.main([f"--output_dir={tmp_path}", *given])
        return capsys.readouterr().out

    return run


def test_what_is_measured_is_kept_and_the_same_command_goes_on(run, tmp_path):
    assert run(CALENDAR).startswith("calendar: measuring ...\ncalendar: done in 0.0 min.\n")
    kept = (tmp_path / "calendar.json").read_bytes()
    assert run(CALENDAR).startswith("calendar: measured before.\nTable: ")
    assert (tmp_path / "calendar.json").read_bytes() == kept
    # A run that was stopped left nothing: only what is missing is measured.
    other = Benchmark("platform", "the machine")
    assert run(CALENDAR, other).startswith("calendar: measured before.\nplatform: measuring ...\n")


def test_the_table_says_what_was_printed_how_long_it_took_and_on_what(run, tmp_path):
    table = tmp_path / "here" / "table.md"
    run(CALENDAR, table=table)
    text = table.read_text("utf-8")
    assert text.startswith("<!-- Written by `python -m benchmarks.all`. -->\n\nMeasured with tag_k")
    for name, version in everything.environment().items():
        assert (version if name == "machine" else f"{name} {version}") in text
    assert re.search(r"\| calendar  +\| the days of January \| 20[-\d]+ \| 0\.\d", text)
    assert re.search(r"\| together +\| +\| +\| 0\.\d", text)
    assert "\n### calendar\n\n`python -m calendar 2000 1`\n\n```text\n    January 2000\n" in text


def test_tables_in_markdown_stand_as_they_are_printed(run, tmp_path):
    run(CALENDAR)
    kept = json.loads((tmp_path / "calendar.json").read_text())
    for printed in ("| a |\n| - |\n| 1 |\n", "Text.\n\n| a |\n| - |\n| 1 |\n"):
        text = everything.as_markdown([(CALENDAR, {**kept, "printed": printed})])
        assert text.endswith(f"`python -m calendar 2000 1`\n\n{printed}")
    assert everything.as_markdown([(CALENDAR, None)]).endswith("\n\nNot measured.\n")


@pytest.mark.parametrize("change", ["options", "version", "code"])
def test_other_settings_are_noticed_and_measured_anew(run, monkeypatch, tmp_path, change):
    run(CALENDAR)
    benchmark, words = CALENDAR, "numpy was 0.0 and is "
    path = tmp_path / "calendar.json"
    kept = json.loads(path.read_text())
    if change == "options":
        benchmark = Benchmark("calendar", "the days of May", ("2000", "5"))
        words = "command was python -m calendar 2000 1 and is python -m calendar 2000 5"
    elif change == "version":
        kept["settings"]["numpy"] = "0.0"
        path.write_text(json.dumps(kept))
    else:
        kept["settings"]["code"] = words = "code was "
        path.write_text(json.dumps(kept))
    printed = run(benchmark)
    assert printed.startswith(f"calendar: measuring again, as {words}")
    assert run(benchmark).startswith("calendar: measured before.")


def test_one_that_fails_is_named_and_the_others_go_on(run, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"benchmarks\.all: nothing failed\."):
        run(BROKEN, CALENDAR)
    printed = capsys.readouterr().out
    log = tmp_path / "nothing.log"
    assert re.search(rf"nothing FAILED: .*No module named benchmarks\.nothing .* in {log}", printed)
    assert "calendar: done" in printed and not (tmp_path / "nothing.json").exists()
    assert "### nothing\n\n`python -m benchmarks.nothing`\n\nNot measured.\n" in (
        (tmp_path / "benchmarks.md").read_text("utf-8")
    )


def test_some_can_be_measured_alone(run):
    other = Benchmark("platform", "the machine")
    assert "calendar" not in run(CALENDAR, other, only="platform")


def test_one_run_at_a_time_and_damaged_results_are_told(run, tmp_path):
    busy = pytest.raises(SystemExit, match=r"benchmarks\.all: Another run measures in ")
    with everything.files.locked(tmp_path / ".lock", "", wait=False), busy:
        run(CALENDAR)
    (tmp_path / "calendar.json").write_text("{")
    with pytest.raises(SystemExit, match=r"calendar\.json is not a JSON file .* Delete it"):
        run(CALENDAR)


def test_the_table_of_the_documentation_is_of_these_commands():
    text = KEPT.read_text("utf-8")
    for benchmark in everything.BENCHMARKS:
        assert f"\n### {benchmark.name}\n\n`{benchmark.command}`\n" in text


# By page of docs/api and name in a row of its table, the methods whose costs stand there.
COSTS = {
    "measure": {
        "LookaheadAffinity": ["lookahead probe"],
        "FirstOrderAffinity": ["first-order probe"],
        "CosineAffinity": ["cosine probe"],
        "FeatureAffinity": ["feature probe"],
    },
    "gradient_methods": {
        "PCGrad": ["pcgrad"],
        "UPGrad": ["upgrad"],
        "SelectiveTaskGroupUpdates": ["selective, tasks alone", "selective, 3 groups"],
    },
    "loss_weighting": {
        "UncertaintyWeighting": ["uw"],
        "DynamicWeightAverage": ["dwa"],
        "GradNorm": ["gradnorm"],
        "IMTLL": ["imtl_l"],
        "GLS": ["gls"],
        "DBMTL": ["db_mtl"],
        "STCH": ["stch"],
        "FAMO": ["famo"],
        "RLW": ["rlw"],
    },
    "networks": {
        "mtan_encoder": ["mtan"],
        "task_routing_encoder": ["task routing"],
        "adashare_encoder": ["adashare, weights", "adashare, policy"],
        "mmoe_encoder": ["mmoe"],
        "cgc_encoder": ["cgc", "ple"],
        "cross_stitch_encoder": ["cross-stitch"],
    },
}


@pytest.mark.parametrize("page", COSTS)
def test_costs_in_the_reference_are_those_of_the_table(page):
    medians, title = {}, ""
    for line in KEPT.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        title = "" if len(cells) < 6 else title or cells[1]
        # The first such table of probes is that of the paper's network.
        if title == "9 tasks" and len(cells) == 6:
            medians.setdefault(cells[1], cells[2].split(" (")[0])
    text = (KEPT.parent / "api" / f"{page}.md").read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    for name, methods in COSTS[page].items():
        (row,) = [row for row in rows if f"tag_keras.{name}`" in row[1]]
        costs = re.findall(r"\d+\.\d", row[3])
        assert costs == [f"{float(medians[method]):.1f}" for method in methods], name
