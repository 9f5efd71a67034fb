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

# Seconds between two states of the line.
_PAUSE_OF_TERMINAL, _PAUSE_OF_LOG = 0.1, 60.0


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


class Progress:
    """Shows in one line how much of a long work is done, how fast it goes, and the time left.

    A terminal rewrites the line. A log gets a line a minute, and one at the end.

    Args:
        what: Name of the work.
        total: Number of parts.
        unit: Name of the parts, in the plural.
        stream: Stream to write to.
        done: Number of parts done before the start, which do not count for the speed.
        rewrites: Whether a terminal rewrites the line. Others that rewrite theirs would break it.
        quiet: Whether to write messages only.
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        stream: TextIO,
        done: int = 0,
        rewrites: bool = True,
        quiet: bool = False,
    ) -> None:
        self._what, self._total, self._unit, self._stream = what, total, unit, stream
        self._before = self._done = done
        # Of the part at work: how much of it is done, and words on that.
        self._within, self._words, self._quiet = 0.0, "", quiet
        self._parts = 1
        # Time, and how much was done, when the first part told so: its start takes longer.
        self._first: tuple[float, float] | None = None
        self._start = self._shown = time.monotonic()
        # Keras calls back from several threads.
        self._lock = threading.Lock()
        live = rewrites and not quiet
        self._live = _live_line(stream, self._text, auto_refresh=False) if live else None
        if self._live:
            self._live.start(refresh=True)

    def add(self, parts: int = 1) -> None:
        """Counts this many more parts as done."""
        self._done, self._within, self._words = self._done + parts, 0.0, ""
        self._show()

    def within(self, share: float, words: str, parts: int = 1) -> None:
        """Says which share of the part at work is done, from 0 to 1, and in words what is.

        Several `parts` may be at work at once.
        """
        self._within, self._words, self._parts = share, words, parts
        self._first = self._first or (time.monotonic(), share)
        self._show()

    def say(self, message: str) -> None:
        """Writes a message above the line."""
        if self._live:
            self._live.console.out(message, highlight=False)
        else:
            print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the line of a terminal, which stays; writes the last line of a log."""
        if self._live:
            self._live.stop()
        elif self._done > self._before and not self._quiet:
            print(self._text(), file=self._stream, flush=True)

    def _show(self) -> None:
        """Shows the line, unless it was shown a moment ago, or is the last: `close` shows that."""
        with self._lock:
            now = time.monotonic()
            pause = _PAUSE_OF_TERMINAL if self._live else _PAUSE_OF_LOG
            if self._quiet or now - self._shown < pause or self._done >= self._total:
                return
            self._shown = now
            if self._live:
                self._live.refresh()
            else:
                print(self._text(), file=self._stream, flush=True)

    def _text(self) -> str:
        seconds = time.monotonic() - self._start
        count = f"{self._done:,}/{self._total:,}"
        if self._done >= self._total:
            return f"{self._what}: {count if self._total > 1 else 'done'} in {duration(seconds)}"
        parts = [count if self._total > 1 else "", self._words]
        done = self._done - self._before
        if not self._words and done >= seconds > 0:
            parts.append(f"{rate(done / seconds)} {self._unit}/s")
        left = self._seconds_left(done, seconds)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return f"{self._what}: {', '.join(filter(None, parts)) or '...'}"

    def _seconds_left(self, done: int, seconds: float) -> float | None:
        """The time left, if so many parts were done in so many seconds."""
        to_do = self._total - self._before
        if done:
            finished = done + self._within * self._parts
            return (to_do - finished) * seconds / finished
        if self._first is None or self._within <= self._first[1]:
            return None
        begin, share = self._first
        steps = (seconds - (begin - self._start)) / (self._within - share)
        left = (1 - self._within) * steps
        # Each of the others takes as long as this one, with its start.
        return left + (seconds + left) * (to_do / self._parts - 1)


def rate(per_second: float) -> str:
    """A rate, with two digits at least."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"


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
