"""Labels, weights and losses of many tasks of one kind, as arrays with an axis for the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.task_losses import TaskLosses
from tag_keras.utils.checks import check
from tag_keras.utils.tasks import select_labels, select_weights


def stack_labels(labels: Any, tasks: Sequence[str]) -> tf.Tensor:
    """Labels (B, T, ...), from these or from a dict of (B, ...) by task.

    Raises:
        ValueError: If labels are missing, or if axis 1 is not that of the tasks.
    """
    if isinstance(labels, Mapping):
        return tf.stack(list(select_labels(labels, tasks).values()), axis=1)
    shape = () if labels is None else tuple(labels.shape)
    check(
        len(shape) > 1 and shape[1] == len(tasks),
        f"Labels should be an array (B, {len(tasks)}, ...), or a dict by task",
        shape=shape,
    )
    return tf.convert_to_tensor(labels)


def stack_weights(weights: Any, tasks: Sequence[str], size: tf.Tensor) -> tf.Tensor:
    """Sample weights (B, T), from these, from (B,), from a dict of (B,) by task, or from nothing.

    Args:
        weights: Sample weights, or `None`; in a dict, a task may be absent.
        tasks: Task names.
        size: Number of examples, B.
    """
    ones = tf.ones([size, len(tasks)])
    if weights is None:
        return ones
    if isinstance(weights, Mapping):
        columns = select_weights(weights, tasks).values()
        return tf.stack(
            [ones[:, 0] if one is None else tf.cast(one, "float32") for one in columns], axis=1
        )
    weights = tf.cast(weights, "float32")
    return ones * (weights if weights.shape.rank > 1 else weights[:, None])


def draw_task(seed: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Draws one of the tasks with a label in the batch, each of them as likely.

    Args:
        seed: Integer tensor (2,).
        labels: Tensor (B, T, ...); NaN for what is missing.
        weights: Tensor (B, T); 0 for what is missing.

    Returns:
        Int32 tensor (1,): its index; 0 if there is none.
    """
    present = weights != 0
    if labels.dtype.is_floating:
        is_there = ~tf.math.is_nan(labels)
        present &= tf.reduce_any(is_there, list(range(2, labels.shape.rank)))
    candidates = tf.cast(tf.reduce_any(present, axis=0), "int32")
    number = tf.maximum(tf.reduce_sum(candidates), 1)
    chosen = tf.random.stateless_uniform([1], seed, 0, number, "int32")
    # The candidate with so many of them before it.
    before = tf.cumsum(candidates, exclusive=True)
    return tf.argmax(candidates * tf.cast(before == chosen, "int32"), output_type="int32")[None]


def stacked_losses(
    losses: TaskLosses, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same loss for each of K tasks, in a loop of the graph.

    Args:
        losses: The losses of one task.
        labels: Tensor (B, K, ...).
        predictions: Tensor (B, K, ...).
        weights: Tensor (B, K).

    Returns:
        Float32 tensors (K,): mean losses, 0 for a task without labels; and numbers of labels.
    """
    (name,) = losses.tasks

    def loss_of(row: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        sums, divisors, numbers = losses.sums(*({name: one} for one in row))
        return tf.math.divide_no_nan(tf.cast(sums[0], "float32"), divisors[0]), numbers[0]

    rows = [
        tf.transpose(one, [1, 0, *range(2, one.shape.rank)])
        for one in (labels, predictions, weights)
    ]
    means, numbers = tf.map_fn(loss_of, rows, fn_output_signature=("float32", "float32"))
    return means, numbers


class LossByTask(keras.metrics.Metric):  # type: ignore[misc]
    """Mean loss (T,) of each of T tasks over its labels, and NaN for a task without any.

    Args:
        num_tasks: Number of tasks, T.
        **kwargs: Arguments of `keras.metrics.Metric`.
    """

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        shape = (num_tasks,)
        self.total = self.add_variable(shape=shape, initializer="zeros", name="total")
        self.count = self.add_variable(shape=shape, initializer="zeros", name="count")

    def update_state(self, task_ids: tf.Tensor, losses: tf.Tensor, labels: tf.Tensor) -> None:
        """Adds one batch.

        Args:
            task_ids: Indices (K,) of tasks.
            losses: Their mean losses (K,).
            labels: Their numbers of labels (K,).
        """
        size = self.total.shape[0]
        self.total.assign_add(tf.math.unsorted_segment_sum(losses * labels, task_ids, size))
        self.count.assign_add(tf.math.unsorted_segment_sum(labels, task_ids, size))

    def result(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.total) / tf.convert_to_tensor(self.count)
