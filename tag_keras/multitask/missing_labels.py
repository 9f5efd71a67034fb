"""Missing labels, which are NaN or have the sample weight 0: sums of losses over the others."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import num_replicas


def present(
    labels: tf.Tensor, values: tf.Tensor, conditions: Sequence[tf.Tensor | None] = ()
) -> tf.Tensor:
    """Tells which values have a label: a boolean tensor with the shape of `values`.

    Args:
        labels: Labels (B, ...). A value is missing if one of its labels is NaN.
        values: Values, such as losses, by example or by pixel. Their axes are the first of
            `labels`.
        conditions: Sample weights and masks, whose axes are the first of `values`. A value is
            missing where one of them is 0 or false; `None` is no condition.
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


def without_nan(labels: tf.Tensor) -> tf.Tensor:
    """Labels with 0 for NaN: NaN times a weight of 0 is NaN, and so is its gradient."""
    if not labels.dtype.is_floating:
        return labels
    return tf.where(tf.math.is_nan(labels), tf.zeros_like(labels), labels)


def with_rank(tensor: tf.Tensor, rank: int) -> tf.Tensor:
    """Adds or removes axes of length 1 at the end."""
    while tensor.shape.rank < rank:
        tensor = tf.expand_dims(tensor, -1)
    while tensor.shape.rank > rank:
        tensor = tf.squeeze(tensor, -1)
    return tensor


def loss_function(loss: Any) -> keras.losses.Loss:
    """The `Loss` for a Keras loss, its name or class, or a function of labels and predictions."""
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)


def sum_loss_values(
    function: keras.losses.Loss, labels: Any, predictions: tf.Tensor, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums the loss values of one task's labels (B, ...) and predictions (B, ...).

    Returns:
        Three scalars: the sum over the labels present, weighted by the sample weights; its divisor;
        and the number of values with a label.
    """
    # In the data type of the loss, as in Keras: a loss in low precision would be of little use.
    predicted = tf.cast(predictions, function.dtype)
    labels = tf.convert_to_tensor(labels)
    if isinstance(function, _FunctionLoss) or type(function).call is _CALL_OF_KERAS:
        labels, predicted = _of_same_rank(labels, predicted)
    values = function.call(tf.cast(without_nan(labels), function.dtype), predicted)
    if values.shape.rank == 0:
        # A loss that takes the mean itself has to handle missing labels itself.
        values = function.call(tf.cast(labels, function.dtype), predicted)
        values = tf.fill(tf.shape(predicted)[:1], values)
        labels = tf.zeros_like(values)
    masks = [getattr(tensor, "_keras_mask", None) for tensor in (predictions, values)]
    weights = tf.ones_like(values) if weights is None else tf.cast(weights, values.dtype)
    known = present(labels, values, [weights, *masks])
    weights = tf.where(known, with_rank(weights, values.shape.rank), 0.0)
    # The loss of the 0 that replaces a missing label may be infinite, and 0 times it NaN.
    values = tf.where(known, values, tf.zeros_like(values))
    total, number = tf.reduce_sum(values * weights), tf.reduce_sum(tf.cast(known, "float32"))
    divisors = {
        "sum": tf.constant(1.0 / num_replicas()),
        "mean_with_sample_weight": tf.cast(tf.reduce_sum(weights), "float32"),
    }
    return total, divisors.get(function.reduction, number), number


class _FunctionLoss(keras.losses.Loss):  # type: ignore[misc]
    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        name = getattr(function, "__name__", "")
        # "<lambda>" cannot be the name of a TensorFlow scope.
        super().__init__(name=name if name.isidentifier() else "loss")
        self._function = function

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self._function(y_true, y_pred)


# The `call` of all Keras losses that wrap a function. A user's class gets its arguments unchanged.
_CALL_OF_KERAS = keras.losses.MeanSquaredError.call


def _of_same_rank(labels: tf.Tensor, predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds or removes a last axis of length 1, as Keras does, so that the ranks agree.

    Otherwise (B,) less (B, 1) would be (B, B). Unlike Keras, it never removes the axis from
    predictions: with labels (B, H, W), one missing pixel would make its row of values missing, and
    with (B,), one missing label would spoil the batch.
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
