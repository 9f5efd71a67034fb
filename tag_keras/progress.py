"""A line that says that a long computation is still running."""

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


def _write(what: str, stream: TextIO, first: float, over: threading.Event) -> None:
    start, terminal, wait, end = time.monotonic(), stream.isatty(), first, ""
    while not over.wait(wait):
        seconds = time.monotonic() - start
        text = f"{what}: {seconds:.0f} s"
        stream.write(f"\r{text}" if terminal else f"{text}\n")
        stream.flush()
        wait, end = (1.0, "\n") if terminal else (seconds, "")
    stream.write(end)
