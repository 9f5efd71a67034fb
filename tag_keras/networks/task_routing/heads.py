"""Linear heads of many tasks in one layer."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.utils.checks import check_count


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskDense(keras.layers.Layer):  # type: ignore[misc]
    """A linear head for each of T tasks, with all kernels in one weight.

    It computes what `keras.layers.Dense(units)` of the task would, and the graph does not grow with
    the number of tasks.

    Args:
        num_tasks: Number of tasks, T.
        units: Number of values of each prediction.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Features, (B, F) where `task_ids` has one task by example or one for all, and
            (K, B, F) for one batch for each of K tasks.
        task_ids: Indices of tasks, (B,), () or (K,).

    Returns:
        Tensor (B, units), or (K, B, units).

    Raises:
        ValueError: If `num_tasks` or `units` is not a positive integer.

    Example:

    ```python
    head = tag_keras.TaskDense(num_tasks=40, units=2)
    features = keras.random.normal((3, 512))
    logits = head(features, task_ids=np.array([0, 39, 7]))  # (3, 2): each example at another task
    ```
    """

    def __init__(self, num_tasks: int, units: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_tasks = check_count("num_tasks", num_tasks)
        self.units = check_count("units", units)

    def build(self, input_shape: tuple[int | None, ...], *args: Any) -> None:
        width = input_shape[-1] or 0
        # Glorot's range for one task. From the whole shape, Keras would take T for the size of a
        # convolution.
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
