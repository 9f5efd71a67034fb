"""Which labels are missing: those that are NaN, and those whose sample weight is 0."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import num_replicas


def without_nan(labels: tf.Tensor) -> tf.Tensor:
    """The labels with 0 for NaN: a loss times 0 would still be NaN, and so would its gradient."""
    if not labels.dtype.is_floating:
        return labels
    return tf.where(tf.math.is_nan(labels), tf.zeros_like(labels), labels)


def present(
    labels: tf.Tensor, values: tf.Tensor, conditions: Sequence[tf.Tensor | None] = ()
) -> tf.Tensor:
    """Where a value has a label.

    Args:
        labels: Labels. A NaN in any of those that belong to one value makes it missing.
        values: One value, such as a loss, by example, or by pixel, ...; its axes are the first
            ones of `labels`.
        conditions: What else has to be true, or not 0: sample weights and masks, whose axes are
            the first ones of `values`; `None` is no condition.

    Returns:
        Boolean tensor with the shape of `values`.
    """
    rank = values.shape.rank
    conditions = [tf.cast(one, "bool") for one in conditions if one is not None]
    if labels.dtype.is_floating:
        missing = tf.math.is_nan(labels)
        axes = list(range(rank, labels.shape.rank))
        conditions.append(~(tf.reduce_any(missing, axes) if axes else missing))
    result = tf.ones(tf.shape(values), "bool")
    for one in conditions:
        result = tf.logical_and(result, with_rank(one, rank))
    return result


def with_rank(tensor: tf.Tensor, rank: int) -> tf.Tensor:
    """The tensor with axes of length 1 added or taken away at the end."""
    while tensor.shape.rank < rank:
        tensor = tf.expand_dims(tensor, -1)
    while tensor.shape.rank > rank:
        tensor = tf.squeeze(tensor, -1)
    return tensor


def sum_of(
    function: keras.losses.Loss, labels: Any, predictions: tf.Tensor, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sum of a task's weighted loss values, its divisor, and the number of values with a label."""
    # In the loss's own type, as in Keras: losses of low precision would be of little use.
    predicted = tf.cast(predictions, function.dtype)
    labels = tf.convert_to_tensor(labels)
    if isinstance(function, _FunctionLoss) or type(function).call is _CALL_OF_KERAS:
        labels, predicted = _of_same_rank(labels, predicted)
    values = function.call(tf.cast(without_nan(labels), function.dtype), predicted)
    if values.shape.rank == 0:
        # A loss that takes the mean by itself has to deal with missing labels by itself.
        values = function.call(tf.cast(labels, function.dtype), predicted)
        values = tf.fill(tf.shape(predicted)[:1], values)
        labels = tf.zeros_like(values)
    masks = [getattr(tensor, "_keras_mask", None) for tensor in (predictions, values)]
    weights = tf.ones_like(values) if weights is None else tf.cast(weights, values.dtype)
    known = present(labels, values, [weights, *masks])
    weights = tf.where(known, with_rank(weights, values.shape.rank), 0.0)
    # 0 times an infinite loss, of the 0 that stands for a missing label, would be NaN.
    values = tf.where(known, values, tf.zeros_like(values))
    total, number = tf.reduce_sum(values * weights), tf.reduce_sum(tf.cast(known, "float32"))
    divisors = {
        "sum": tf.constant(1.0 / num_replicas()),
        "mean_with_sample_weight": tf.cast(tf.reduce_sum(weights), "float32"),
    }
    return total, divisors.get(function.reduction, number), number


def loss_function(loss: Any) -> keras.losses.Loss:
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)


class _FunctionLoss(keras.losses.Loss):  # type: ignore[misc]
    """A loss function as a `Loss`."""

    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        name = getattr(function, "__name__", "")
        # A lambda's name would not do as the name of a TensorFlow scope.
        super().__init__(name=name if name.isidentifier() else "loss")
        self._function = function

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self._function(y_true, y_pred)


# Of all losses that wrap a function. A class of the user's own gets its arguments as they are.
_CALL_OF_KERAS = keras.losses.MeanSquaredError.call


def _of_same_rank(labels: tf.Tensor, predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds or takes away a last axis of length 1, as Keras does, but never one of predictions.

    Without it, subtracting (B, 1) from (B,) would give (B, B). Keras would take (B, H, W) for H
    values by example where the labels lack the last axis, and a missing pixel for a missing row;
    and (B,) for one value, so that one missing label would spoil the batch.
    """
    ranks = labels.shape.rank, predictions.shape.rank
    if ranks == (1, 1):
        return tf.expand_dims(labels, -1), tf.expand_dims(predictions, -1)
    if ranks[0] + 1 == ranks[1] and predictions.shape[-1] == 1:
        return tf.expand_dims(labels, -1), predictions
    if ranks[0] == ranks[1] + 1 and labels.shape[-1] == 1:
        if ranks[1] == 1:
            return labels, tf.expand_dims(predictions, -1)
        return tf.squeeze(labels, -1), predictions
    return labels, predictions
