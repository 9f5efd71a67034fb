"""Replicas: what the devices of a `tf.distribute` strategy have to agree on."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def num_replicas() -> int:
    """Number of replicas that train together; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def sum_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """All-reduces by summation; with one replica, the tensors as they are."""
    context = tf.distribute.get_replica_context()
    # Keras builds its metrics outside of the replicas, where there is nothing to sum.
    if num_replicas() == 1 or context is None:
        return tensors
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def assign_on_replicas(variables: Sequence[Any], values: Sequence[tf.Tensor]) -> None:
    """Assigns to variables what every replica has computed by itself, and all alike.

    Replicas cannot do it one by one, and a mean of equal values may differ from them by rounding.

    Args:
        variables: Keras variables.
        values: As many tensors.
    """
    if not tf.distribute.has_strategy():
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return

    def assign(strategy: tf.distribute.Strategy, *values: Any) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(
                variable.value, lambda one, new: one.assign(new), args=(value,)
            )

    tf.distribute.get_replica_context().merge_call(assign, args=tuple(values))
