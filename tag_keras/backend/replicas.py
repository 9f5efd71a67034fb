"""Replicas of a `tf.distribute` strategy: sums over them, values for all, and what Keras allows."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tag_keras.backend.optimizers import accumulated_batches

# The replicas of these strategies do not make each training step together.
_OUT_OF_STEP = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)


def num_replicas() -> int:
    """Number of replicas that train together; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def sum_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums over the replicas, by one all-reduce; with one replica, the tensors as they are."""
    context = tf.distribute.get_replica_context()
    # Keras builds its metrics outside of the replicas; then there is nothing to sum.
    if num_replicas() == 1 or context is None:
        return tensors
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def mean_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """The mean of a number that the workers of a strategy do not share, such as a time."""
    own = strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant(value, "float32")
    )
    return float(strategy.reduce("MEAN", own, axis=None))


def assign_on_replicas(variables: Sequence[Any], values: Sequence[tf.Tensor]) -> None:
    """Assigns to Keras variables the values that every replica has computed, all the same ones.

    A replica cannot assign alone, and the mean of equal values may differ from them by rounding.
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


def check_strategy(model: Any) -> None:
    """Checks that a compiled Keras model can be trained under its strategy.

    Raises:
        ValueError: If the replicas do not train in step, if the model or its variables were made
            outside of the scope, or if Keras does not support an option of `compile` with several
            replicas.
    """
    strategy = model.distribute_strategy
    if isinstance(strategy, _OUT_OF_STEP):
        raise ValueError(
            f"{type(strategy).__name__} has no replicas that train in step. Use MirroredStrategy, "
            "MultiWorkerMirroredStrategy or TPUStrategy."
        )
    current = tf.distribute.get_strategy() if tf.distribute.has_strategy() else strategy
    # A copy of the model that Keras made elsewhere has variables outside of the scope, too.
    in_scope = strategy.extended.variable_created_in_scope
    if current is not strategy or not all(in_scope(one.value) for one in model.variables):
        raise ValueError(
            "The model was made outside of the scope of the strategy that it is to be trained "
            "with. Make the layers and the model, and compile it, under `with strategy.scope():`."
        )
    if strategy.num_replicas_in_sync == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    accumulated = accumulated_batches(model.optimizer)
    for name, value, is_supported in (
        ("steps_per_execution", model.steps_per_execution, model.steps_per_execution == 1),
        ("gradient_accumulation_steps", accumulated, not accumulated),
        ("jit_compile", model.jit_compile, not model.jit_compile),
    ):
        if not is_supported:
            raise ValueError(
                f"Keras cannot train {strategy.num_replicas_in_sync} replicas with "
                f"{name}={value}. Leave the argument out, or train on one device."
            )
