"""The devices that a model is built for, by the names of a script's flags."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.checks import check
from tag_keras.model import MultiTaskModel

STRATEGIES = ("none", "mirrored", "multiworker", "tpu")


def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """A strategy of TensorFlow by its name.

    Args:
        name: `"none"`; `"mirrored"`, all GPUs of this machine; `"multiworker"`, those of all hosts
            in the environment variable TF_CONFIG; or `"tpu"`, the TPU of this machine, or the one
            that TensorFlow finds in the environment.

    Returns:
        The strategy, or None.

    Raises:
        ValueError: If there is no such name, or no TPU.
    """
    check(name in STRATEGIES, f"`name` should be one of {STRATEGIES}", name=name)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        except (ValueError, tf.errors.OpError) as error:
            raise ValueError(f"There is no TPU: {error}") from error
        return tf.distribute.TPUStrategy(resolver)
    return None


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
