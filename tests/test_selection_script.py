"""The command that selects networks: python -m tag_keras.network_selection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tag_keras
from tag_keras import network_selection

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
        "group 0: a, b; serves a, b",
        "group 1: a, c; serves c",
        "score 0.133333, optimal",
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
    assert status == 0 and "group 1: c; serves c" in printed.out


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"scores": "missing.json"}, 1, "No such file or directory: 'missing.json'"),
        ({"scores": __file__}, 1, "test_selection_script.py is not a JSON file"),
        ({"num_groups": 0}, 1, "`num_groups` should be at least 1. Received: num_groups=0."),
        ({"num_groups": None}, 2, "--num_groups must have a value"),
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


def test_script_refuses_other_arguments_and_explains_its_flags(capsys):
    flags = ["--scores=a", "--num_groups=2", "--output=b"]
    assert network_selection.main(["network_selection.py", *flags, "more"]) == 2
    assert "Unknown arguments: more" in capsys.readouterr().err
    assert network_selection.main(["network_selection.py", "--help"]) == 0
    assert "--num_groups" in capsys.readouterr().out


def test_importing_it_loads_neither_tensorflow_nor_flags(tmp_path):
    code = (
        "import sys, tag_keras, tag_keras.network_selection; tag_keras.select_groups; "
        "print([name for name in ('tensorflow', 'keras', 'absl') if name in sys.modules])"
    )
    done = run("-c", code, folder=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")
