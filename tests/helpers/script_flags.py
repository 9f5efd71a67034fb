"""Runs a script of the papers' experiments in this process, as its command line would."""

import contextlib
import functools

from absl import flags

FLAGS = flags.FLAGS


@contextlib.contextmanager
def script(train):
    """Gives a function that runs the script with flags; other scripts define the same ones."""
    before = set(FLAGS)
    train.define_flags()

    def run(*arguments):
        FLAGS.unparse_flags()
        for name in set(FLAGS) - before:
            FLAGS[name].unparse()
        FLAGS(["train", *arguments])
        train.run()

    try:
        yield run
    finally:
        for name in set(FLAGS) - before:
            delattr(FLAGS, name)


@contextlib.contextmanager
def many_methods(monkeypatch, study, data):
    """Reports nothing, and makes each data set once: `data` is the class that makes them.

    Reading files is traced anew for each data set, which takes longer than a small network.
    """
    with monkeypatch.context() as patched:
        patched.setattr(study, "write_study_report", lambda *args: "")
        patched.setattr(data, "batches", functools.cache(data.batches))
        yield
