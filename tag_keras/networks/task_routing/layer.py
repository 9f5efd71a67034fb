"""The Task Routing layer: each task uses some of the channels, and a mask says which."""

import random
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tag_keras.utils.checks import check, check_choice, check_count, check_number, check_seed

Mode = Literal["partition", "reference"]


def routing_mask(
    num_tasks: int, channels: int, sigma: float = 0.5, mode: Mode = "partition", seed: int = 0
) -> NDArray[np.float32]:
    """Which channels each task uses (Task Routing; Strezoski, van Noord and Worring 2019).

    arXiv 1903.12117. The authors explain `sigma` in one way and compute it in another:

    - `"partition"`, as explained: all tasks share `round(sigma * channels)` channels. The others
      belong to one task each, at random and as evenly as possible: the first tasks get one more.
      1 is hard sharing, 0 is a network per task.
    - `"reference"`, as in their code: each task lacks `int(sigma * channels)` channels, drawn at
      random for each task. 0 is hard sharing.

    Args:
        num_tasks: Number of tasks, T.
        channels: Number of channels, C.
        sigma: Share of the channels, from 0 to 1.
        mode: `"partition"` or `"reference"`.
        seed: Seed of the draw.

    Returns:
        Array (T, C) of 0 and 1.

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.

    Example:

    ```python
    mask = routing_mask(3, 64, sigma=0.5)
    mask.sum(1)  # 43, 43, 42: 32 that all have, and 11, 11, 10 of their own
    ```
    """
    check_routing(num_tasks, sigma, mode)
    check_count("channels", channels)
    generator = np.random.default_rng(check_seed(seed))
    mask = np.zeros((num_tasks, channels), "float32")
    if mode == "partition":
        order = generator.permutation(channels)
        shared = round(sigma * channels)
        mask[:, order[:shared]] = 1
        for task, own in enumerate(np.array_split(order[shared:], num_tasks)):
            mask[task, own] = 1
    else:
        for row in mask:
            row[generator.permutation(channels)[int(sigma * channels) :]] = 1
    check(
        bool(mask.any(axis=1).all()),
        f"Some of the {num_tasks} tasks would have none of {channels} channels. Use more channels, "
        f"or a `sigma` nearer to {'1' if mode == 'partition' else '0'}",
        sigma=sigma,
        mode=mode,
    )
    return mask


def check_routing(num_tasks: int, sigma: float, mode: Mode) -> None:
    """Checks the arguments of a routing mask before the number of channels is known."""
    check_count("num_tasks", num_tasks)
    check_choice("mode", mode, ("partition", "reference"))
    check_number("sigma", sigma, "from 0 to 1", lambda number: 0 <= number <= 1)
    check(
        mode == "partition" or sigma < 1,
        '`sigma` should be below 1 in the mode "reference", where it is the part of the channels '
        "that a task goes without",
        sigma=sigma,
    )


def mask_seed(seed: int | None) -> int:
    """Returns a checked seed; for `None`, one that `keras.utils.set_random_seed` determines."""
    return random.randrange(2**31) if seed is None else check_seed(seed)


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskRouting(keras.layers.Layer):  # type: ignore[misc]
    """Task Routing layer (TRL; Strezoski, van Noord and Worring 2019, arXiv 1903.12117).

        output[..., c] = inputs[..., c] * mask[task, c]

    Put the layer behind a convolution and its batch normalization, before the activation. The mask
    is drawn once, never trained, and saved with the model. A channel that a task does not use is 0
    for this task, and gets no gradient from it. But weight decay and momentum still move the
    kernels of all channels, and batch normalization updates the moving statistics of all channels.

    Args:
        num_tasks: Number of tasks, T.
        sigma: Share of channels that all tasks use (`"partition"`; the others belong to one task
            each), or that each task lacks (`"reference"`).
        mode: `"partition"` as the authors explain it, or `"reference"` as they compute it.
        seed: Seed of the mask. By default `keras.utils.set_random_seed` determines it.
        data_format: `"channels_last"` or `"channels_first"`. Defaults to Keras' image data format.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor (B, ..., C), or (B, C, ...) with the channels first.
        task_ids: Indices of tasks, from 0 to T - 1: one for all examples, or (B,), one for each.

    Returns:
        Tensor with the shape of `inputs`.

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.

    Example:

    ```python
    routing = tag_keras.TaskRouting(num_tasks=3, sigma=0.5)
    x = keras.random.normal((2, 8, 8, 64))
    of_task_1 = routing(x, task_ids=1)
    of_tasks_0_and_2 = routing(x, task_ids=np.array([0, 2]))
    ```
    """

    def __init__(
        self,
        num_tasks: int,
        sigma: float = 0.5,
        mode: Mode = "partition",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_routing(num_tasks, sigma, mode)
        self.num_tasks, self.sigma, self.mode = int(num_tasks), float(sigma), mode
        self.seed = mask_seed(seed)
        self.data_format = keras.backend.image_data_format() if data_format is None else data_format
        check_choice("data_format", self.data_format, ("channels_last", "channels_first"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1 if self.data_format == "channels_last" else 1]
        mask = routing_mask(self.num_tasks, channels or 0, self.sigma, self.mode, self.seed)
        self.mask = self.add_weight(
            shape=mask.shape,
            initializer=lambda shape, dtype: tf.constant(mask, dtype),
            trainable=False,
            name="mask",
        )

    def call(self, inputs: tf.Tensor, task_ids: Any) -> tf.Tensor:
        if isinstance(task_ids, int):
            check(
                0 <= task_ids < self.num_tasks,
                f"`task_ids` should be from 0 to {self.num_tasks - 1}",
                task_ids=task_ids,
            )
        mask = tf.gather(tf.convert_to_tensor(self.mask), tf.cast(task_ids, "int32"))
        # The mask is (C,) for one task, and (B, C) for a task of each example.
        examples, channels = [-1] * (mask.shape.rank - 1), mask.shape[-1]
        pixels = [1] * (inputs.shape.rank - 2)
        if self.data_format == "channels_last":
            return inputs * tf.reshape(mask, [*examples, *pixels, channels])
        return inputs * tf.reshape(mask, [*examples, channels, *pixels])

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], *args: Any
    ) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("num_tasks", "sigma", "mode", "seed", "data_format")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
