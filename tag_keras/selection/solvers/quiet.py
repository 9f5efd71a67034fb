"""Silence for HiGHS, which prints lines of its own, whatever its options say."""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

# How many solvers are at work, and the descriptor of the output while they are.
_lock = threading.Lock()
_running = 0
_before: int | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the standard output of this process closed while the block runs, in any thread."""
    global _running
    with _lock:
        _running += 1
        if _running == 1:
            _close()
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                _reopen()


def _close() -> None:
    global _before
    _flush()
    # A process may have no standard output.
    with contextlib.suppress(OSError):
        _before = os.dup(1)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)


def _reopen() -> None:
    global _before
    _flush()
    if _before is not None:
        os.dup2(_before, 1)
        os.close(_before)
        _before = None


def _flush() -> None:
    """Makes Python and the C library write what they keep in buffers."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    # Without that library, as on Windows, the output appears when the process ends.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)
