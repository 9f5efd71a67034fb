import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import child_calls
import pytest

from tag_keras.utils import child_processes

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"


def call(log, function, *args, environment=None):
    payload = pickle.dumps(functools.partial(function, *args))
    return child_processes.ChildProcesses().call(payload, log, environment or {})


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # A process that has ended stays a zombie until someone asks for its exit code.
    return state != "Z"


def run_script(tmp_path, text):
    """Starts a script of its own, as a user does."""
    script = tmp_path / "script.py"
    head = f"import sys\nsys.path.insert(0, {str(HELPERS)!r})\n"
    script.write_text(head + textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_variable_that_was_there_is_never_missing(monkeypatch):
    monkeypatch.setenv("CHILD_TEXT", "before")
    seen = []
    # Called for each variable that is removed.
    removed = type(os.environ).__delitem__
    monkeypatch.setattr(
        type(os.environ), "__delitem__", lambda *given: (seen.append(given[1]), removed(*given))
    )
    with child_processes._variables({"CHILD_TEXT": "two", "CHILD_NEW": "three"}):
        assert (os.environ["CHILD_TEXT"], os.environ["CHILD_NEW"]) == ("two", "three")
    assert os.environ["CHILD_TEXT"] == "before"
    assert seen == ["CHILD_NEW"] and "CHILD_NEW" not in os.environ


def test_what_a_child_prints_goes_to_its_log(tmp_path, capfd):
    log = tmp_path / "log"
    log.write_text("before\n")
    assert call(log, child_calls.say, "one", environment={"CHILD_TEXT": "two"}) == 0
    assert log.read_text() == "before\none\ntwo\n"
    assert "CHILD_TEXT" not in os.environ
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError("x"), 1), (MemoryError(), 1), (ValueError("x"), child_processes.FAILS_AGAIN)],
)
def test_errors_that_last_have_a_code_of_their_own(tmp_path, error, code):
    assert call(tmp_path / "log", child_calls.fail, error) == code
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "Traceback (most recent call last):" or lines[0].startswith("Process ")
    assert lines[-1].startswith(type(error).__name__)


def test_a_killed_child_has_the_number_of_the_signal(tmp_path):
    assert call(tmp_path / "log", child_calls.kill_itself, signal.SIGKILL) == -signal.SIGKILL


def test_ctrl_c_reaches_only_the_parent(tmp_path):
    assert call(tmp_path / "log", child_calls.interrupt_itself) == 0
    assert (tmp_path / "log").read_text() == "still there\n"


def test_stop_ends_all_and_lets_none_start(tmp_path):
    children, codes = child_processes.ChildProcesses(), []

    def sleep(name):
        payload = pickle.dumps(functools.partial(child_calls.sleep, tmp_path / name))
        codes.append(children.call(payload, tmp_path / f"{name}.log", {}))

    threads = [threading.Thread(target=sleep, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    wait_for(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    children.stop()
    for thread in threads:
        thread.join()
    sleep("c")
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGTERM]
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the state of processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path, number):
    parent = run_script(
        tmp_path,
        f"""
        import functools, pathlib, pickle, signal, child_calls
        from tag_keras.utils import child_processes
        if __name__ == "__main__":
            # Processes in the background of a shell ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            children = child_processes.ChildProcesses()
            call = functools.partial(child_calls.sleep, {str(tmp_path / "pid")!r})
            try:
                children.call(pickle.dumps(call), pathlib.Path({str(tmp_path / "log")!r}), {{}})
            except KeyboardInterrupt:
                print("stopped")
        """,
    )
    path = tmp_path / "pid"
    wait_for(lambda: path.exists() and path.read_text())
    os.kill(parent.pid, number)
    output, _ = parent.communicate(timeout=60)
    assert output == ("stopped\n" if number == signal.SIGINT else "")
    wait_for(lambda: not is_running(int(path.read_text())))
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the state of processes in /proc")
def test_a_child_that_still_imports_its_modules_ends_with_its_parent(tmp_path):
    path = tmp_path / "pid"
    parent = run_script(
        tmp_path,
        f"""
        import os, pathlib, pickle, time, child_calls
        if __name__ == "__mp_main__":
            pathlib.Path({str(path)!r}).write_text(str(os.getpid()))
            time.sleep(600)
        from tag_keras.utils import child_processes
        if __name__ == "__main__":
            children = child_processes.ChildProcesses()
            log = pathlib.Path({str(tmp_path / "log")!r})
            children.call(pickle.dumps(child_calls.say), log, {{}})
        """,
    )
    wait_for(lambda: path.exists() and path.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=60)
    wait_for(lambda: not is_running(int(path.read_text())))


def test_a_script_that_trains_while_it_is_imported_is_told_so(tmp_path):
    parent = run_script(
        tmp_path,
        f"""
        import pathlib, pickle, child_calls
        from tag_keras.utils import child_processes
        child_processes.exit_if_imported_by_child()
        child_processes.ChildProcesses().call(
            pickle.dumps(child_calls.say), pathlib.Path({str(tmp_path / "log")!r}), {{}}
        )
        """,
    )
    output, _ = parent.communicate(timeout=60)
    assert output.splitlines()[-1] == (
        "ValueError: A process of its own for each network imports the script that was started: "
        'put what that runs below `if __name__ == "__main__":`, or give processes=0.'
    )
    assert (tmp_path / "log").read_text() == ""


def test_functions_of_the_script_itself_can_be_called(tmp_path):
    parent = run_script(
        tmp_path,
        f"""
        import pathlib
        from tag_keras.utils import child_processes
        def call():
            print("called in", __name__)
        if __name__ == "__main__":
            payload = child_processes.pickled(call, "`call`")
            log = pathlib.Path({str(tmp_path / "log")!r})
            print(child_processes.ChildProcesses().call(payload, log, {{}}))
        """,
    )
    output, _ = parent.communicate(timeout=60)
    assert output == "0\n"
    assert (tmp_path / "log").read_text() == "called in __mp_main__\n"


def test_what_cannot_be_pickled_is_named():
    with pytest.raises(ValueError, match=r"^`data` cannot be sent .*functools\.partial.*proces"):
        child_processes.pickled(lambda: None, "`data`")
    with pytest.raises(ValueError, match=r"^`fit` cannot be sent to another process"):
        child_processes.pickled(threading.Lock(), "`fit`")


def test_a_function_of_a_notebook_cannot_be_imported():
    code = """
from tag_keras.utils import child_processes
def function():
    pass
child_processes.pickled(function, "`build_model`")
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ValueError: `build_model` is defined in a notebook" in result.stderr
