"""Devices and precision of a script's models, and the folders of several hosts."""

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
from tag_keras.study.names import STRATEGIES
from tag_keras.utils.checks import check_choice

# Strategies that one process holds from beginning to end: hosts cannot train together in processes
# that start and end at different times, and a TPU belongs to the first process that finds it.
TOGETHER = ("multiworker", "tpu")


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """Makes one of `STRATEGIES`, once per process; None for `"none"`.

    `"mirrored"` takes all GPUs of this machine, `"multiworker"` the GPUs of all hosts in the
    environment variable TF_CONFIG, and `"tpu"` the TPU that TensorFlow finds.
    `"multiworker"` must be the first thing that a program does with TensorFlow.

    Raises:
        ValueError: If the name is unknown, or if there is no TPU.
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
    """Makes the folder that this host writes a study to, under one of `STRATEGIES`.

    Hosts that train together share `folder`. The first worker writes to it, each other worker to a
    folder inside, which nobody reads. Files decide what is left to train, so the other workers
    begin with a copy of the first one's.
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
        # Neither the folders of other workers, nor files that are being written.
        if not place.parts[0].startswith("worker_") and not path.name.startswith("."):
            (own / place).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".json":
                shutil.copyfile(path, own / place)
            else:
                # Networks are large. A new one will replace the link, not the file behind it.
                (own / place).symlink_to(path.resolve())
    return own


def build_on_devices(
    build_model: Any, strategy: str, mixed_precision: bool, tasks: Sequence[str], **options: Any
) -> MultiTaskModel:
    """Builds a model for `tasks` under one of `STRATEGIES`, with further `options`.

    With mixed precision it computes in float16, on a TPU in bfloat16; variables stay in float32.
    """
    if mixed_precision:
        low = "bfloat16" if strategy == "tpu" else "float16"
        keras.mixed_precision.set_global_policy(f"mixed_{low}")
    devices = make_strategy(strategy)
    with devices.scope() if devices else contextlib.nullcontext():
        model: MultiTaskModel = build_model(tasks, **options)
    return model
