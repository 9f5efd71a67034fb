"""What stands inside of a Keras optimizer, and is not all public."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer that makes the steps: mixed precision wraps it in one that scales losses."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def accumulated_batches(optimizer: Any) -> int | None:
    """Number of batches whose gradients make one step; `None` where every batch makes one."""
    steps: int | None = getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None)
    return steps


def loss_scale(optimizer: Any) -> tf.Tensor | None:
    """What mixed precision multiplies losses by; `None` without it."""
    one = tf.ones(())
    scale = optimizer.scale_loss(one)
    return None if scale is one else scale


def exclude_from_weight_decay(optimizer: Any, variables: Sequence[keras.Variable]) -> None:
    """Excludes variables besides those that the user has excluded.

    Keras' own method forgets what was excluded before.
    """
    optimizer = inner_optimizer(optimizer)
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    keys = {optimizer._var_key(variable) for variable in variables}
    optimizer._exclude_from_weight_decay = excluded | keys
