"""Functions in processes of their own, which need not import TensorFlow: that takes seconds.

One process imports it, and is forked for each function. Nothing of TensorFlow is used in it, so
that its state survives.
"""

import atexit
import multiprocessing
import os
import runpy
import sys

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tensorflow", "keras"])


def start(function, *args, environment=None, log=os.devnull, own_group=False):
    """Starts a function, which can be imported, in a process of its own.

    Args:
        function: What to call.
        *args: Its arguments.
        environment: Variables to set.
        log: File that gets all that the process prints.
        own_group: Whether it leads a process group of its own, as in a terminal.

    Returns:
        The process. Its `exitcode` is the status, or the negative number of a signal.
    """
    variables = {**os.environ, **(environment or {})}
    process = _context.Process(target=_run, args=(function, args, variables, str(log), own_group))
    process.start()
    return process


def run(function, *args, **options):
    """Starts a function as `start` does, and waits for its end; returns the exit code."""
    process = start(function, *args, **options)
    process.join()
    return process.exitcode


def pool(number):
    """A pool of so many processes, as `multiprocessing.Pool` makes it."""
    return _context.Pool(number)


def run_module(name, *arguments):
    """Runs a module as `python -m` does."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run(function, args, variables, log, own_group):
    if own_group:
        os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    # As Python does at its start; processes that this one starts get it, too.
    sys.path[:0] = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        function(*args)
    finally:
        # multiprocessing ends the process without them.
        atexit._run_exitfuncs()
