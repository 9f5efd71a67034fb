"""What the flags of a script of the papers' tables ask for: their checks, and the study."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tag_keras.estimators.cosine import CosineAffinity
from tag_keras.estimators.first_order import FirstOrderAffinity
from tag_keras.estimators.lookahead import LookaheadAffinity
from tag_keras.results import Row
from tag_keras.study import devices
from tag_keras.study.flags import check_folder, output_folder
from tag_keras.study.methods import METHODS
from tag_keras.study.networks import MOST_TASKS
from tag_keras.study.study import BuildStudyModel, Study
from tag_keras.sweep.network import Data
from tag_keras.sweep.ray_runner import import_ray
from tag_keras.utils import files


def begin(known: Sequence[str]) -> None:
    """Prepares a training: checks what absl cannot check, and finds the other hosts or the TPU.

    `known` are the names of all tasks of the data set.

    Raises:
        ValueError: If a flag is wrong or contradicts another, or if there is no TPU.
    """
    from absl.flags import FLAGS

    _check_tasks(FLAGS, known)
    _check_numbers(FLAGS)
    if FLAGS.strategy != "none" and FLAGS.processes > 1:
        raise ValueError(
            "--processes above 1 is for --strategy=none: a strategy takes all devices."
        )
    if not FLAGS.data_dir:
        raise ValueError("--data_dir should name the folder of the data set.")
    if FLAGS.strategy != "none" and FLAGS.cluster:
        raise ValueError("--cluster is for --strategy=none: Ray gives each network its devices.")
    if FLAGS.early_epochs and FLAGS.early_epochs > FLAGS.epochs:
        raise ValueError(f"--early_epochs should be at most --epochs, {FLAGS.epochs}.")
    check_folder(output_folder().absolute())
    if FLAGS.cluster:
        import_ray()
    if FLAGS.strategy in devices.TOGETHER:
        devices.make_strategy(FLAGS.strategy)
    elif FLAGS.processes or FLAGS.cluster:
        # This process trains nothing, but its first step of anything would take the GPUs' memory.
        with contextlib.suppress(RuntimeError):  # It has made a step before.
            tf.config.set_visible_devices([], "GPU")


def _check_tasks(flags: Any, known: Sequence[str]) -> None:
    tasks = flags.tasks
    if unknown := [task for task in tasks if task not in known]:
        raise ValueError(f"--tasks: unknown {unknown}. There are: {', '.join(known)}.")
    if len(tasks) < 2 or len(set(tasks)) < len(tasks):
        raise ValueError(f"--tasks should be at least two different tasks. Received: {tasks}.")
    if METHODS[flags.method].by_loss and len(tasks) > MOST_TASKS:
        raise ValueError(
            f"--method={flags.method} looks at all groups of the tasks, which should be at "
            f"most {MOST_TASKS}. Received: {len(tasks)} tasks."
        )


def _check_numbers(flags: Any) -> None:
    lists = {name: flags[name].value for name in ("seeds", "num_groups", "budget")}
    received = {name: f"Received: {','.join(values)}." for name, values in lists.items()}
    for name in ("seeds", "num_groups"):
        if not all(value.isdecimal() and int(value) < 2**32 for value in lists[name]):
            raise ValueError(f"--{name} should be whole numbers below 2**32. {received[name]}")
    if not flags.seeds:
        raise ValueError("--seeds should have at least one number.")
    if flags.budget and not METHODS[flags.method].by_loss:
        raise ValueError(f"--budget is for hoa, esa and optimal, not for {flags.method}.")
    for value in flags.budget:
        # A network for all tasks costs 1, and two of half the size serve two tasks.
        if not value.replace(".", "", 1).isdecimal() or float(value) < 1:
            raise ValueError(f"--budget should be numbers of at least 1. {received['budget']}")
    for name, values in lists.items():
        if len({*map(float, values)}) < len(values):
            raise ValueError(f"--{name} should be different. {received[name]}")
    if wrong := [number for number in flags.num_groups if not 1 <= int(number) <= len(flags.tasks)]:
        raise ValueError(
            f"--num_groups should be from 1 to the number of tasks, {len(flags.tasks)}. "
            f"Received: {','.join(wrong)}."
        )


def study_of_flags(
    build_model: BuildStudyModel,
    data: Mapping[str, Data],
    fit: Mapping[str, Any],
    errors: Callable[[list[Row]], list[Row]],
    settings: Mapping[str, Any],
    half_size: bool = False,
) -> Study:
    """Makes the study that the flags ask for, and takes its folder.

    Args:
        build_model: Picklable; returns a compiled model for a tuple of tasks.
        data: Picklable functions that return the datasets `"train"`, `"validation"` and `"test"`.
        fit: Arguments of `fit`, without the number of epochs.
        errors: Returns rows whose `loss` is the error to choose by and to sum up.
        settings: Settings besides flags that tell this study from another.
        half_size: Whether methods may choose networks of half the size for single tasks.

    Raises:
        ValueError: If the folder belongs to a run with other settings.
    """
    from absl.flags import FLAGS

    folder = devices.worker_folder(output_folder(), FLAGS.strategy)
    processes = 0 if FLAGS.strategy in devices.TOGETHER else FLAGS.processes
    study = Study(
        folder=folder,
        tasks=tuple(FLAGS.tasks),
        build_model=functools.partial(
            devices.build_on_devices, build_model, FLAGS.strategy, FLAGS.mixed_precision
        ),
        data=data,
        fit={**fit, "epochs": FLAGS.epochs},
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
    # Last, so that a study that is refused leaves no folder behind.
    files.keep_settings(folder, {**{name: FLAGS[name].value for name in names}, **settings})
    return study


def settings_of_folder(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Reads the settings of the study in a folder; `names` must be among them.

    Raises:
        ValueError: If there is no study of this script, or if a flag contradicts its settings.
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
