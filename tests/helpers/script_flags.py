"""Runs a script of the papers' experiments in this process, as its command line would."""

import contextlib

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
