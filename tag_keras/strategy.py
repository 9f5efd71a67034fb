"""What a model and its optimizer have to be like under a `tf.distribute` strategy."""

from typing import Any

import tensorflow as tf

from tag_keras.optimizers import accumulated_batches


def check_strategy(model: Any) -> None:
    """Checks that a compiled Keras model can be trained under its strategy.

    Raises:
        ValueError: If the replicas of the strategy do not train in step, if the model or its
            variables were made outside of the scope, or if Keras cannot train several replicas
            with what the model was compiled with.
    """
    strategy = model.distribute_strategy
    if isinstance(strategy, _OUT_OF_STEP):
        raise ValueError(
            f"{type(strategy).__name__} has no replicas that train in step. Use MirroredStrategy, "
            "MultiWorkerMirroredStrategy or TPUStrategy."
        )
    current = tf.distribute.get_strategy() if tf.distribute.has_strategy() else strategy
    # Also false for a copy of the model that Keras made elsewhere.
    created = strategy.extended.variable_created_in_scope
    if current is not strategy or not all(created(one.value) for one in model.variables):
        raise ValueError(
            "The model was made outside of the scope of the strategy that it is to be trained "
            "with. Make the layers and the model, and compile it, under `with strategy.scope():`."
        )
    if strategy.num_replicas_in_sync == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    accumulated = accumulated_batches(model.optimizer)
    for name, value, is_possible in (
        ("steps_per_execution", model.steps_per_execution, model.steps_per_execution == 1),
        ("gradient_accumulation_steps", accumulated, not accumulated),
        ("jit_compile", model.jit_compile, not model.jit_compile),
    ):
        if not is_possible:
            raise ValueError(
                f"Keras cannot train {strategy.num_replicas_in_sync} replicas with "
                f"{name}={value}. Leave the argument out, or train on one device."
            )


_OUT_OF_STEP = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
)
