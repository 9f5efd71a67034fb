"""The study that the flags of `taskonomy.train` ask for, and its report."""

import functools
from typing import Any

from tag_keras.study import from_flags
from tag_keras.study.flags import output_folder
from tag_keras.study.methods import run_method
from tag_keras.study.report import write_study_report
from tag_keras.study.study import Study
from taskonomy import data, domains, methods, published, recipe, xception


def run(flags: Any) -> None:
    """Trains a method if the flags of `taskonomy.train` ask for it, and reports all there are."""
    folder = output_folder()
    # Letters are as good as names.
    flags["tasks"].value = list(domains.task_names(",".join(flags.tasks)))
    if flags.stage == "train":
        study = make_study(flags)
        folder = study.folder
        run_method(study, flags.method)
    settings = from_flags.settings_of_folder(folder, ["tasks", "half_size"])
    is_whole = {*settings["tasks"]} == {*domains.TASKS} and settings["half_size"]
    lines = {
        name: dict(zip(published.BUDGETS, values, strict=True))
        for name, values in published.PUBLISHED.items()
    }
    table = write_study_report(
        folder,
        settings["tasks"],
        list,
        "Taskonomy: total test loss",
        "Sum over the tasks of the test loss",
        lines if is_whole else {},
        published.SOURCE,
        settings["half_size"],
    )
    print(f"{table}\nReport: {folder / 'report.html'}")


def make_study(flags: Any) -> Study:
    """Prepares the data, and makes the study that the flags ask for."""
    from_flags.begin(flags.tasks)
    if flags.half_size and flags.width != "full":
        raise ValueError("--half_size is for --width=full: it halves that network.")
    if flags.image_size % xception.FACTOR:
        raise ValueError(f"--image_size should be divisible by {xception.FACTOR}.")
    taskonomy = data.Taskonomy(
        flags.data_dir, tuple(flags.tasks), flags.buildings, flags.cache_dir, flags.image_size
    )
    taskonomy.prepare()
    size, number = flags.batch_size, taskonomy.sizes["train"]
    if size > number:
        raise ValueError(f"--batch_size should be at most the {number} training images.")
    batches = functools.partial(taskonomy.batches, batch_size=size)
    splits = {split: functools.partial(batches, split) for split in ("validation", "test")}
    splits["train"] = functools.partial(methods.training_batches, taskonomy, size)
    names = ("learning_rate", "width", "image_size", "reproduce_original")
    options = {name: flags[name].value for name in names}
    fit = {
        "steps_per_epoch": recipe.steps_per_epoch(number // size),
        "callbacks": recipe.callbacks(size),
        "validation_data": splits["validation"],
    }
    settings = {name: flags[name].value for name in (*names[1:], "buildings", "half_size")}
    settings["data"] = taskonomy.fingerprint
    build_model = functools.partial(methods.build_model, **options)
    return from_flags.study_of_flags(build_model, splits, fit, list, settings, flags.half_size)
