"""The commands: --help comes at once, and the same option has the same name in all of them."""

import importlib
import subprocess
import sys
import wsgiref
from pathlib import Path

import pytest

from benchmarks.options import load_lazily

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = (
    *("all", "celeba_pipeline", "memory", "method_cost", "probe_cost", "selection", "stack_cost"),
    *("study_cost", "truth", "truth.affinities", "truth.make", "truth.predicted"),
)
COMMANDS = (
    *("digits.train", "celeba.train", "taskonomy.train", "tag_keras.network_selection"),
    *(f"benchmarks.{name}" for name in BENCHMARKS),
)
# Says at its end which libraries were loaded.
RUN = """
import atexit, runpy, sys
heavy = ["tensorflow", "keras", "matplotlib", "pandas"]
# A module that is to be loaded at its first use has another type until then.
atexit.register(
    lambda: print("loaded", [
        name for name in heavy if name in sys.modules
        # Not what will be loaded at its first use.
        and type(sys.modules[name]).__name__ != "_LazyModule"
    ])
)
name = sys.argv.pop(1)
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def test_all_commands_are_here():
    folders = ("tag_keras", "digits", "celeba", "taskonomy", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    guarded = [path for path in files if 'if __name__ == "__main__"' in path.read_text("utf-8")]
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in guarded}
    # Which says so to users, in an error.
    found -= {"tag_keras.utils.child_processes"}
    assert {name.removesuffix(".__main__") for name in found} == set(COMMANDS)


@pytest.mark.slow_cases
@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_without_tensorflow_and_its_notices(name):
    command = [sys.executable, "-W", "error", "-c", RUN, name, "--help"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.stderr == ""
    *text, last = process.stdout.splitlines()
    assert last == "loaded []"
    assert sum("--" in line for line in text) > 1


@pytest.mark.parametrize("rate", ["nan", "inf", "-1"])
def test_a_learning_rate_is_finite_and_not_negative(rate, tmp_path):
    flags = [f"--learning_rate={rate}", f"--output_dir={tmp_path / 'new'}"]
    command = [sys.executable, "-m", "digits.train", *flags]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and "flag --learning_rate" in process.stderr
    assert not (tmp_path / "new").exists()


def test_a_module_that_is_loaded_lazily_is_one_of_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "wsgiref.headers", raising=False)
    monkeypatch.delattr(wsgiref, "headers", raising=False)
    lazy = load_lazily("wsgiref.headers")
    assert wsgiref.headers is lazy is sys.modules["wsgiref.headers"]
    assert wsgiref.headers.Headers([("a", "b")])["a"] == "b"


RENAMED = [
    ("probe_cost", "--tasks", "--num_tasks"),
    ("method_cost", "--tasks", "--num_tasks"),
    ("selection", "--tasks", "--num_tasks"),
    ("selection", "--groups", "--num_groups"),
    ("stack_cost", "--seeds", "--num_seeds"),
    ("truth.make", "--seeds", "--num_seeds"),
    ("truth.__main__", "--num_networks", "--num_groups"),
    ("truth.predicted", "--num_networks", "--num_groups"),
]


@pytest.mark.parametrize(("name", "old", "new"), RENAMED)
@pytest.mark.parametrize("form", ["=3", " 3 9", ""])
def test_an_option_of_before_says_its_new_name(name, old, new, form, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *f"{old}{form}".split()])
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{name}").main()
    assert capsys.readouterr().err.rstrip().endswith(f"error: {old} is {new} now.")
