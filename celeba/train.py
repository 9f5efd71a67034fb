"""TAG's CelebA experiments (Fifty et al. 2021, arXiv 2109.04617), a line of their tables at a time.

    python -m celeba.train --flagfile=celeba/flags/tag.flags --data_dir=DIR

Methods may share an output folder, and then train the networks that they have in common once. The
same command resumes a run that was stopped. `--stage=report` makes the table of all methods in the
folder.
"""

import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from celeba import lists, published
from tag_keras.study import flags as study_flags
from tag_keras.study.command import command

FLAGS = flags.FLAGS


def define_flags() -> None:
    study_flags.define_flags(
        lists.TASKS,
        published.BATCH_SIZE,
        published.EPOCHS,
        published.LEARNING_RATE,
        every=1,
        data_dir="~/tensorflow_datasets",
    )
    # So that --help shows them.
    flags.adopt_module_key_flags(study_flags)
    flags.DEFINE_string(
        "cache_dir", None, "Folder for the decoded images. By default tag_keras_cache in data_dir."
    )
    flags.DEFINE_bool(
        "in_memory", False, "Hold the images in memory, rounded to 8 bits (2.5 GB), not on disc."
    )


def run() -> None:
    # Not at the top: it loads TensorFlow, which --help does without.
    from celeba import study

    study.run(FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(command("celeba.train", run))
