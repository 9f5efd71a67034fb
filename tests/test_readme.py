"""README: what it shows runs, what it names is there, and it is short."""

import re
from pathlib import Path

import keras
import pytest

import tag_keras

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_the_python_of_the_readme_prints_what_it_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    (code,), (text,) = blocks("python"), blocks("text")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    # Another machine rounds otherwise, so that losses differ.
    shape = re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", re.escape(text.strip()))
    assert re.search(shape, capsys.readouterr().out)
    assert set(names["model"].predict(names["x"], verbose=0)) == set(names["y"])
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_it_is_short():
    assert len(README.split()) <= 900 and len(README.splitlines()) <= 130
    assert len(blocks("python")[0].strip().splitlines()) <= 30


def test_the_names_of_the_tables_are_public():
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", README, re.MULTILINE)))
    assert len(named) > 20 and all(hasattr(tag_keras, name) for name in named)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_commands_of_the_readme_are_there(target):
    assert any(line.startswith(f"make {target} ") for line in blocks("bash")[0].splitlines())
    assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_files_that_the_readme_shows_are_there():
    paths = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path
