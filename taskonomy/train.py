"""Taskonomy experiments of arXiv 2109.04617 and 1905.07553, a line of their tables at a time.

    python -m taskonomy.train --flagfile=taskonomy/flags/tag.flags --data_dir=DIR

Methods may share an output folder, and then train the networks that they have in common once. The
same command resumes a run that was stopped. `--stage=report` makes the table of all methods in the
folder.
"""

import functools
import os

# TensorFlow's notices about the processor would hide what the run has to say.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags

from tag_keras.study import flags as study_flags
from tag_keras.study.command import command
from tag_keras.study.methods import run_method
from tag_keras.study.report import write_study_report
from tag_keras.study.study import Study
from taskonomy import data, domains, methods, recipe, xception

FLAGS = flags.FLAGS
# Total test losses of Standley et al. 2020 by budget, figure 3, read off their code.
PUBLISHED = {
    "optimal": (0.50273, 0.46132, 0.45224, 0.44612, 0.44235, 0.43932, 0.43555, 0.43555, 0.43481),
    "esa": (0.50273, 0.48732, 0.46727, 0.46063, 0.45722, 0.45058, 0.45058, 0.44742, 0.44742),
    "hoa": (0.50278, 0.46132, 0.45474, 0.4505, 0.44875, 0.44489, 0.44112, 0.44552, 0.44196),
}
BUDGETS = tuple(1 + step / 2 for step in range(9))
SOURCE = (
    "tstandley/taskgrouping, network_selection/make_plots.py, setting 1, with networks of half the "
    "size for single tasks; there each task is served by the chosen network that is best on the "
    "test data, here by the one that is best on validation data"
)


def define_flags() -> None:
    study_flags.define_flags(
        domains.TASKS, batch_size=96, epochs=recipe.EPOCHS, learning_rate=0.1, every=10
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
        "width", "wide", [*xception.WIDTHS], "Channels: TAG's network is wide, Standley's full."
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
    folder = study_flags.output_folder()
    # Letters are as good as names.
    FLAGS["tasks"].value = list(domains.task_names(",".join(FLAGS.tasks)))
    if FLAGS.stage == "train":
        study = make_study()
        folder = study.folder
        run_method(study, FLAGS.method)
    settings = study_flags.settings_of_folder(folder, ["tasks", "half_size"])
    published = {*settings["tasks"]} == {*domains.TASKS} and settings["half_size"]
    lines = {name: dict(zip(BUDGETS, values, strict=True)) for name, values in PUBLISHED.items()}
    table = write_study_report(
        folder,
        settings["tasks"],
        list,
        "Taskonomy: total test loss",
        "Sum over the tasks of the test loss",
        lines if published else {},
        SOURCE,
        settings["half_size"],
    )
    print(f"{table}\nReport: {folder / 'report.html'}")


def make_study() -> Study:
    """Prepares the data, and makes the study that the flags ask for."""
    study_flags.begin(FLAGS.tasks)
    if FLAGS.half_size and FLAGS.width != "full":
        raise ValueError("--half_size is for --width=full: it halves that network.")
    if FLAGS.image_size % xception.FACTOR:
        raise ValueError(f"--image_size should be divisible by {xception.FACTOR}.")
    taskonomy = data.Taskonomy(
        FLAGS.data_dir, tuple(FLAGS.tasks), FLAGS.buildings, FLAGS.cache_dir, FLAGS.image_size
    )
    taskonomy.prepare()
    size, number = FLAGS.batch_size, taskonomy.sizes["train"]
    if size > number:
        raise ValueError(f"--batch_size should be at most the {number} training images.")
    batches = functools.partial(taskonomy.batches, batch_size=size)
    splits = {split: functools.partial(batches, split) for split in ("validation", "test")}
    splits["train"] = functools.partial(methods.training_batches, taskonomy, size)
    names = ("learning_rate", "width", "image_size", "reproduce_original")
    options = {name: FLAGS[name].value for name in names}
    fit = {
        "steps_per_epoch": recipe.steps_per_epoch(number // size),
        "callbacks": recipe.callbacks(size),
        "validation_data": splits["validation"],
    }
    settings = {name: FLAGS[name].value for name in (*names[1:], "buildings", "half_size")}
    settings["data"] = taskonomy.fingerprint
    build_model = functools.partial(methods.build_model, **options)
    return study_flags.study_of_flags(build_model, splits, fit, list, settings, FLAGS.half_size)


if __name__ == "__main__":
    define_flags()
    app.run(command("taskonomy.train", run))
