"""What a stack cannot hold, found before any training."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.backend.optimizers import accumulated_batches, inner_optimizer, slots_by_variable
from tag_keras.backend.pass_state import PassState, operations_in
from tag_keras.estimators.cosine import CosineAffinity
from tag_keras.estimators.early_stopping import EarlyStopping
from tag_keras.estimators.features import FeatureAffinity
from tag_keras.estimators.first_order import FirstOrderAffinity
from tag_keras.estimators.lookahead import LookaheadAffinity
from tag_keras.model import MultiTaskModel
from tag_keras.sweep.inputs import listed

# They ask a network for no more than its logs, weights, learning rate and statistics of probes.
CALLBACKS = (
    EarlyStopping,
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)
# They have no state, and draw no numbers.
ESTIMATORS = (CosineAffinity, FeatureAffinity, FirstOrderAffinity, LookaheadAffinity)
# The arguments of `fit` that a stack knows.
ARGUMENTS = (
    *("batch_size", "callbacks", "epochs", "initial_epoch", "shuffle", "steps_per_epoch"),
    *("validation_batch_size", "validation_data", "validation_freq", "validation_steps", "verbose"),
)
# Operations whose results depend on what ran before, or that run Python.
_NOT_REPEATED = re.compile("(?!Stateless).*(Random|Normal$|Sampl|Multinomial|PyFunc)")


class NotStackedError(Exception):
    """Networks cannot be trained in one graph; the message says why."""


def check_fit(fit: Mapping[str, Any]) -> None:
    """Raises a `NotStackedError` if `fit` has arguments that a stack cannot follow."""
    if unknown := sorted({*fit} - {*ARGUMENTS}):
        raise NotStackedError(f"`fit` has {', '.join(unknown)}")
    if fit.get("verbose") not in (None, 0, "0"):
        raise NotStackedError(f"verbose={fit['verbose']!r} asks for the lines of each network")
    callbacks = fit.get("callbacks")
    if callable(callbacks) or isinstance(callbacks, keras.callbacks.CallbackList):
        raise NotStackedError("the callbacks may look at a model")
    for callback in listed(callbacks):
        if type(callback) not in CALLBACKS:
            raise NotStackedError(f"the callback {type(callback).__name__} may look at a model")


def check_model(model: MultiTaskModel) -> None:
    """Raises a `NotStackedError` if a compiled model is trained in a way that a stack cannot."""
    optimizer = model.optimizer
    reasons = {
        f"the model is a {type(model).__name__}": type(model) is not MultiTaskModel,
        "the model is compiled with `run_eagerly`": model.run_eagerly,
        "the model has a gradient method": model.gradient_method is not None,
        "the model has a loss weighting": model.loss_weighting is not None,
        "the loss weights are variables": any(map(_is_variable, model.task_losses.weights)),
        "the model trains on several replicas": model.distribute_strategy.num_replicas_in_sync > 1,
        "the optimizer scales the loss": inner_optimizer(optimizer) is not optimizer,
        "the optimizer accumulates gradients": accumulated_batches(optimizer) is not None,
        "the optimizer averages the weights": bool(getattr(optimizer, "use_ema", False)),
    }
    if model.measures_affinity and model.gradient_method is None:
        step = model.probe_step()
        estimator = step.estimator
        reasons |= {
            f"{type(estimator).__name__} may have a state": type(estimator) not in ESTIMATORS,
            "a function gives the held-out data": callable(estimator.target_data()),
            "`build_model` trains the model": step.statistics.steps > 0,
        }
    names = [one for one in model.tasks for other in model.tasks if one.startswith(f"{other}_")]
    reasons["the names of tasks begin with those of others"] = bool(names)
    if found := [reason for reason, is_so in reasons.items() if is_so]:
        raise NotStackedError(found[0])


def check_built(model: MultiTaskModel, batch: Any) -> int:
    """Checks what only a built model shows.

    Args:
        model: A model that has all its variables.
        batch: A batch of the data.

    Returns:
        Bytes of the tensors that a forward pass computes.

    Raises:
        NotStackedError: If the model has a state that Keras does not know, or draws numbers that
            depend on what was drawn before.
    """
    try:
        slots_by_variable(model.optimizer)
    except ValueError as error:
        raise NotStackedError(str(error)) from None
    for variable in model.optimizer.variables:
        values = keras.ops.convert_to_numpy(variable)
        if values.size and np.any(values != values.flat[0]):
            raise NotStackedError("the optimizer begins with values of the weights")

    def forward(x: Any, y: Any, sample_weight: Any) -> Any:
        return model.task_losses.sums(y, model(x, training=True), sample_weight)

    parts = keras.utils.unpack_x_y_sample_weight(batch)
    # Also for probes, which leave the state as it is.
    state = model.pass_state
    try:
        graph = state.find(model, forward, parts)
    except ValueError:
        raise NotStackedError("a forward pass changes tables, queues or iterators") from None
    if names := state.unknown_to(model):
        raise NotStackedError(f"a forward pass changes {', '.join(names)}")
    if found := sorted(filter(_NOT_REPEATED.match, operations_in(graph))):
        raise NotStackedError(f"a forward pass has the operations {', '.join(found)}")
    evaluated = PassState()
    evaluated.find(model, lambda x, y, sample_weight: model(x, training=False), parts)
    if evaluated.changes_anything:
        raise NotStackedError("evaluating the model changes its state")
    return _bytes(graph)


def _is_variable(weight: Any) -> bool:
    return isinstance(weight, keras.Variable) or tf.is_tensor(weight)


def _bytes(graph: Any) -> int:
    """Bytes of all tensors of a graph."""
    tensors = [one for operation in graph.get_operations() for one in operation.outputs]
    sizes = [one.shape.num_elements() for one in tensors]
    return sum(
        (size or 0) * one.dtype.size
        for one, size in zip(tensors, sizes, strict=True)
        if one.dtype not in (tf.resource, tf.variant, tf.string)
    )
