"""Files: whole or not there whatever happens, locks, JSON, and the settings of a run."""

import errno
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest

from tag_keras.utils import files
from tag_keras.utils.files import comparable, keep_settings

KILLED_INSIDE = """
import os, signal, sys
from tag_keras.utils import files
with files.replacing(sys.argv[1]) as partial:
    partial.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""

WRITES_FOR_EVER = """
import itertools, sys
from tag_keras.utils import files
for number in itertools.count():
    files.write_json(sys.argv[1], [number] * 20000)
"""


def test_replacing_puts_the_new_file_in_place_when_the_block_ends(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with files.replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["model.keras"]


def test_replacing_gives_a_hidden_path_in_the_same_folder_with_the_same_suffix(tmp_path):
    # The same folder, because a rename across disks is a copy; the suffix, because Keras reads the
    # format of a model from it.
    with files.replacing(tmp_path / "model.keras") as partial:
        partial.write_text("new")
    assert partial.parent == tmp_path
    assert partial.name.startswith(".")
    assert partial.suffix == ".keras"


def test_each_writer_has_a_partial_file_of_its_own_and_leaves_those_of_others(tmp_path):
    path, seen = tmp_path / "a.json", []

    def write(text):
        with files.replacing(path) as partial:
            seen.append(partial)
            partial.write_text(text)
            barrier.wait()

    barrier = threading.Barrier(2)
    others = [threading.Thread(target=write, args=[text]) for text in ("first", "second")]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert len(set(seen)) == 2 and path.read_text() in ("first", "second")
    assert os.listdir(tmp_path) == ["a.json"]
    # Other processes: one that is at work, one that is gone, one on another machine.
    head, own = seen[0].name.split(f"-{os.getpid()}-")
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    machine = head.rpartition("-")[0] + "-0123456789ab"
    alive, dead, elsewhere = (
        tmp_path / name
        for name in (f"{head}-1-{own}", f"{head}-{gone.pid}-{own}", f"{machine}-{gone.pid}-{own}")
    )
    for partial in (alive, dead, elsewhere):
        partial.write_text("half of the n")
    files.write_json(path, "third")
    assert {*os.listdir(tmp_path)} == {"a.json", alive.name, elsewhere.name}


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("a" * 250 + ".json")
    files.write_json(path, 1)
    assert os.listdir(tmp_path) == [path.name]


def test_replacing_makes_the_folder(tmp_path):
    path = tmp_path / "runs" / "digits" / "a.json"
    with files.replacing(str(path)) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"


def test_an_exception_inside_replacing_leaves_the_old_file_and_is_raised(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError, match="out of the block"), files.replacing(path) as partial:
        partial.write_text("half of the n")
        raise KeyError("out of the block")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disc_is_told_with_what_to_do(tmp_path, wrapped):
    """Also where a library raises an error of its own after that of the disc."""
    path = tmp_path / "model.keras"
    path.write_text("old")
    wanted = (
        rf"{path} could not be written: No space left on device\. Make room in {tmp_path}, and run "
        "the same command again: it goes on where this one stopped"
    )
    with pytest.raises(OSError, match=wanted) as error, files.replacing(path) as partial:
        partial.write_text("half")
        try:
            # The system's own disc that is always full.
            with open("/dev/full", "w", buffering=1) as full:
                full.write("x\n")
        except OSError as cause:
            if wrapped:
                raise ValueError("Cannot close the archive") from cause
            raise
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.keras"]


def test_a_quota_that_is_used_up_is_told_as_a_full_disc_is(tmp_path):
    path, reason = tmp_path / "model.keras", os.strerror(errno.EDQUOT)
    wanted = rf"{path} could not be written: {reason}\. Make room in {tmp_path}, and run "
    with pytest.raises(OSError, match=wanted) as error, files.replacing(path):
        raise OSError(errno.EDQUOT, reason)
    assert error.value.errno == errno.EDQUOT


def test_a_folder_in_place_of_a_file_is_told_before_the_work(tmp_path):
    wanted = rf"{tmp_path} should be a file, and is a folder\. Rename or delete it\."
    with pytest.raises(ValueError, match=wanted), files.replacing(tmp_path):
        pytest.fail("This is after the work.")
    with pytest.raises(ValueError, match=wanted):
        files.read_json(tmp_path)


@pytest.mark.parametrize("old", ["old", None])
def test_a_process_killed_inside_replacing_leaves_the_old_file_and_the_next_succeeds(tmp_path, old):
    path = tmp_path / "a.json"
    if old is not None:
        path.write_text(old)
    process = subprocess.run([sys.executable, "-c", KILLED_INSIDE, path], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old

    files.write_json(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_reader_beside_the_writer_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, [-1] * 20000)
    with subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, path]) as process:
        try:
            seen = {-1}
            while len(seen) < 20:
                assert process.poll() is None
                values = files.read_json(path)
                assert values == [values[0]] * 20000
                seen.add(values[0])
        finally:
            process.kill()
    # What the last write was in the midst of is not seen, either.
    values = files.read_json(path)
    assert values == [values[0]] * 20000


def test_a_lock_refuses_or_waits(tmp_path, capsys):
    path, entered = tmp_path / "made" / ".lock", []

    def enter():
        with files.locked(path, "Busy.", wait=True):
            entered.append("second")

    # Locks hold threads apart, too.
    other = threading.Thread(target=enter)
    with files.locked(path, "Busy.", wait=True):
        with (
            pytest.raises(ValueError, match=r"^Busy\.$"),
            files.locked(path, "Busy.", wait=False),
        ):
            entered.append("nobody")
        assert capsys.readouterr().out == ""
        other.start()
        other.join(0.05)
        assert other.is_alive()
        entered.append("first")
    other.join()
    assert entered == ["first", "second"]
    assert capsys.readouterr().out == "Busy.\n"
    with files.locked(path, "Busy.", wait=False):
        pass


def test_one_run_at_a_time_is_alone_in_its_folder(tmp_path, monkeypatch):
    folder, refused = tmp_path / "run", []

    def enter():
        try:
            with files.alone(folder):
                pass
        except ValueError as error:
            refused.append(str(error))

    def enter_from_a_thread():
        other = threading.Thread(target=enter)
        other.start()
        other.join()

    with files.alone(folder):
        # A part of the run, which may write the folder otherwise, keeps it and does not free it.
        monkeypatch.chdir(folder)
        with files.alone(pathlib.Path("../run")):
            enter_from_a_thread()
        enter_from_a_thread()
        with files.alone(tmp_path / "other"):
            pass
    message = f"Another run is at work in {folder}. Wait for its end, or give another folder."
    assert refused == [message] * 2
    # It is free, also after an error.
    with pytest.raises(KeyError), files.alone(folder):
        raise KeyError
    enter_from_a_thread()
    assert len(refused) == 2


def test_a_disc_without_locks_is_an_error_for_those_who_wait_only(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with (
        pytest.raises(OSError, match=r"\.lock cannot be locked, .* Give another folder") as error,
        files.locked(tmp_path / ".lock", "Busy.", wait=True),
    ):
        pass
    assert error.value.errno == errno.ENOLCK
    with files.locked(tmp_path / ".lock", "Busy.", wait=False):
        pass


def test_names_that_differ_in_case_alone_are_told_where_they_would_be_one_file(
    tmp_path, monkeypatch
):
    folder, names = tmp_path / "new", ["A", "b", "a", "ä", "Ä"]
    # This disc has both.
    files.check_case(folder, names)
    assert not list(folder.iterdir())
    real = pathlib.Path.exists
    # As on a Mac or on Windows: all letters of a path are read as small ones.
    monkeypatch.setattr(
        pathlib.Path, "exists", lambda path: real(path) or real(path.with_name(path.name.lower()))
    )
    files.check_case(folder, ["A", "b", "ä", "Ä"])
    with pytest.raises(ValueError, match=r"'A' and 'a' would share a file in .*new, whose disc"):
        files.check_case(folder, names)


def test_write_json_puts_the_bytes_on_the_disc_before_it_renames(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *args: [calls.append("fsync"), fsync(*args)])
    monkeypatch.setattr(os, "replace", lambda *args: [calls.append("replace"), replace(*args)])
    files.write_json(tmp_path / "a.json", 1)
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("value", [None, True, 1, 0.1, "é", [], [1, [2.5, None]], {"b": 1, "a": 2}])
def test_json_round_trip(tmp_path, value):
    files.write_json(tmp_path / "a.json", value)
    loaded = files.read_json(tmp_path / "a.json")
    assert loaded == value
    assert type(loaded) is type(value)
    if isinstance(value, dict):
        assert list(loaded) == list(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_write_json_refuses_what_json_does_not_have_and_leaves_the_old_file(tmp_path, number):
    path = tmp_path / "a.json"
    files.write_json(path, "old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": [1.0, number]})
    assert files.read_json(path) == "old"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b'{"a": [1, 2', b"\x89HDF\r\n\x1a\n\xff", b"[1] [2]"),
        pytest.param(b"[" * 100_000, id="brackets"),
        pytest.param(b'{"a": ' * 100_000, id="braces"),
        pytest.param(b"[" + b"1" * 5000 + b"]", id="digits"),
    ],
)
def test_read_json_names_a_file_that_is_not_json_and_the_cure(tmp_path, content):
    path = tmp_path / "corrupt.json"
    path.write_bytes(content)
    message = f"^{re.escape(str(path))} is not a JSON file .* Delete it and run the step that wrote"
    with pytest.raises(ValueError, match=message):
        files.read_json(path)


def test_read_json_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        files.read_json(tmp_path / "absent.json")


def test_read_fields_gives_the_whole_object(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1, "b": None, "more": 3})
    assert files.read_fields(tmp_path / "a.json", ["a", "b"]) == {"a": 1, "b": None, "more": 3}


def test_read_fields_names_the_file_and_the_first_missing_field(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"mean": 1, "also": 2})
    message = re.escape(f"{path} lacks the field 'tasks'. Fields found: ['also', 'mean'].")
    with pytest.raises(ValueError, match=message):
        files.read_fields(path, ["mean", "tasks", "count"])


@pytest.mark.parametrize(("value", "kind"), [([1], "list"), (None, "NoneType"), ("a", "str")])
def test_read_fields_names_a_file_that_holds_no_object(tmp_path, value, kind):
    path = tmp_path / "a.json"
    files.write_json(path, value)
    message = re.escape(f"{path} should hold a JSON object. Received: {kind}.")
    with pytest.raises(ValueError, match=message):
        files.read_fields(path, [])


def test_read_fields_names_a_corrupt_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not a JSON file"):
        files.read_fields(tmp_path / "a.json", ["tasks"])


def test_the_same_settings_go_on_and_others_are_refused(tmp_path):
    settings = {"tasks": ("a", "b"), "epochs": 3}
    keep_settings(tmp_path, settings)
    # A tuple comes back as a list.
    keep_settings(tmp_path, settings)
    message = r"another run: epochs was 3 and is 4; seed was None and is 1\. Give another output"
    with pytest.raises(ValueError, match=message):
        keep_settings(tmp_path, {**settings, "epochs": 4, "seed": 1})


def test_fingerprints_are_added_and_compared(tmp_path, capsys):
    keep_settings(tmp_path, {"epochs": 3})
    fit = {"fit": {"callbacks": {"Stop": {"patience": 3}}}}
    run = {"data": {"train": {"x": "a", "values": "not compared"}}, **fit}
    keep_settings(tmp_path, {"epochs": 3}, run)
    keep_settings(tmp_path, {"epochs": 3}, run)
    assert capsys.readouterr().out == ""
    # Something was trained.
    (tmp_path / "results.json").write_text("[]")
    keep_settings(tmp_path, None, {"data": {"train": run["data"]["train"], "test": {"x": "b"}}})
    assert capsys.readouterr().out == "Compared with the run before by code and type only: train.\n"
    keep_settings(tmp_path, None, {"model": {"layers": {}}})
    printed = capsys.readouterr().out
    assert printed == (
        f"{tmp_path / 'settings.json'} does not say of what model the run before was: not "
        "compared.\n"
    )
    found = files.read_json(tmp_path / "settings.json")
    assert found["epochs"] == 3 and found["fingerprint"]["model"] == {"layers": {}}
    assert found["fingerprint"]["data"] == {**run["data"], "test": {"x": "b"}}
    for change, message in [
        ({"data": {"test": {"x": "c"}}}, "another run: x of test was b and is c. Give"),
        ({"fit": {}}, "another run: callbacks was .* and is absent. Give"),
    ]:
        with pytest.raises(ValueError, match=message):
            keep_settings(tmp_path, {"epochs": 3}, change)
    files.write_json(tmp_path / "settings.json", {"epochs": 3, "fingerprint": {"model": 3}})
    with pytest.raises(ValueError, match=r"settings.json: the field 'fingerprint' has a wrong val"):
        keep_settings(tmp_path, {"epochs": 3}, run)


def test_a_run_that_trains_nothing_is_told_so(tmp_path, capsys):
    network = tmp_path / "networks" / "one_seed0.keras"
    with files.alone(tmp_path) as is_free:
        assert is_free
        network.parent.mkdir()
        network.touch()
    assert capsys.readouterr().out == ""
    with files.alone(tmp_path), files.alone(tmp_path) as is_free, files.alone(network.parent):
        assert not is_free
    printed = capsys.readouterr().out
    assert re.fullmatch(
        rf"Nothing to train: everything in {tmp_path} was trained by \d+-\d\d-\d\d \d\d:\d\d\.\n",
        printed,
    )
    with files.alone(tmp_path, quiet=True):
        pass
    assert capsys.readouterr().out == ""
    # Nor is it said of a run that failed.
    with pytest.raises(OSError, match="disc"), files.alone(tmp_path):
        raise OSError("disc")
    assert capsys.readouterr().out == ""


def test_what_can_be_written_down_and_changes_a_training_is_compared():
    fit = {"epochs": 3, "verbose": 2, "callbacks": [object()], "validation_data": (1, 2)}
    assert comparable({**fit, "steps_per_epoch": None, "shuffle": False}) == {
        "epochs": 3,
        "shuffle": False,
    }
