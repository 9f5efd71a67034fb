"""Missing labels, which are NaN or have the sample weight 0: sums of losses over the others."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import options_of
from tag_keras.backend.replicas import num_replicas

# Functions of Keras that give the mean over the last axis of a value for each element.
_MEANS = {
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.hinge,
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.mean_absolute_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.mean_squared_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.poisson,
    keras.losses.squared_hinge,
    keras.metrics.binary_accuracy,
}
# Functions of Keras whose labels have another shape than the predictions.
_OF_CLASSES = {
    getattr(keras.losses, name, None)
    for name in (
        "categorical_generalized_cross_entropy",
        "circle",
        "ctc",
        "sparse_categorical_crossentropy",
    )
}
_OF_KERAS = {
    one
    for module in (keras.losses, keras.metrics)
    for one in vars(module).values()
    if inspect.isfunction(one)
}
# The `call` of all losses of Keras that wrap a function. A user's class gets its arguments as they
# are.
_CALL_OF_KERAS = keras.losses.MeanSquaredError.call


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


def of_same_rank(
    labels: tf.Tensor, predictions: tf.Tensor, function: Any = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds or removes a last axis of length 1, as Keras does, so that the ranks agree.

    Otherwise (B,) less (B, 1) would be (B, B). Unlike Keras, it removes the axis from predictions
    only for a function of Keras over classes, or of angles: with labels (B, H, W), one missing
    pixel would make its row of values missing, and with (B,), one missing label the batch.
    """
    ranks = labels.shape.rank, predictions.shape.rank
    if ranks == (1, 1):
        return tf.expand_dims(labels, -1), tf.expand_dims(predictions, -1)
    if ranks[0] + 1 == ranks[1] and predictions.shape[-1] == 1:
        if ranks[0] > 1 and function in _OF_KERAS - _MEANS - _OF_CLASSES:
            return labels, tf.squeeze(predictions, -1)
        return tf.expand_dims(labels, -1), predictions
    if ranks[0] == ranks[1] + 1 and labels.shape[-1] == 1:
        if ranks[1] == 1:
            return labels, tf.expand_dims(predictions, -1)
        return tf.squeeze(labels, -1), predictions
    return labels, predictions


def mask_of(tensor: tf.Tensor) -> tf.Tensor | None:
    """The mask that Keras attached to a tensor, if any."""
    return getattr(tensor, "_keras_mask", None)


def is_of_keras(function: Any) -> bool:
    """Whether a function is a loss or a metric of Keras."""
    return function in _OF_KERAS


def is_mean_of_elements(
    function: Any, options: Mapping[str, Any], labels: tf.Tensor, predictions: tf.Tensor
) -> bool:
    """Whether a function gives means over the last axis of labels and predictions.

    With one more axis, of length 1, it gives a value for each element instead. Then one element of
    a vector may be missing.
    """
    is_vector = labels.shape.rank == predictions.shape.rank and predictions.shape[-1] != 1
    return is_vector and function in _MEANS and options.get("axis", -1) == -1


def reduced_axes(
    function: Any, options: Mapping[str, Any], labels: tf.Tensor, predictions: tf.Tensor
) -> list[int]:
    """The axes over which a function of Keras gives one value, if its option says other than -1.

    Raises:
        ValueError: If one of them is the axis of the examples.
    """
    axis, rank = options.get("axis", -1), labels.shape.rank
    # Some functions of Keras' metrics have no public name.
    is_by_keras = (getattr(function, "__module__", None) or "").startswith("keras.")
    if axis in (None, -1) or not is_by_keras or rank != predictions.shape.rank:
        return []
    axes = [one % rank for one in (axis if isinstance(axis, list | tuple) else [axis])]
    if 0 in axes:
        raise ValueError(
            f"`axis` of {function.__name__!r} should be an axis of one example, from 1 on: along "
            "axis 0 lie the examples, each of which has a value and may lack its label. Received: "
            f"axis={axis!r}, labels {labels.shape}."
        )
    return axes


def labelled_values(
    call: Callable[..., Any],
    labels: tf.Tensor,
    predictions: tf.Tensor,
    conditions: Sequence[tf.Tensor | None],
    is_scalar: bool = False,
    axes: Sequence[int] = (),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Values of a function of labels (B, ...) and predictions, and booleans: which have a label.

    One value is missing, and 0, if one of its labels is. A scalar, of a function that takes the
    mean over the batch itself, is never missing: that function handles missing labels itself.
    `conditions` are those of `present`. Without `is_scalar`, such a function is called twice.
    `axes` are those that `reduced_axes` finds.
    """
    values = tf.convert_to_tensor(call(labels if is_scalar else without_nan(labels), predictions))
    if values.shape.rank == 0:
        values = values if is_scalar else tf.convert_to_tensor(call(labels, predictions))
        return values, tf.constant(True)
    if axes:
        kept = [axis for axis in range(labels.shape.rank) if axis not in axes]
        labels = tf.transpose(labels, [*kept, *axes])
    known = present(labels, values, [*conditions, mask_of(values)])
    # The value of the 0 that replaces a missing label may be infinite, and 0 times it NaN.
    return tf.where(known, values, tf.zeros_like(values)), known


def _is_scalar(loss: keras.losses.Loss, labels: tf.Tensor, predictions: tf.Tensor) -> bool:
    """Whether a loss with a state gives one value for the batch, by a trace that does not move it.

    A loss without a state may be called once more to find out.
    """
    kinds = (keras.Variable, keras.random.SeedGenerator, tf.Variable)
    if not any(isinstance(one, kinds) for one in vars(loss).values()):
        return False
    specs = [tf.TensorSpec(one.shape, one.dtype) for one in (labels, predictions)]
    with keras.StatelessScope():
        traced = tf.function(loss.call, autograph=False).get_concrete_function(*specs)
    return bool(traced.output_shapes.rank == 0)


def by_shapes(
    labels: tf.Tensor,
    predictions: tf.Tensor,
    binary: Callable[..., Any],
    sparse: Callable[..., Any],
    categorical: Callable[..., Any],
) -> tf.Tensor:
    """The values of the function that Keras chooses by the shapes of labels and predictions."""
    if predictions.shape[-1] == 1:
        return binary(labels, predictions)
    if labels.shape.rank < predictions.shape.rank or labels.shape[-1] == 1:
        return sparse(labels, predictions)
    return categorical(labels, predictions)


def loss_function(loss: Any) -> keras.losses.Loss:
    """The `Loss` for a Keras loss, its name or class, or a function of labels and predictions."""
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        return _FunctionLoss(_crossentropy)
    loss = keras.losses.get(loss)
    return loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)


def has_own_call(loss: keras.losses.Loss) -> bool:
    """Whether a loss has a `__call__` of its own, which takes the mean over the batch itself."""
    return type(loss).__call__ is not keras.losses.Loss.__call__


def sum_loss_values(
    task: str, loss: keras.losses.Loss, labels: Any, predictions: tf.Tensor, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums the loss values of one task's labels (B, ...) and predictions (B, ...).

    Returns:
        Three scalars: the sum over the labels present, weighted by the sample weights; its divisor;
        and the number of values with a label.

    Raises:
        ValueError: If a loss of Keras would compare labels and predictions of different shapes, or
            if the `__call__` of a loss gives no scalar.
    """
    labels = tf.convert_to_tensor(labels)
    if has_own_call(loss):
        return _value_of_own_call(task, loss, labels, predictions, weights)
    # In the data type of the loss, as in Keras: a loss in low precision would be of little use.
    labels, predicted = tf.cast(labels, loss.dtype), tf.cast(predictions, loss.dtype)
    function, options = _function_and_options(loss)
    if function is not None:
        is_map = 2 <= labels.shape.rank == predicted.shape.rank - 1
        labels, predicted = of_same_rank(labels, predicted, function)
        _check_shapes(task, function, labels, predicted)
    elements = tf.constant(1, "int32")
    if function in _MEANS and is_map:
        elements = tf.shape(predicted)[-2]
    if is_mean_of_elements(function, options, labels, predicted):
        elements = tf.shape(predicted)[-1]
        labels, predicted = labels[..., None], predicted[..., None]
    conditions = [weights, mask_of(predictions)]
    is_scalar = _is_scalar(loss, labels, predicted)
    axes = reduced_axes(function, options, labels, predicted)
    values, known = labelled_values(loss.call, labels, predicted, conditions, is_scalar, axes)
    if values.shape.rank == 0:
        values = tf.fill(tf.shape(predicted)[:1], values)
        known = present(tf.zeros_like(values), values, [weights])
    weights = tf.ones_like(values) if weights is None else tf.cast(weights, values.dtype)
    weights = tf.where(known, with_rank(weights, values.shape.rank), 0.0)
    total, number = tf.reduce_sum(values * weights), tf.reduce_sum(tf.cast(known, "float32"))
    if loss.reduction == "sum":
        # Keras adds up the means over the elements.
        return total / tf.cast(elements, total.dtype), tf.constant(1.0 / num_replicas()), number
    if loss.reduction == "mean_with_sample_weight":
        return total, tf.cast(tf.reduce_sum(weights), "float32"), number
    return total, number, number


def _value_of_own_call(
    task: str, loss: keras.losses.Loss, labels: tf.Tensor, predictions: tf.Tensor, weights: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The value of a loss with its own `__call__`, which gets what Keras would give it."""
    value = tf.convert_to_tensor(loss(labels, predictions, weights))
    if value.shape.rank != 0:
        raise ValueError(
            f"The loss of the task {task!r} should give a scalar. Its `__call__` gives a tensor of "
            f"the shape {value.shape}: take the mean."
        )
    number = tf.shape(predictions)[0]
    if weights is not None:
        number = tf.math.count_nonzero(weights)
    # As in Keras, the values of the replicas are added up.
    return value, tf.constant(1.0 / num_replicas()), tf.cast(number, "float32")


class _FunctionLoss(keras.losses.Loss):  # type: ignore[misc]
    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        name = getattr(function, "__name__", "")
        # "<lambda>" cannot be the name of a TensorFlow scope.
        super().__init__(name=name if name.isidentifier() else "loss")
        self.fn = function

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self.fn(y_true, y_pred)


def _function_and_options(loss: keras.losses.Loss) -> tuple[Any, dict[str, Any]]:
    """The function that a loss wraps, if any, and its options."""
    if isinstance(loss, _FunctionLoss):
        return loss.fn, {}
    if type(loss).call is _CALL_OF_KERAS:
        return loss.fn, options_of(loss)
    return None, {}


def _crossentropy(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    return by_shapes(
        labels,
        predictions,
        keras.losses.binary_crossentropy,
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.categorical_crossentropy,
    )


def _check_shapes(task: str, function: Any, labels: tf.Tensor, predictions: tf.Tensor) -> None:
    """Raises a `ValueError` where a loss of Keras would broadcast labels against predictions."""
    if function not in _OF_KERAS or function in _OF_CLASSES:
        return
    # By an axis of length 1 a label may stand for several predictions, but not a prediction for
    # several labels.
    pairs = [*zip(labels.shape[1:], predictions.shape[1:], strict=False)]
    fits = all(None in pair or pair[0] in (1, pair[1]) for pair in pairs)
    if labels.shape.rank != predictions.shape.rank or not fits:
        raise ValueError(
            f"The labels and the predictions of the task {task!r} should have the same shape for "
            f"the loss {function.__name__!r}. Change the labels, or the last layer of the head. "
            f"Received: labels {labels.shape}, predictions {predictions.shape}."
        )
