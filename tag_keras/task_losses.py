"""The losses of a multi-task model: one per task, their weighted sum, and their logs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.tasks import select_labels, select_weights


class TaskLosses:
    """The compiled losses of the tasks.

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
        self.trackers = [keras.metrics.Mean(name=f"{task}_loss") for task in tasks]
        self._functions = [_loss_function(losses[task]) for task in tasks]

    def __call__(
        self, labels: Any, predictions: Mapping[str, tf.Tensor], sample_weight: Any = None
    ) -> list[tf.Tensor]:
        """Unweighted loss of each task on this replica's part of the batch.

        As in Keras, a loss is divided by the number of replicas, so that the losses, and their
        gradients, of all replicas add up to those of the whole batch.

        Returns:
            T scalars, in the order of the tasks.

        Raises:
            ValueError: If labels are missing, or if a loss is not a scalar.
        """
        labels = select_labels(labels, self.tasks)
        weights = select_weights(sample_weight, self.tasks)
        losses = []
        for task, function in zip(self.tasks, self._functions, strict=True):
            loss = function(labels[task], predictions[task], weights[task])
            if loss.shape.rank != 0:
                raise ValueError(
                    f"The loss of the task {task!r} should be a scalar: use a loss with the "
                    f'reduction "sum_over_batch_size". Received: shape {tuple(loss.shape)}.'
                )
            losses.append(loss)
        return losses

    def joint(self, losses: Sequence[tf.Tensor]) -> tf.Tensor:
        """Weighted sum of the losses."""
        return tf.add_n(
            [
                loss * tf.cast(weight, loss.dtype)
                for loss, weight in zip(losses, self.weights, strict=True)
            ]
        )

    def track(self, losses: Sequence[tf.Tensor], batch_size: tf.Tensor) -> None:
        """Adds the losses of one batch to the logs."""
        for tracker, loss in zip(self.trackers, losses, strict=True):
            tracker.update_state(of_whole_batch(loss), sample_weight=batch_size)


def of_whole_batch(loss: tf.Tensor) -> tf.Tensor:
    """Undoes the division by the number of replicas: the mean of the result over the replicas is
    the loss of the whole batch, which is what the logs show."""
    return loss * _num_replicas(loss.dtype)


def of_one_replica(loss: tf.Tensor) -> tf.Tensor:
    """One replica's share of a loss that every replica computes in full, as a regulariser's."""
    return tf.reduce_sum(loss) / _num_replicas(loss.dtype)


def _num_replicas(dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, dtype)


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
        return self._function(*_of_same_rank(y_true, y_pred))


def _of_same_rank(one: tf.Tensor, other: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds or takes away a last axis of length 1, as Keras does.

    Without it, subtracting (B, 1) from (B,) would give (B, B).
    """
    if len(one.shape) > len(other.shape):
        other, one = _of_same_rank(other, one)
        return one, other
    if len(one.shape) + 1 != len(other.shape) or other.shape[-1] != 1:
        return one, other
    if len(one.shape) == 1:
        return tf.expand_dims(one, -1), other
    return one, tf.squeeze(other, -1)
