"""What a script of the papers' experiments does with its flags: the study that they ask for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tag_keras import files
from tag_keras.devices import TOGETHER, build_on_devices, worker_folder
from tag_keras.estimators import CosineAffinity, FirstOrderAffinity, LookaheadAffinity
from tag_keras.results import Row
from tag_keras.settings import keep_settings
from tag_keras.study import BuildStudyModel, Study
from tag_keras.study_flags import output_folder
from tag_keras.training import Data


def study_of_flags(
    build_model: BuildStudyModel,
    data: Mapping[str, Data],
    fit: Mapping[str, Any],
    errors: Callable[[list[Row]], list[Row]],
    settings: Mapping[str, Any],
    half_size: bool = False,
) -> Study:
    """The study that the flags ask for; its folder is taken, or found to be another's.

    Args:
        build_model: As in `Study`; it can go to another process.
        data: As in `Study`; the values can go to another process.
        fit: Arguments of `fit`, besides the number of epochs.
        errors: As in `Study`.
        settings: What tells this study from another, besides flags.
        half_size: As in `Study`.

    Raises:
        ValueError: If the folder belongs to a run with other settings.
    """
    from absl.flags import FLAGS

    folder = worker_folder(output_folder(), FLAGS.strategy)
    processes = 0 if FLAGS.strategy in TOGETHER else FLAGS.processes
    study = Study(
        folder=folder,
        tasks=tuple(FLAGS.tasks),
        build_model=functools.partial(
            build_on_devices, build_model, FLAGS.strategy, FLAGS.mixed_precision
        ),
        data=data,
        fit={**fit, "epochs": FLAGS.epochs, **({} if processes else {"verbose": 0})},
        estimators={
            "tag": LookaheadAffinity(FLAGS.every),
            "first_order": FirstOrderAffinity(FLAGS.every),
            "cs": CosineAffinity(FLAGS.every),
        },
        seeds=tuple(map(int, FLAGS.seeds)),
        num_groups=tuple(map(int, FLAGS.num_groups))
        or tuple(range(2, min(4, len(FLAGS.tasks)) + 1)),
        budgets=tuple(map(float, FLAGS.budget)),
        errors=errors,
        early_epochs=FLAGS.early_epochs or max(1, FLAGS.epochs // 5),
        num_draws=FLAGS.draws,
        half_size=half_size,
        processes=processes,
        cluster=FLAGS.cluster,
    )
    names = ("tasks", "batch_size", "epochs", "learning_rate", "strategy", "mixed_precision")
    # Last, so that what is refused leaves no folder behind.
    keep_settings(folder, {**{name: FLAGS[name].value for name in names}, **settings})
    return study


def settings_of_folder(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The settings that the study in a folder was trained with.

    Args:
        folder: The folder.
        names: Names of settings that a study of this script has.

    Raises:
        ValueError: If there is no study, or another script's, or if a flag was given that
            contradicts its settings.
    """
    from absl.flags import FLAGS

    path = folder / "settings.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no study. Train one first: --stage=train.")
    try:
        settings = files.read_fields(path, names)
    except ValueError as error:
        message = f"{folder} holds no study of this script, or its settings are damaged. {error}"
        raise ValueError(message) from None
    for name, value in settings.items():
        if name in FLAGS and FLAGS[name].present and FLAGS[name].value != value:
            raise ValueError(
                f"{folder} was trained with --{name}={value}. Received: {FLAGS[name].value}."
            )
    return settings
