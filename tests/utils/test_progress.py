"""The lines on long work, in a terminal and in a log."""

import io
import re
import subprocess
import sys
import time
import types

import pytest

from tag_keras.utils import progress
from tag_keras.utils.progress import Progress, duration, rate, show_elapsed


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


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    times = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: times.now)
    return times


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_time_left_is_that_of_the_work_since_the_start(clock, terminal, is_terminal):
    stream = terminal if is_terminal else io.StringIO()
    # 20 of 31 were done before. Two in ten minutes leave nine for 45.
    line = Progress("Training", 31, "networks", stream, done=20)
    if is_terminal:
        assert stream.getvalue().endswith("Training: 20/31")
    clock.now += 600
    line.add(2)
    if is_terminal:
        assert stream.getvalue().endswith("Training: 22/31, 45 min left")
    line.say("note")
    line.add(9)
    line.close()
    if is_terminal:
        assert shown(stream) == ["note", "Training: 31/31 in 10 min", ""]
    else:
        assert stream.getvalue().splitlines() == [
            "Training: 22/31, 45 min left",
            "note",
            "Training: 31/31 in 10 min",
        ]


def test_parts_of_parts_count_for_the_time_left(clock):
    stream = io.StringIO()
    line = Progress("Training", 3, "networks", stream)
    # After a start of 30 seconds, half of a network takes 60, and the rest of this one 30. So each
    # takes 120, all three 360.
    clock.now += 30
    line.within(0.25, "epoch 1/4")
    clock.now += 60
    line.within(0.75, "epoch 3/4")
    clock.now += 90
    line.add()
    # Two networks and a half in ten minutes leave half of one.
    clock.now += 420
    line.add()
    line.within(0.5, "epoch 2/4")
    clock.now += 60
    line.within(0.5, "epoch 2/4")
    assert stream.getvalue().splitlines() == [
        "Training: 0/3, epoch 3/4, 4 min left",
        "Training: 1/3, 6 min left",
        "Training: 2/3, 5 min left",
        "Training: 2/3, epoch 2/4, 2 min left",
    ]
    stream = io.StringIO()
    line = Progress("Measuring", 1, "networks", stream)
    clock.now += 60
    line.within(0.5, "epoch 3/4, 9 steps/s")
    line.add()
    line.close()
    assert stream.getvalue().splitlines() == [
        "Measuring: epoch 3/4, 9 steps/s",
        "Measuring: done in 1 min",
    ]


def test_the_time_left_of_parts_at_work_at_once(clock):
    stream = io.StringIO()
    line = Progress("Training", 12, "networks", stream)
    # A start of 50 seconds, and a hundredth of four networks in 10: 1049 for each four of twelve.
    clock.now += 50
    line.within(0.001, "4 networks at once", 4)
    clock.now += 10
    line.within(0.011, "4 networks at once", 4)
    clock.now += 990
    line.add(4)
    clock.now += 525
    line.within(0.5, "4 networks at once", 4)
    assert stream.getvalue().splitlines() == [
        "Training: 0/12, 4 networks at once, 51 min left",
        "Training: 4/12, 35 min left",
        "Training: 4/12, 4 networks at once, 26 min left",
    ]


def test_a_log_gets_a_line_a_minute_and_the_last(clock):
    stream = io.StringIO()
    line = Progress("Decoding", 90_000, "images", stream)
    for _ in range(180):
        clock.now += 1
        line.add(500)
    line.close()
    assert stream.getvalue().splitlines() == [
        "Decoding: 30,000/90,000, 500 images/s, 2 min left",
        "Decoding: 60,000/90,000, 500 images/s, 1 min left",
        "Decoding: 90,000/90,000 in 3 min",
    ]


def test_a_terminal_is_rewritten_ten_times_a_second_at_most(clock, terminal):
    line = Progress("Decoding", 9000, "images", terminal)
    for _ in range(4000):
        clock.now += 0.001
        line.add()
    assert terminal.getvalue().count("Decoding") == 40
    line.close()
    assert shown(terminal) == ["Decoding: 4,000/9,000, 1,000 images/s, 5 s left", ""]


def test_nothing_done_writes_nothing_to_a_log(clock):
    stream = io.StringIO()
    Progress("Training", 3, "networks", stream).close()
    assert stream.getvalue() == ""


def test_messages_stand_above_the_line_as_they_are(clock, terminal):
    message = "[bold]Failed:[/] :warning: of a length that is greater than that of a line, 'a', 1"
    line = Progress("Training", 2, "networks", terminal)
    line.say(message)
    line.add(2)
    line.close()
    assert shown(terminal) == [message, "Training: 2/2 in 0 s", ""]


def test_a_quiet_line_leaves_messages_only(clock, terminal):
    for stream in (io.StringIO(), terminal):
        line = Progress("Training", 2, "networks", stream, quiet=True)
        clock.now += 100
        line.add()
        line.say("note")
        line.close()
        assert stream.getvalue() == "note\n"


@pytest.mark.parametrize("why", ["dumb", "bars"])
def test_a_terminal_that_cannot_rewrite_a_line_gets_whole_lines(clock, terminal, monkeypatch, why):
    if why == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    line = Progress("Training", 2, "networks", terminal, rewrites=why == "dumb")
    line.add(2)
    line.close()
    assert terminal.getvalue() == "Training: 2/2 in 0 s\n"


def test_rich_is_imported_for_a_terminal_only():
    code = """
import io, sys
from tag_keras.utils.progress import Progress, show_elapsed
Progress("Training", 2, "networks", io.StringIO()).add()
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


def test_rates():
    assert [rate(value) for value in (0.0123, 1.25, 120.4, 12345)] == [
        *("0.012", "1.2", "120", "12,345")
    ]
