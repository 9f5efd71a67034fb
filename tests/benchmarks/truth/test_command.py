"""The command that judges rules by tables: what it prints and writes, and what it refuses."""

import concurrent.futures
import importlib
import sys

import pytest
from group_tables import losses_of, table_of

from benchmarks.truth import __main__ as truth
from benchmarks.truth.judging import ORACLE
from benchmarks.truth.rules import RULES, SLOW_RULES

# Total test losses: 4 together and 3 apart; 2 and 3; 5 and 4.
TESTS = {
    "one-w8-n100": {"a": (1,), "b": (2,), "ab": (1, 3)},
    "two-w8-nall": {"a": (1,), "b": (2,), "ab": (0.5, 1.5)},
    "one-w8-n1000": {"a": (2,), "b": (2,), "ab": (3, 2)},
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """The tests' process has threads, which a fork would not take along."""

    def pool(workers):
        return concurrent.futures.ThreadPoolExecutor(1)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", pool)


@pytest.fixture
def folder(tmp_path):
    """Tables whose validation losses differ a little between four seeds, and test losses do not."""
    for name, losses in TESTS.items():
        test = losses_of(losses)
        validation = [test * (1 + 0.01 * seed) for seed in (1, 0, 3, 2)]
        about = {"problem": name.split("-")[0]}
        table_of(*validation, test=[test] * 4, about=about).save(tmp_path / f"{name}.npz")
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["truth", *map(str, arguments)])
    truth.main()


def cells(text):
    """The tables of a text in Markdown, each with its lines of cells."""
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    found = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        for lines in tables
    ]
    return [[lines[0], *lines[2:]] for lines in found]


def test_three_tables_are_printed_and_written(folder, monkeypatch, capsys):
    output = folder / "results" / "truth.md"
    run(monkeypatch, f"--tables={folder}", "--splits=1", f"--output={output}")
    text = capsys.readouterr().out
    assert output.read_text(encoding="utf-8") == text.rstrip("\n")
    rules, tables, told = cells(text)
    by_rule = {line[0]: line[1:] for line in rules[1:]}
    assert [*by_rule] == [*RULES, ORACLE]
    assert by_rule["joint"][::3] == ["0.0 ± 0.0", "1.0"]
    # Apart, the first problem gains 1/4 and 1/5, on average 22.5 %, and the second one loses half:
    # on average -13.75 %. The standard error of two problems is half their difference, 36.25 %.
    # The yardsticks are chosen right: over them, there is half to lose in the second problem.
    assert by_rule["single"] == ["-13.8 ± 36.2", "-25.0 ± 25.0", "-50.0", "2.0"]
    assert by_rule["joint or single"] == ["11.2 ± 11.2", "0.0 ± 0.0", "0.0", "1.5"]
    # Both see the best network of each task.
    assert by_rule["all groups, raw"] == by_rule[ORACLE]
    assert tables[0] == ["table", *truth.SHOWN, ORACLE]
    assert [line[:2] for line in tables[1:]] == [
        ["one-w8-n100", "25.0"],
        ["one-w8-n1000", "20.0"],
        ["two-w8-nall", "-50.0"],
    ]
    assert told[0] == ["probability told", "choices", "with a gain in test loss"]
    # Three tables and one split; beside the joint network, two tasks apart, or one of them.
    assert 3 <= sum(int(line[1]) for line in told[1:]) <= 6
    assert text.rstrip().splitlines()[-1].startswith("90 % intervals cover in ")


def test_a_rule_of_ones_own_has_a_line(folder, monkeypatch, capsys, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    code = "def alone(measured, number):\n    return [0, 1][: len(measured.tasks)]\n"
    (mine / "mine_of_truth.py").write_text(code)
    monkeypatch.syspath_prepend(mine)
    monkeypatch.setattr(truth, "RULES", {name: RULES[name] for name in truth.SHOWN})
    run(monkeypatch, f"--tables={folder}", "--splits=1", "--rule=mine_of_truth:alone")
    rules = cells(capsys.readouterr().out)[0]
    by_rule = {line[0]: line[1:] for line in rules[1:]}
    assert by_rule["mine_of_truth:alone"] == by_rule["single"]
    with pytest.raises(SystemExit, match=r"--rule should be module:function.*\(.*no attribute"):
        run(monkeypatch, f"--tables={folder}", "--rule=mine_of_truth:nothing")


def test_slow_rules_are_judged_when_asked_for(folder, monkeypatch, capsys):
    monkeypatch.setattr(truth, "RULES", {name: RULES[name] for name in (*truth.SHOWN, "joint")})
    monkeypatch.setattr(truth, "SLOW_RULES", dict.fromkeys(SLOW_RULES, RULES["joint"]))
    run(monkeypatch, f"--tables={folder}", "--splits=1", "--slow", "--num_groups=1")
    rules = cells(capsys.readouterr().out)[0]
    assert [line[0] for line in rules[1:]] == [*truth.RULES, *SLOW_RULES, ORACLE]
    # One network is the joint one.
    served = {line[0]: line[-1] for line in rules[1:]}
    assert served["all groups, raw"] == served[ORACLE] == "1.0"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--rule=mine"],
            r"--rule should be module:function, such as mine:my_rule. Received: mine",
        ),
        (["--rule=:f"], r"--rule should be module:function.*Received: :f"),
        (["--rule=no_such_module:f"], r"Received: no_such_module:f \(No module named"),
        (["--rule=math:pi"], r"--rule should be module:function.*rule='math:pi'"),
        (["--num_groups=0"], r"--num_groups should be at least 1. Received: num_groups=0."),
        (["--splits=0"], r"--splits should be at least 1. Received: splits=0."),
    ],
)
def test_a_wrong_option_ends_with_one_sentence(given, message, folder, monkeypatch):
    with pytest.raises(SystemExit, match=f"^benchmarks.truth: [^\n]*{message}[^\n]*$"):
        run(monkeypatch, f"--tables={folder}", *given)


@pytest.mark.parametrize("name", ["empty", "not_there"])
def test_a_folder_without_tables_is_named(name, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    message = rf"^benchmarks.truth: --tables should be a folder of tables.*{name}'\.$"
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, f"--tables={tmp_path / name}")


def test_a_damaged_table_is_named(folder, monkeypatch):
    path = folder / "two-w8-nall.npz"
    path.write_bytes(path.read_bytes()[:1000])
    # Before any work.
    monkeypatch.setattr(truth, "judge_file", None)
    with pytest.raises(
        SystemExit, match=rf"^benchmarks.truth: {path} is not a whole table [^\n]*$"
    ):
        run(monkeypatch, f"--tables={folder}", "--output", folder / "no.md")
    assert not (folder / "no.md").exists()


def test_a_table_of_one_problem_has_no_error():
    assert truth.with_error([0.123]) == "12.3"
    # The standard deviation is 2 %, over the root of 4.
    assert truth.with_error([0.1, 0.1, 0.1, 0.14]) == "11.0 ± 1.0"


def test_figures_say_what_to_install_without_matplotlib(folder, monkeypatch):
    for package, name in (("benchmarks.truth", "figures"), ("tag_keras.report", "plots")):
        monkeypatch.delitem(sys.modules, f"{package}.{name}", raising=False)
        monkeypatch.delattr(importlib.import_module(package), name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.lines", None)
    # Before any work.
    monkeypatch.setattr(truth, "judge_file", None)
    with pytest.raises(
        SystemExit, match=r"^benchmarks.truth: Figures need matplotlib\. Install it"
    ):
        run(monkeypatch, f"--tables={folder}", f"--figures={folder / 'figures'}")
