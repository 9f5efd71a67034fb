"""Lines that say that a long computation is still running, and for how long."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def show_elapsed(what: str, stream: TextIO, first: float = 2.0) -> Iterator[None]:
    """Writes how many seconds the block has taken so far; nothing if it is over before `first`.

    A terminal shows one line, which overwrites itself every second. Elsewhere, such as in a log,
    a line is written after 2, 4, 8, .. seconds.

    Args:
        what: What the block does.
        stream: Where to write.
        first: Seconds before anything is written.
    """
    over = threading.Event()
    thread = threading.Thread(target=_write, args=(what, stream, first, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Countdown:
    """How much of a work is done, and the time left at the speed since the start.

    A terminal shows one line, which overwrites itself. Elsewhere each is a line of its own.

    Args:
        total: Number of parts; one alone is not counted.
        done: Number of parts that were done before, which say nothing about the speed.
        unit: What the parts are.
        stream: Where to write.
    """

    def __init__(self, total: int, done: int, unit: str, stream: TextIO) -> None:
        self._total, self._before, self._done, self._unit = total, done, done, unit
        self._stream, self._terminal = stream, stream.isatty()
        self._start = time.monotonic()
        self._show()

    def add(self, parts: int = 1) -> None:
        """Says that so many more parts are done."""
        self._done += parts
        self._show()

    def say(self, text: str) -> None:
        """Writes a line above."""
        self._stream.write(f"\r\033[K{text}\n" if self._terminal else f"{text}\n")
        if self._terminal:
            self._show()

    def close(self) -> None:
        """Leaves the line of a terminal."""
        if self._terminal and self._total > 1:
            self._stream.write("\n")

    def _show(self) -> None:
        if self._total < 2:
            return
        text = f"{self._done}/{self._total} {self._unit}"
        if self._before < self._done < self._total:
            elapsed = time.monotonic() - self._start
            parts = self._done - self._before
            text += f", {duration(elapsed / parts * (self._total - self._done))} left"
        self._stream.write(f"\r\033[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """A number of seconds in words, such as `"2 h 5 min"`."""
    minutes = round(seconds / 60)
    if minutes == 0:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _write(what: str, stream: TextIO, first: float, over: threading.Event) -> None:
    start, terminal, wait, end = time.monotonic(), stream.isatty(), first, ""
    while not over.wait(wait):
        seconds = time.monotonic() - start
        text = f"{what}: {seconds:.0f} s"
        stream.write(f"\r{text}" if terminal else f"{text}\n")
        stream.flush()
        wait, end = (1.0, "\n") if terminal else (seconds, "")
    stream.write(end)
