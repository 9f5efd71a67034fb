"""Lines on long work: how long it has taken, how much is done, and the time left.

A terminal shows one line that rewrites itself, by `rich`, which is imported only there. Logs, pipes
and notebooks get whole lines, and few of them.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live


@contextlib.contextmanager
def show_elapsed(what: str, stream: TextIO, first: float = 2.0) -> Iterator[None]:
    """Writes `what` the block does and for how long so far; nothing in the `first` seconds.

    A terminal counts the seconds. A log gets a line after 2, 4, 8, ... seconds.
    """
    over = threading.Event()
    thread = threading.Thread(target=_count_seconds, args=(what, stream, first, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _count_seconds(what: str, stream: TextIO, first: float, over: threading.Event) -> None:
    start = time.monotonic()

    def text() -> str:
        return f"{what}: {time.monotonic() - start:.0f} s"

    if over.wait(first):
        return
    if live := _live_line(stream, text, auto_refresh=True):
        with live:
            live.refresh()
            over.wait()
        return
    while True:
        print(text(), file=stream, flush=True)
        if over.wait(time.monotonic() - start):
            return


class Countdown:
    """Shows how many parts of a work are done, and the time left at the speed since the start.

    A terminal shows one line. A log gets a line for every call of `add`.

    Args:
        total: Number of parts. A single part is not shown.
        done: Number of parts done before the start, which do not count for the speed.
        unit: Name of the parts, in the plural.
        stream: Stream to write to.
    """

    def __init__(self, total: int, done: int, unit: str, stream: TextIO) -> None:
        self._total, self._before, self._done, self._unit = total, done, done, unit
        self._stream, self._start = stream, time.monotonic()
        self._live = _live_line(stream, self._text, auto_refresh=False) if total > 1 else None
        if self._live:
            self._live.start()
        self._show()

    def add(self, parts: int = 1) -> None:
        """Counts this many more parts as done."""
        self._done += parts
        self._show()

    def say(self, message: str) -> None:
        """Writes a message above the line."""
        if self._live:
            self._live.console.out(message, highlight=False)
        else:
            print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the line of a terminal, which stays."""
        if self._live:
            self._live.stop()

    def _show(self) -> None:
        if self._live:
            self._live.refresh()
        elif self._total > 1:
            print(self._text(), file=self._stream, flush=True)

    def _text(self) -> str:
        text = f"{self._done}/{self._total} {self._unit}"
        if self._before < self._done < self._total:
            seconds_per_part = (time.monotonic() - self._start) / (self._done - self._before)
            text += f", {duration(seconds_per_part * (self._total - self._done))} left"
        return text


def duration(seconds: float) -> str:
    """A number of seconds in words, such as `"2 h 5 min"`."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _live_line(stream: TextIO, text: Callable[[], str], auto_refresh: bool) -> "Live | None":
    """A line that rewrites itself; `None` unless the stream is a terminal that can do this."""
    if not stream.isatty():
        return None
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=stream)
    if not console.is_interactive:
        return None
    return Live(
        console=console,
        get_renderable=lambda: Text(text(), no_wrap=True, overflow="ellipsis"),
        auto_refresh=auto_refresh,
        refresh_per_second=1,
        # Others may have put their own streams in place of `sys.stdout` and `sys.stderr`.
        redirect_stdout=False,
        redirect_stderr=False,
    )
