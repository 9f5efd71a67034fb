"""Calls in child processes, which end when their parent ends."""

import contextlib
import multiprocessing.resource_tracker
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

# Exit codes of a child. The others: 0, 1 for an error, and the negative number of a signal.
FAILS_AGAIN = 65
_IN_AN_IMPORT = 64
# Errors after which the same call would fail again.
_OF_CODE = (AttributeError, NameError, ImportError, NotImplementedError)
_OF_INPUT = (ValueError, TypeError, LookupError)
# Kills a process if its input ends without a word, as it does if the parent is killed.
_GUARD = "import os, sys; sys.stdin.read(1) or os.kill(int(sys.argv[1]), 9)"


class ChildProcesses:
    """Starts a process for each call and waits for it, from any thread.

    Processes are spawned, because TensorFlow's state does not survive a fork. Ctrl-C reaches only
    the parent; its children end with it.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._running: set[BaseProcess] = set()
        self._stopped = False
        # Otherwise the first process would start it, and unblock Ctrl-C on the way.
        multiprocessing.resource_tracker.ensure_running()

    def call(self, payload: bytes, log: Path, environment: Mapping[str, str]) -> int:
        """Runs a call in a new process and waits for its end.

        Args:
            payload: Pickled function without arguments, importable or of the script that runs.
            log: File to which the process appends all that it prints.
            environment: Environment variables to set for the process.

        Returns:
            Exit code: 0, 1 after an error, `FAILS_AGAIN` after one of the code or its input, or
            the negative number of the signal that killed it.

        Raises:
            ValueError: If the script that runs calls this while it is imported.
        """
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_main, args=(reader, os.fspath(log)))
        with self._lock:
            if self._stopped:
                return -int(signal.SIGTERM)
            with _variables(environment), _errors_to(log), _interrupts_blocked():
                process.start()
            self._running.add(process)
        reader.close()
        try:
            with _killed_with_parent(process):
                # Not as an argument of the process, which is sent while the lock is held.
                with writer, contextlib.suppress(OSError):
                    writer.send_bytes(payload)
                multiprocessing.connection.wait([process.sentinel])
        except BaseException:
            process.kill()
            raise
        finally:
            with self._lock:
                # Two threads that wait for the same process may miss its exit code.
                process.join()
                self._running.discard(process)
        code = process.exitcode
        if code == _IN_AN_IMPORT:
            raise ValueError(
                "A process of its own for each network imports the script that was started: put "
                'what that runs below `if __name__ == "__main__":`, or give processes=0.'
            )
        return 1 if code is None else code

    def stop(self) -> None:
        """Kills all processes; later calls start none."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def exit_if_imported_by_child() -> None:
    """Ends a child that would start children while it imports the script of its parent."""
    # multiprocessing itself looks at this before it raises an error of its own.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_IN_AN_IMPORT)


def pickled(value: Any, what: str) -> bytes:
    """Pickles a value for a child.

    Raises:
        ValueError: If a child could not load it; the message names `what` it is and the remedy.
    """
    remedy = (
        "Give a function of a module, or functools.partial of one, in place of a lambda, a local "
        "function or a tf.data.Dataset; or processes=0, which trains in this process."
    )
    try:
        payload = pickle.dumps(value)
    except Exception as error:  # Of any type: a dataset raises one of TensorFlow.
        message = f"{what} cannot be sent to another process ({error}). {remedy}"
        raise ValueError(message) from None
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    interactive = main.__spec__ is None and not (file and os.path.exists(file))
    if interactive and b"__main__" in payload:
        raise ValueError(
            f"{what} is defined in a notebook or an interactive session, which another process "
            f"cannot import. {remedy}"
        )
    return payload


def is_lasting(error: BaseException) -> bool:
    """Whether the same call would meet the error again."""
    return isinstance(error, _OF_CODE + _OF_INPUT)


def _main(reader: Connection, log: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        payload = reader.recv_bytes()
    except EOFError:
        os._exit(1)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
    try:
        function: Callable[[], None] = pickle.loads(payload)
        function()
    except Exception as error:
        if is_lasting(error):
            sys.excepthook(type(error), error, error.__traceback__)
            sys.exit(FAILS_AGAIN)
        raise


def _end_with_parent() -> NoReturn:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    # At once, whatever the main thread does.
    os._exit(1)


@contextlib.contextmanager
def _killed_with_parent(process: BaseProcess) -> Iterator[None]:
    """Lets a small process watch over this one, and kill the child in its place.

    The child itself watches only once it has imported its modules, which may take half a minute.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD, str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C, and what ends all processes of a terminal, must not reach it first.
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate(b".")


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a process that starts: multiprocessing takes none for it."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values.keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update(before)


@contextlib.contextmanager
def _errors_to(log: Path) -> Iterator[None]:
    """Lets a process that starts inherit the log as stderr.

    TensorFlow writes notices before the process could redirect its own.
    """
    kept = os.dup(2)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Blocks Ctrl-C in this thread, and for good in the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
