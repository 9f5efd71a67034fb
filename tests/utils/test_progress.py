"""The lines on long work, in a terminal and in a log."""

import io
import re
import subprocess
import sys
import time

import pytest

from tag_keras.utils import progress
from tag_keras.utils.progress import Countdown, duration, show_elapsed


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def wait_for(stream, text):
    while text not in stream.getvalue():
        time.sleep(0.001)


def shown(terminal):
    """The lines that a terminal shows in the end, the last one being that of the cursor."""
    # The cursor is hidden, and shown again at the end.
    text = re.sub(r"^\x1b\[\?25l(.*)\x1b\[\?25h$", r"\1", terminal.getvalue(), flags=re.DOTALL)
    # A return and an erased line take back what was there.
    lines = [line.split("\r\x1b[2K")[-1] for line in text.split("\n")]
    assert not any(re.search(r"[\x1b\r]", line) for line in lines)
    return lines


def test_writes_nothing_about_what_is_soon_over(terminal):
    for stream in (io.StringIO(), terminal):
        with show_elapsed("selecting", stream, first=1000.0):
            pass
        assert stream.getvalue() == ""


def test_a_log_gets_whole_lines():
    stream = io.StringIO()
    with show_elapsed("selecting", stream, first=0.01):
        wait_for(stream, "selecting: 0 s\n" * 2)
    lines = stream.getvalue().splitlines(keepends=True)
    assert set(lines) == {"selecting: 0 s\n"}


def test_lines_of_a_log_become_rare(monkeypatch):
    now, waits = 0.0, []

    class Clock:
        """In place of an event: each wait takes its time, and the fourth is the last."""

        def wait(self, seconds):
            nonlocal now
            now += seconds
            waits.append(seconds)
            return len(waits) == 4

    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress._count_seconds("selecting", stream, 2.0, Clock())
    assert waits == [2, 2, 4, 8]
    assert stream.getvalue() == "selecting: 2 s\nselecting: 4 s\nselecting: 8 s\n"


def test_a_terminal_shows_one_line_that_ends(terminal):
    with show_elapsed("selecting", terminal, first=0.01):
        wait_for(terminal, "selecting")
    assert shown(terminal) == ["selecting: 0 s", ""]


def test_the_line_ends_before_an_error_goes_on(terminal):
    with pytest.raises(ValueError, match="no"), show_elapsed("selecting", terminal, first=0.01):
        wait_for(terminal, "selecting")
        raise ValueError("no")
    assert shown(terminal) == ["selecting: 0 s", ""]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_time_left_is_that_of_the_work_since_the_start(monkeypatch, terminal, is_terminal):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = terminal if is_terminal else io.StringIO()
    # 20 of 31 were done before. Two in ten minutes leave nine for 45.
    countdown = Countdown(31, 20, "networks", stream)
    if is_terminal:
        assert stream.getvalue().endswith("20/31 networks")
    now += 600
    countdown.add(2)
    if is_terminal:
        assert stream.getvalue().endswith("22/31 networks, 45 min left")
    countdown.say("note")
    countdown.add(9)
    countdown.close()
    if is_terminal:
        assert shown(stream) == ["note", "31/31 networks", ""]
    else:
        assert stream.getvalue().splitlines() == [
            "20/31 networks",
            "22/31 networks, 45 min left",
            "note",
            "31/31 networks",
        ]


def test_messages_stand_above_the_line_as_they_are(terminal):
    message = "[bold]Failed:[/] :warning: of a length that is greater than that of a line, 'a', 1"
    countdown = Countdown(2, 0, "networks", terminal)
    countdown.say(message)
    countdown.add(2)
    countdown.close()
    assert shown(terminal) == [message, "2/2 networks", ""]


def test_one_part_alone_is_not_counted(terminal):
    for stream in (io.StringIO(), terminal):
        countdown = Countdown(1, 0, "networks", stream)
        countdown.add()
        assert stream.getvalue() == ""
        countdown.say("note")
        countdown.close()
        assert stream.getvalue() == "note\n"


def test_a_terminal_that_cannot_rewrite_a_line_gets_whole_lines(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    countdown = Countdown(2, 0, "networks", terminal)
    countdown.add(2)
    countdown.close()
    assert terminal.getvalue() == "0/2 networks\n2/2 networks\n"


def test_rich_is_imported_for_a_terminal_only():
    code = """
import io, sys
from tag_keras.utils.progress import Countdown, show_elapsed
Countdown(2, 0, "networks", io.StringIO()).add()
with show_elapsed("selecting", io.StringIO(), first=0.0):
    pass
print("rich" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (29.9, "30 s"), (59, "1 min"), (3540, "59 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
