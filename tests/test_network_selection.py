"""The command `python -m tag_keras.network_selection`, and the words in which it prints."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tag_keras
from tag_keras import network_selection
from tag_keras.network_selection import certificate, reason, summary

ROOT = Path(__file__).resolve().parents[1]


def run(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


def save_example(folder):
    mean = [[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]]
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    affinity.save(folder / "affinity.json")
    return affinity


def test_script(tmp_path):
    affinity = save_example(tmp_path)
    flags = ["--scores=affinity.json", "--num_groups=3", "--output=new/groups.json"]
    done = run("-m", "tag_keras.network_selection", *flags, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "network 0: a, b; serves a 0.2, b 0.3",
        "network 1: a, c; serves c -0.1; helped by a",
        "mean score of 3 tasks: 0.133333, optimal",
        "1 network would score 0, more than 2 networks no more",
    ]
    loaded = tag_keras.Grouping.load(tmp_path / "new" / "groups.json")
    assert loaded == tag_keras.select_groups(affinity, 3)


def test_script_ends_with_a_status_and_without_a_traceback(tmp_path):
    done = run("-m", "tag_keras.network_selection", "--num_groups=few", folder=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("network_selection: flag --num_groups=few:")


def call_main(folder, capsys, **changed):
    flags = {"scores": folder / "affinity.json", "num_groups": 2, "output": folder / "groups.json"}
    flags |= changed
    options = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    status = network_selection.main(["network_selection.py", *options])
    return status, capsys.readouterr()


def test_script_allows_tasks_alone(tmp_path, capsys):
    save_example(tmp_path)
    status, printed = call_main(tmp_path, capsys, singletons="baseline")
    assert status == 0 and "network 1: c; serves c 0\n" in printed.out


def test_script_prints_what_it_writes(tmp_path, capsys):
    save_example(tmp_path)
    status, printed = call_main(tmp_path, capsys, format="json", partition="true")
    assert (status, printed.err) == (0, "")
    assert printed.out == (tmp_path / "groups.json").read_text()
    assert json.loads(printed.out)["groups"] == [["a", "b", "c"]]


def test_script_writes_no_file_unless_told(tmp_path, capsys):
    save_example(tmp_path)
    status, printed = call_main(tmp_path, capsys, output=None)
    assert status == 0 and printed.out.startswith("network 0: a, b;")
    assert [path.name for path in tmp_path.iterdir()] == ["affinity.json"]


def save_table(folder):
    # Half the size: a 0.3, b 0.4; then a alone, b alone, both.
    (folder / "table.txt").write_text("a\tb\n0.3\t0.4\n0.2\t\n\t0.25\n0.35\t0.1\n")
    return {"scores": folder / "table.txt", "num_groups": None}


def test_script_takes_a_text_table(tmp_path, capsys):
    flags = save_table(tmp_path) | {"sense": "min", "time_limit": 60}
    status, printed = call_main(tmp_path, capsys, budget=1.5, **flags)
    assert (status, printed.err) == (0, "")
    assert printed.out.splitlines() == [
        "network 0 (cost 0.5): a; serves a 0.3",
        "network 1 (cost 1): a, b; serves b 0.1; helped by a",
        "mean score of 2 tasks: 0.2, optimal",
        "cost 1.5 of a budget of 1.5",
    ]
    selection = tag_keras.NetworkSelection.load(tmp_path / "groups.json")
    assert selection.cost == 1.5 and selection.groups == (("a",), ("a", "b"))
    status, printed = call_main(tmp_path, capsys, budget=1, partition="true", **flags)
    assert status == 0 and "mean score of 2 tasks: 0.225, optimal" in printed.out


def test_script_takes_a_number_of_networks_as_budget_where_each_costs_1(tmp_path, capsys):
    losses = {("a",): {"a": 0.2}, ("b",): {"b": 0.3}, ("a", "b"): {"a": 0.3, "b": 0.1}}
    rows = [
        {"network": f"net{index}", "tasks": [*group], "seed": 0, "task": task}
        | {"split": "validation", "loss": loss, "metrics": {}, "seconds": 1.0}
        for index, (group, given) in enumerate(losses.items())
        for task, loss in given.items()
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    for flags in ({"num_groups": 2}, {"num_groups": None, "budget": 2}):
        flags |= {"scores": tmp_path / "results.json", "sense": "min"}
        status, printed = call_main(tmp_path, capsys, **flags)
        assert (status, printed.err) == (0, "")
        assert printed.out.splitlines() == [
            "network 0 (cost 1): a; serves a 0.2",
            "network 1 (cost 1): a, b; serves b 0.1; helped by a",
            "mean score of 2 tasks: 0.15, optimal",
            "cost 2 of a budget of 2",
        ]


TABLE_ERRORS = [
    ({"budget": 2}, 2, "--sense must be min or max for a table"),
    ({"sense": "min"}, 2, "--budget must have a value for a table of networks"),
    ({"sense": "min", "num_groups": 2}, 2, "--budget must have a value where not every network"),
    ({"sense": "min", "num_groups": 2, "budget": 2}, 2, "--budget and --num_groups are both given"),
    ({"sense": "min", "budget": 2, "singletons": "forbid"}, 2, "--singletons is for affinities"),
    ({"sense": "min", "budget": 0.5}, 1, "`budget` should be at least 1"),
    ({"sense": "min", "budget": 2, "time_limit": 0}, 1, "`time_limit` should be a positive"),
    ({"sense": "least", "budget": 2}, 2, "value should be one of <max|min>"),
]


@pytest.mark.parametrize(("changed", "status", "message"), TABLE_ERRORS)
def test_script_says_what_is_wrong_for_a_table(changed, status, message, tmp_path, capsys):
    returned, printed = call_main(tmp_path, capsys, **(save_table(tmp_path) | changed))
    assert returned == status and printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("network_selection: ") and message in line
    assert not (tmp_path / "groups.json").exists()


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"scores": "missing.json"}, 1, "missing.json: No such file or directory"),
        ({"scores": ""}, 1, "the empty name: No such file or directory"),
        ({"scores": __file__, "sense": "min"}, 1, "test_network_selection.py"),
        ({"scores": os.path.dirname(__file__)}, 1, "Is a directory"),
        ({"budget": 2}, 2, "--budget and --sense are for tables of networks"),
        ({"sense": "min"}, 2, "--budget and --sense are for tables of networks"),
        ({"time_limit": -1}, 1, "`time_limit` should be a positive number of seconds"),
        ({"format": "yaml"}, 2, "value should be one of <table|json>"),
        ({"num_groups": 0}, 1, "`num_groups` should be at least 1. Received: num_groups=0."),
        ({"num_groups": None}, 2, "--num_groups must have a value"),
        ({"output": os.path.dirname(__file__)}, 2, "--output should be a file"),
        ({"num_groups": None, "scores": None}, 2, "--scores must have a value"),
        ({"singletons": "diagonal"}, 2, "value should be one of <forbid|baseline>"),
        ({"groups": 3}, 2, "Unknown command line flag 'groups'"),
    ],
)
def test_script_says_what_is_wrong_in_one_line(changed, status, message, tmp_path, capsys):
    save_example(tmp_path)
    returned, printed = call_main(tmp_path, capsys, **changed)
    assert returned == status and printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("network_selection: ") and message in line
    assert not (tmp_path / "groups.json").exists()


def test_script_says_that_a_json_file_is_none(tmp_path, capsys):
    for text, message in [("x", "affinity.json is not a JSON file"), ("{}", "lacks the field")]:
        (tmp_path / "affinity.json").write_text(text)
        status, printed = call_main(tmp_path, capsys)
        assert status == 1 and message in printed.err


def test_script_refuses_other_arguments_and_explains_its_flags(capsys):
    flags = ["--scores=a", "--num_groups=2", "--output=b"]
    assert network_selection.main(["network_selection.py", *flags, "more"]) == 2
    assert "Unknown arguments: more" in capsys.readouterr().err
    assert network_selection.main(["network_selection.py", "--help"]) == 0
    assert "--num_groups" in capsys.readouterr().out


def test_script_is_quick_about_more_networks_than_tasks(tmp_path, capsys):
    save_example(tmp_path)
    status, printed = call_main(tmp_path, capsys, num_groups=10**9)
    assert status == 0 and printed.out.endswith("more than 2 networks no more\n")


def test_script_says_that_it_stopped_without_a_proof(tmp_path, capsys):
    mean = np.random.default_rng(0).normal(size=(24, 24))
    tag_keras.Affinity([f"t{task}" for task in range(24)], mean).save(tmp_path / "affinity.json")
    status, printed = call_main(tmp_path, capsys, num_groups=5, time_limit=0.001)
    assert status == 0
    pattern = "not proven optimal, stopped after [0-9]+ s: no choice scores more than"
    assert re.search(pattern, printed.out.splitlines()[-1])


def test_script_prints_nothing_of_the_solver(tmp_path):
    save_table(tmp_path)
    code = (
        "import ctypes, os, scipy.optimize\n"
        "from tag_keras import network_selection as script\n"
        "milp = scipy.optimize.milp\n"
        "def noisy(*args, **options):\n"
        "    ctypes.CDLL(None).puts(b'kept in a buffer')\n"
        "    os.write(1, b'written at once')\n"
        "    return milp(*args, **options)\n"
        "scipy.optimize.milp = noisy\n"
        "print('before', end=' ')\n"
        "script.main(['', '--scores=table.txt', '--budget=1', '--sense=min', '--format=json'])"
    )
    done = run("-c", code, folder=tmp_path)
    assert json.loads(done.stdout.removeprefix("before "))["groups"] == [["a", "b"]]
    assert done.stderr == ""
    # There may be no stdout.
    command = f'{sys.executable} -c "$0" 1>&-'
    done = subprocess.run(
        ["sh", "-c", command, code.replace("scipy.optimize.milp = noisy", "")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_script_ends_at_an_interrupt_without_a_traceback(tmp_path):
    os.mkfifo(tmp_path / "affinity.json")
    flags = ["--scores=affinity.json", "--num_groups=2", "--output=groups.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tag_keras.network_selection", *flags],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # Opening waits until the script reads.
    with open(tmp_path / "affinity.json", "wb"):
        process.send_signal(signal.SIGINT)
        printed = process.communicate()
    # A shell gives this as status 130.
    assert (process.returncode, printed) == (-signal.SIGINT, (b"", b""))
    assert [path.name for path in tmp_path.iterdir()] == ["affinity.json"]


def test_importing_it_loads_neither_tensorflow_nor_flags(tmp_path):
    code = (
        "import sys, tag_keras, tag_keras.network_selection; tag_keras.select_groups; "
        "print([name for name in ('tensorflow', 'keras', 'absl') if name in sys.modules])"
    )
    done = run("-c", code, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# --- A selection in words.

GROUPING = tag_keras.Grouping(
    ("a", "b", "c"), (("a", "b"), ("a", "b", "c")), {"a": 0, "b": 0, "c": 1}, 0.25, 0.375, False
)


def test_names_tasks_scores_helpers_costs_and_the_certificate():
    scores = {"a": 0.5, "b": 1 / 3, "c": -2.0}
    assert summary(GROUPING, scores, costs=[1.0, 0.5]) == [
        "network 0 (cost 1): a, b; serves a 0.5, b 0.333333",
        "network 1 (cost 0.5): a, b, c; serves c -2; helped by a, b",
        "mean score of 3 tasks: 0.25, not proven optimal: no choice scores more than 0.375, "
        "which is 0.125 above",
    ]


def test_says_that_a_network_serves_no_task_and_that_there_is_one():
    grouping = tag_keras.Grouping(("a",), (("a",), ("a",)), {"a": 0}, 0.0, 0.0, True)
    assert summary(grouping, {"a": 0.0}) == [
        "network 0: a; serves a 0",
        "network 1: a; serves none; helped by a",
        "mean score of 1 task: 0, optimal",
    ]


def test_where_less_is_better_the_best_is_below():
    loss = tag_keras.Grouping(("a",), (("a",),), {"a": 0}, 0.5, 0.25, False)
    text = "not proven optimal, stopped after 60 s: no choice scores less than 0.25, "
    assert certificate(loss, "min", 60.2) == text + "which is 0.25 below"


@pytest.mark.parametrize(
    ("num_groups", "options", "text"),
    [
        (1, {}, "there are no fewer networks, 2 networks 0.133333"),
        (2, {}, "1 network would score 0, more than 2 networks no more"),
        (5, {}, "1 network would score 0, more than 2 networks no more"),
        (
            2,
            {"max_group_size": 2},
            "fewer networks cannot serve all tasks, more than 2",
        ),
        (1, {"partition": True}, "there are no fewer networks, more than 1 network no more"),
    ],
)
def test_says_what_one_network_less_or_more_would_change(num_groups, options, text):
    mean = np.array([[0.0, 0.3, -0.1], [0.2, 0.0, -0.2], [0.1, -0.3, 0.0]])
    affinity = tag_keras.Affinity(["a", "b", "c"], mean)
    grouping = tag_keras.select_groups(affinity, num_groups, **options)
    frontier = tag_keras.selection_frontier(affinity, num_groups + 1, **options)
    assert reason(grouping, frontier).startswith(text)
