"""The lines that say that a computation is still running."""

import io
import time

import pytest

from tag_keras.utils import progress
from tag_keras.utils.progress import Countdown, duration, show_elapsed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(stream, text):
    while text not in stream.getvalue():
        time.sleep(0.001)


def test_writes_nothing_about_what_is_soon_over():
    for stream in (io.StringIO(), Terminal()):
        with show_elapsed("selecting", stream, first=1000.0):
            pass
        assert stream.getvalue() == ""


def test_writes_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with show_elapsed("selecting", stream, first=0.01):
        wait_for(stream, "selecting: 0 s\n" * 2)
    lines = stream.getvalue().splitlines(keepends=True)
    assert set(lines) == {"selecting: 0 s\n"}


def test_a_terminal_shows_one_line_that_ends():
    stream = Terminal()
    with show_elapsed("selecting", stream, first=0.01):
        wait_for(stream, "selecting")
    assert stream.getvalue() == "\rselecting: 0 s\n"


def test_the_line_ends_before_an_error_goes_on():
    stream = Terminal()
    with pytest.raises(ValueError, match="no"), show_elapsed("selecting", stream, first=0.01):
        wait_for(stream, "selecting")
        raise ValueError("no")
    assert stream.getvalue().endswith("s\n")


def test_the_time_left_is_that_of_the_work_since_the_start(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    # 20 of 31 were done before. Two in ten minutes leave nine for 45.
    countdown = Countdown(31, 20, "networks", stream)
    now += 600
    countdown.add(2)
    countdown.say("note")
    countdown.add(9)
    countdown.close()
    assert stream.getvalue().splitlines() == [
        "20/31 networks",
        "22/31 networks, 45 min left",
        "note",
        "31/31 networks",
    ]


def test_a_terminal_shows_one_count():
    stream = Terminal()
    countdown = Countdown(2, 0, "networks", stream)
    countdown.say("note")
    countdown.add(2)
    countdown.close()
    # What a terminal shows: a return and an erased line take back what was there.
    lines = [line.split("\r\033[K")[-1] for line in stream.getvalue().split("\n")]
    assert lines == ["note", "2/2 networks", ""]


def test_one_part_alone_is_not_counted():
    for stream in (io.StringIO(), Terminal()):
        countdown = Countdown(1, 0, "networks", stream)
        countdown.add()
        countdown.close()
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (29.9, "30 s"), (59, "1 min"), (3540, "59 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
