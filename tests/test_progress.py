"""The line that says that a computation is still running."""

import io
import time

import pytest

from tag_keras.progress import show_elapsed


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
