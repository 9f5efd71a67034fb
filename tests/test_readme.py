import re
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    code = blocks("python")[0]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["predictions"]) == {"sum", "mean", "sign"}
    # The two tasks that are the same question go together.
    assert ("sum", "mean") in names["grouping"].groups
    assert (tmp_path / "grouped.keras").exists()
    assert len(code.strip().splitlines()) <= 25


def test_the_networks_of_the_readme_are_chosen():
    names = {}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    # "a" with "b", a half-size network for "b" alone and one for "c": (0.22 + 0.35 + 0.30) / 3.
    assert names["chosen"].groups == (("a", "b"), ("b",), ("c",))
    assert names["chosen"].cost == 2 and names["chosen"].score == pytest.approx(0.29)


def test_the_decision_of_the_readme_is_for_groups(capsys):
    names = {}
    exec(compile(blocks("python")[2], "README.md", "exec"), names)
    assert len(blocks("python")) == 3
    # "a" gains 0.3 from "b", which loses 0.1 by it.
    assert names["decision"].grouping.groups == (("a", "b"), ("b",))
    assert "2 groups: the total loss is 9.8 % below" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_commands_of_the_readme_are_there(target):
    assert any(line.startswith(f"make {target} ") for line in blocks("bash")[0].splitlines())
    assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_files_that_the_readme_shows_are_there():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / path).exists(), path
