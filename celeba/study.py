"""The study that the flags of `celeba.train` ask for, and its report."""

import functools
from typing import Any

from celeba import data, methods, published, recipe
from tag_keras.study import from_flags
from tag_keras.study.flags import output_folder
from tag_keras.study.methods import run_method
from tag_keras.study.report import write_study_report
from tag_keras.study.study import Study


def run(flags: Any) -> None:
    """Trains a method if the flags of `celeba.train` ask for it, and reports all there are."""
    folder = output_folder()
    if flags.stage == "train":
        from_flags.begin(data.ATTRIBUTES)
        study = make_study(flags)
        folder = study.folder
        run_method(study, flags.method)
    settings = from_flags.settings_of_folder(folder, ["tasks", "in_memory", "reproduce_original"])
    whole = tuple(settings["tasks"]) == data.TASKS
    factor = published.ORIGINAL_FACTOR if settings["reproduce_original"] else 1.0
    table = write_study_report(
        folder,
        settings["tasks"],
        functools.partial(methods.error_rates, too_many=factor),
        "CelebA: total error",
        "Sum over the tasks of the test error in percent",
        published.PUBLISHED if whole else {},
        published.SOURCE,
    )
    print(f"{table}\nReport: {folder / 'report.html'}")


def make_study(flags: Any) -> Study:
    """Prepares the data, and makes the study that the flags ask for."""
    celeba = data.CelebA(flags.data_dir, tuple(flags.tasks), flags.cache_dir, flags.in_memory)
    celeba.prepare()
    batches = functools.partial(celeba.batches, batch_size=flags.batch_size)
    splits = {split: functools.partial(batches, split) for split in ("validation", "test")}
    splits["train"] = functools.partial(batches, "train", shuffle=True)
    build_model = functools.partial(
        methods.build_model, learning_rate=flags.learning_rate, original=flags.reproduce_original
    )
    callbacks = recipe.callbacks(flags.learning_rate)
    fit = {"callbacks": callbacks, "validation_data": splits["validation"]}
    settings = {name: flags[name].value for name in ("in_memory", "reproduce_original")}
    settings["data"] = celeba.fingerprint
    return from_flags.study_of_flags(build_model, splits, fit, methods.error_rates, settings)
