"""Taskonomy experiments of arXiv 2109.04617 and 1905.07553, a line of their tables at a time.

    python -m taskonomy.train --flagfile=taskonomy/flags/tag.flags --data_dir=DIR

Methods may share an output folder, and then train the networks that they have in common once. The
same command resumes a run that was stopped. `--stage=report` makes the table of all methods in the
folder.
"""

import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from tag_keras.study import flags as study_flags
from tag_keras.study.command import command
from taskonomy import domains, published

FLAGS = flags.FLAGS


def define_flags() -> None:
    study_flags.define_flags(
        domains.TASKS, batch_size=96, epochs=published.EPOCHS, learning_rate=0.1, every=10
    )
    flags.DEFINE_string(
        "buildings",
        "original",
        "TAG's buildings (original); tiny, medium, full or fullplus; or a csv file of buildings.",
    )
    flags.DEFINE_string(
        "cache_dir", None, "Folder for the index of samples. By default .tag_keras in data_dir."
    )
    flags.DEFINE_integer("image_size", 256, "Height and width of the images.", lower_bound=16)
    flags.DEFINE_enum(
        "width", "wide", [*published.WIDTHS], "Channels: TAG's network is wide, Standley's full."
    )
    flags.DEFINE_bool(
        "half_size",
        False,
        "For hoa, esa and optimal: single tasks may have networks of half the size, at a cost of "
        "0.5.",
    )
    # So that --help shows them.
    flags.adopt_module_key_flags(study_flags)


def run() -> None:
    # Not at the top: it loads TensorFlow, which --help does without.
    from taskonomy import study

    study.run(FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(command("taskonomy.train", run))
