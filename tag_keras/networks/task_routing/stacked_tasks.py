"""Many tasks of one kind as an axis of one array: their heads, labels, weights and losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.task_losses import TaskLosses
from tag_keras.utils.checks import check, check_count
from tag_keras.utils.tasks import select_labels, select_weights


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskDense(keras.layers.Layer):  # type: ignore[misc]
    """Linear heads of T tasks, with all kernels in one weight.

    For each task it computes what `keras.layers.Dense(units)` would, in a graph of fixed size.

    Args:
        num_tasks: Number of tasks, T.
        units: Number of values of each prediction.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Features (B, F), or (K, B, F): a batch for each of K tasks.
        task_ids: Indices of tasks: for (B, F) one for all examples, or (B,), one for each; for
            (K, B, F) the K tasks, (K,).

    Returns:
        Tensor (B, units), or (K, B, units).

    Raises:
        ValueError: If `num_tasks` or `units` is not a positive integer.

    Example:

    ```python
    head = tag_keras.TaskDense(num_tasks=40, units=2)
    features = keras.random.normal((3, 512))
    logits = head(features, task_ids=np.array([0, 39, 7]))  # (3, 2): each example for another task
    ```
    """

    def __init__(self, num_tasks: int, units: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_tasks = check_count("num_tasks", num_tasks)
        self.units = check_count("units", units)

    def build(self, input_shape: tuple[int | None, ...], *args: Any) -> None:
        width = input_shape[-1] or 0
        # Glorot's range for one task. Keras would take T for the size of a convolution kernel.
        limit = (6 / (width + self.units)) ** 0.5
        self.kernel = self.add_weight(
            shape=(self.num_tasks, width, self.units),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.num_tasks, self.units), initializer="zeros", name="bias"
        )

    def call(self, inputs: tf.Tensor, task_ids: Any) -> tf.Tensor:
        ids = tf.cast(task_ids, "int32")
        kernel = tf.gather(tf.convert_to_tensor(self.kernel), ids)
        bias = tf.gather(tf.convert_to_tensor(self.bias), ids)[..., None, :]
        if inputs.shape.rank > ids.shape.rank + 1:
            return tf.matmul(inputs, kernel) + bias
        return tf.squeeze(tf.matmul(inputs[..., None, :], kernel) + bias, -2)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], *args: Any
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_tasks": self.num_tasks, "units": self.units}


def stack_labels(labels: Any, tasks: Sequence[str]) -> tf.Tensor:
    """Labels (B, T, ...), from an array of this shape or from a dict of (B, ...) by task."""
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
    """Sample weights (B, T) of T tasks.

    Args:
        weights: Array (B, T), or (B,) for all tasks, or a dict of (B,) by task. A task that the
            dict lacks has the weights 1, and so have all tasks for `None`.
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
    """Draws one of the tasks that have a label in the batch, all with the same probability.

    Args:
        seed: Integer tensor (2,).
        labels: Tensor (B, T, ...); a NaN is a missing label.
        weights: Tensor (B, T); a label of weight 0 is missing, too.

    Returns:
        Index of the task, int32 tensor (1,); 0 if no task has a label.
    """
    present = weights != 0
    if labels.dtype.is_floating:
        is_there = ~tf.math.is_nan(labels)
        present &= tf.reduce_any(is_there, list(range(2, labels.shape.rank)))
    candidates = tf.cast(tf.reduce_any(present, axis=0), "int32")
    number = tf.maximum(tf.reduce_sum(candidates), 1)
    chosen = tf.random.stateless_uniform([1], seed, 0, number, "int32")
    # The candidate that has `chosen` others before it.
    before = tf.cumsum(candidates, exclusive=True)
    return tf.argmax(candidates * tf.cast(before == chosen, "int32"), output_type="int32")[None]


def stacked_losses(
    losses: TaskLosses, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Losses of K tasks of one kind, in a loop of the graph.

    Args:
        losses: The loss of one task.
        labels: Tensor (B, K, ...).
        predictions: Tensor (B, K, ...).
        weights: Tensor (B, K).

    Returns:
        Mean losses, float32 tensor (K,), 0 for a task without labels; and numbers of labels (K,).
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
    """Mean loss (T,) of each of T tasks over its labels; NaN for a task without labels."""

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        shape = (num_tasks,)
        self.total = self.add_variable(shape=shape, initializer="zeros", name="total")
        self.count = self.add_variable(shape=shape, initializer="zeros", name="count")

    def update_state(self, task_ids: tf.Tensor, losses: tf.Tensor, labels: tf.Tensor) -> None:
        """Adds a batch: the indices of K tasks, their mean losses, and their numbers of labels."""
        size = self.total.shape[0]
        self.total.assign_add(tf.math.unsorted_segment_sum(losses * labels, task_ids, size))
        self.count.assign_add(tf.math.unsorted_segment_sum(labels, task_ids, size))

    def result(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.total) / tf.convert_to_tensor(self.count)
