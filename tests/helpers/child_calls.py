"""What children are told to do; nothing here needs TensorFlow."""

import os
import pathlib
import signal
import sys
import time


def say(text):
    print(text, flush=True)
    print(os.environ.get("CHILD_TEXT"), file=sys.stderr)


def fail(error):
    raise error


def kill_itself(number):
    os.kill(os.getpid(), number)


def interrupt_itself():
    """Gets the signal of Ctrl-C, as all processes of a terminal do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    print("still there")


def sleep(pid_file):
    pathlib.Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)
