"""TAG's CelebA experiments (Fifty et al. 2021, arXiv 2109.04617), a line of their tables at a time.

    python -m celeba.train --flagfile=celeba/flags/tag.flags --data_dir=DIR

Methods may share an output folder, and then train the networks that they have in common once. The
same command resumes a run that was stopped. `--stage=report` makes the table of all methods in the
folder.
"""

import functools
import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from celeba import data, methods, recipe
from tag_keras.study import flags as study_flags
from tag_keras.study.command import command
from tag_keras.study.methods import run_method
from tag_keras.study.report import write_study_report
from tag_keras.study.study import Study

FLAGS = flags.FLAGS
# The release divides the right answers on 19,962 test images by the number of validation images.
ORIGINAL_FACTOR = 19_962 / 19_867
PUBLISHED = {"stl, validation": {9.0: 58.67}}
SOURCE = (
    "google-research/google-research, tag/network_selection/HOA_network_selection.ipynb, the sum "
    "of its single-task errors, which are of the validation split; the release does not have the "
    "totals of the paper's tables"
)


def define_flags() -> None:
    study_flags.define_flags(
        data.TASKS,
        recipe.BATCH_SIZE,
        recipe.EPOCHS,
        recipe.LEARNING_RATE,
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
    folder = study_flags.output_folder()
    if FLAGS.stage == "train":
        study_flags.begin(data.ATTRIBUTES)
        study = make_study()
        folder = study.folder
        run_method(study, FLAGS.method)
    settings = study_flags.settings_of_folder(folder, ["tasks", "in_memory", "reproduce_original"])
    whole = tuple(settings["tasks"]) == data.TASKS
    factor = ORIGINAL_FACTOR if settings["reproduce_original"] else 1.0
    table = write_study_report(
        folder,
        settings["tasks"],
        functools.partial(methods.error_rates, too_many=factor),
        "CelebA: total error",
        "Sum over the tasks of the test error in percent",
        PUBLISHED if whole else {},
        SOURCE,
    )
    print(f"{table}\nReport: {folder / 'report.html'}")


def make_study() -> Study:
    """Prepares the data, and makes the study that the flags ask for."""
    celeba = data.CelebA(FLAGS.data_dir, tuple(FLAGS.tasks), FLAGS.cache_dir, FLAGS.in_memory)
    celeba.prepare()
    batches = functools.partial(celeba.batches, batch_size=FLAGS.batch_size)
    splits = {split: functools.partial(batches, split) for split in ("validation", "test")}
    splits["train"] = functools.partial(batches, "train", shuffle=True)
    build_model = functools.partial(
        methods.build_model, learning_rate=FLAGS.learning_rate, original=FLAGS.reproduce_original
    )
    callbacks = recipe.callbacks(FLAGS.learning_rate)
    fit = {"callbacks": callbacks, "validation_data": splits["validation"]}
    settings = {name: FLAGS[name].value for name in ("in_memory", "reproduce_original")}
    settings["data"] = celeba.fingerprint
    return study_flags.study_of_flags(build_model, splits, fit, methods.error_rates, settings)


if __name__ == "__main__":
    define_flags()
    app.run(command("celeba.train", run))
