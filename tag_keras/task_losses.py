"""The losses of a multi-task model: one per task, their weighted sum, and their logs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.missing_labels import present, with_rank, without_nan
from tag_keras.replicas import num_replicas, sum_over_replicas
from tag_keras.tasks import select_labels, select_weights


class LossSums(NamedTuple):
    """Sums over one replica's part of a batch. Those of all replicas are to be added up.

    Args:
        sums: T scalars: sum of each task's weighted loss values.
        divisors: Float32 tensor (T,): what the sum of a whole batch is to be divided by.
        labels: Float32 tensor (T,): number of loss values with a label.
    """

    sums: list[tf.Tensor]
    divisors: tf.Tensor
    labels: tf.Tensor


class TaskLosses:
    """The compiled losses of the tasks.

    A label that is NaN, or whose sample weight is 0, is missing: it adds nothing, and a loss is
    divided by the number of labels that are present in the whole batch. A task without any has
    the loss 0. Where all labels are present, the losses are those of Keras. A loss function gets 0
    for a missing label; what it then returns counts nothing, but its gradient has to be finite.

    Args:
        tasks: Task names.
        loss: A `keras.losses.Loss`, a function of labels and predictions, or the name of one, for
            all tasks; or a dict of these by task.
        weights: Weight by task in the joint loss; 1 for a task that is absent.

    Raises:
        ValueError: If there is no loss.
    """

    def __init__(
        self, tasks: tuple[str, ...], loss: Any, weights: Mapping[str, Any] | None = None
    ) -> None:
        if loss is None or isinstance(loss, list | tuple):
            raise ValueError(
                "`loss` should be a dict of losses by task, or one loss for all tasks. "
                f"Received: loss={loss!r}."
            )
        losses = loss if isinstance(loss, Mapping) else dict.fromkeys(tasks, loss)
        if absent := [task for task in tasks if losses[task] is None]:
            raise ValueError(f"`loss` should have a loss for every task. It is None for {absent}.")
        if weights is not None and not isinstance(weights, Mapping):
            raise ValueError(
                "`loss_weights` should be a dict of weights by task. "
                f"Received: loss_weights={weights!r}."
            )
        self.tasks = tasks
        self.weights = [(weights or {}).get(task, 1.0) for task in tasks]
        self.trackers = [_MeanLoss(name=f"{task}_loss") for task in tasks]
        self._functions = [_loss_function(losses[task]) for task in tasks]
        for task, function in zip(tasks, self._functions, strict=True):
            if function.reduction in (None, "none"):
                raise ValueError(
                    f"The loss of the task {task!r} should be a scalar: use a loss with the "
                    f'reduction "sum_over_batch_size". Received: reduction={function.reduction!r}.'
                )

    def __call__(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Unweighted loss of each task: this replica's share of that of the whole batch.

        The losses of all replicas, and their gradients, add up to those of the whole batch.

        Returns:
            T scalars, in the order of the tasks, and a float32 tensor (T,): the number of loss
            values with a label in the whole batch.

        Raises:
            ValueError: If labels are missing for a task.
        """
        sums, *counts = self.sums(labels, predictions, sample_weight)
        divisors, number = sum_over_replicas(counts)
        losses = [
            tf.math.divide_no_nan(total, tf.cast(divisor, total.dtype))
            for total, divisor in zip(sums, tf.unstack(divisors), strict=True)
        ]
        return losses, number

    def sums(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> LossSums:
        """What the losses of the whole batch are computed from; no replica waits for another."""
        labels = select_labels(labels, self.tasks)
        weights = select_weights(sample_weight, self.tasks)
        sums, divisors, numbers = zip(
            *(
                _sum_of(function, labels[task], predictions[task], weights[task])
                for task, function in zip(self.tasks, self._functions, strict=True)
            ),
            strict=True,
        )
        return LossSums(list(sums), tf.stack(divisors), tf.stack(numbers))

    def joint(self, losses: Sequence[tf.Tensor]) -> tf.Tensor:
        """Weighted sum of the losses."""
        return tf.add_n(
            [
                loss * tf.cast(weight, loss.dtype)
                for loss, weight in zip(losses, self.weights, strict=True)
            ]
        )

    def track(self, losses: Sequence[tf.Tensor], labels: tf.Tensor) -> None:
        """Adds the losses of one batch to the logs, which are means over the labels present."""
        numbers = tf.unstack(labels / num_replicas())
        for tracker, loss, number in zip(self.trackers, losses, numbers, strict=True):
            tracker.update_state(of_whole_batch(loss), sample_weight=number)


class _MeanLoss(keras.metrics.Mean):  # type: ignore[misc]
    """Mean over the labels, and NaN for none: a loss of 0 would pass for the best there is."""

    def result(self) -> tf.Tensor:
        count = keras.ops.cast(self.count, self.dtype)
        return keras.ops.where(count > 0, super().result(), float("nan"))


def of_whole_batch(loss: tf.Tensor) -> tf.Tensor:
    """What every replica logs for its share of a loss: the mean of the results over the replicas
    is the loss of the whole batch."""
    return loss * num_replicas()


def of_one_replica(loss: tf.Tensor) -> tf.Tensor:
    """One replica's share of a loss that every replica computes in full, as a regulariser's."""
    return tf.reduce_sum(loss) / num_replicas()


def _sum_of(
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


def _loss_function(loss: Any) -> keras.losses.Loss:
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
