"""The devices that a model is built for, by the names of a script's flags."""

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tag_keras.model import MultiTaskModel
from tag_keras.utils.checks import check_choice

STRATEGIES = ("none", "mirrored", "multiworker", "tpu")
# Those that one process holds from beginning to end: hosts cannot train together from processes
# that begin and end at different times, and a TPU belongs to the first process that finds it.
TOGETHER = ("multiworker", "tpu")


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """A strategy of TensorFlow by its name, the same one each time in a process.

    That of several hosts must be the first thing that a program does with TensorFlow.

    Args:
        name: `"none"`; `"mirrored"`, all GPUs of this machine; `"multiworker"`, those of all hosts
            in the environment variable TF_CONFIG; or `"tpu"`, the TPU of this machine, or the one
            that TensorFlow finds in the environment.

    Returns:
        The strategy, or None.

    Raises:
        ValueError: If there is no such name, or no TPU.
    """
    check_choice("name", name, STRATEGIES)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        except (ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"There is no TPU: {error} Start it on a machine with one, with the environment "
                "variable TPU_NAME set to its name, or to `local`; or choose another strategy."
            ) from error
        return tf.distribute.TPUStrategy(resolver)
    return None


def worker_folder(folder: Path, strategy: str) -> Path:
    """Folder that this host writes a study to, of those that train it together.

    The first worker writes to `folder` itself, which all hosts share, and each other one to a
    folder in it, of which nobody reads. What is there decides what is left to do, and so all begin
    with the same: the others copy what the first one has.

    Args:
        folder: Folder of the study.
        strategy: One of `STRATEGIES`.
    """
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {})
    first = "chief" if "chief" in config.get("cluster", {}) else "worker"
    is_first = task.get("type", first) == first and task.get("index", 0) == 0
    if strategy != "multiworker" or is_first:
        return folder
    own = folder / f"worker_{task['type']}_{task['index']}"
    shutil.rmtree(own, ignore_errors=True)
    for path in [*folder.glob("**/*.json"), *folder.glob("**/*.keras")]:
        place = path.relative_to(folder)
        # Not what other workers have, nor what is being written.
        if not place.parts[0].startswith("worker_") and not path.name.startswith("."):
            (own / place).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".json":
                shutil.copyfile(path, own / place)
            else:
                # Networks are large, and what is written takes the place of a link.
                (own / place).symlink_to(path.resolve())
    return own


def build_on_devices(
    build_model: Any,
    strategy: str,
    mixed_precision: bool,
    tasks: Sequence[str],
    **options: Any,
) -> MultiTaskModel:
    """A model that is built under a strategy, and in a precision.

    Bound by `functools.partial`, a function of the tasks that can go to another process.

    Args:
        build_model: Gives a compiled model for a tuple of tasks.
        strategy: One of `STRATEGIES`.
        mixed_precision: Whether to compute in float16, or on a TPU in bfloat16, and to keep the
            variables in float32.
        tasks: Task names.
        **options: Further arguments of `build_model`.
    """
    if mixed_precision:
        low = "bfloat16" if strategy == "tpu" else "float16"
        keras.mixed_precision.set_global_policy(f"mixed_{low}")
    devices = make_strategy(strategy)
    with devices.scope() if devices else contextlib.nullcontext():
        model: MultiTaskModel = build_model(tasks, **options)
    return model
