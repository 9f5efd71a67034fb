"""Cross-stitch networks: a network for each task, which take over features of one another."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.networks.parallel_layers import Build, side_by_side, start
from tag_keras.utils.checks import check, check_number, check_whole
from tag_keras.utils.tasks import check_task_names


@keras.saving.register_keras_serializable(package="tag_keras")
class CrossStitch(keras.layers.Layer):  # type: ignore[misc]
    """A task's part of a cross-stitch unit (Misra et al. 2016, arXiv 1604.03539, eq. 1).

        output = sum_j a_j x_j

    Here x_j are the features of task j, and the weights a_j (C,) have one value for each channel.
    A unit for T tasks is T of these layers.

    Args:
        task: Index of the task that the output is for.
        same_task: First weight of its own features. Those of the other tasks share the rest of 1.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensors (B, ..., C) of the T tasks.

    Returns:
        Tensor (B, ..., C).

    Raises:
        ValueError: If `same_task` is not from 0 to 1, if there are not more inputs than `task`, or
            if they have different shapes.

    Example:

    ```python
    x = [keras.random.normal((8, 16)), keras.random.normal((8, 16))]
    for_the_first_task = tag_keras.CrossStitch(task=0)(x)  # (8, 16)
    ```
    """

    def __init__(self, task: int, same_task: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task = check_whole("task", task)
        self.same_task = check_number(
            "same_task", same_task, "from 0 to 1", lambda number: 0 <= number <= 1
        )

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        number = len(input_shape)
        check(self.task < number, "`task` should be the index of an input", task=self.task)
        check(
            len({tuple(shape) for shape in input_shape}) == 1,
            "The inputs of `CrossStitch` should have the same shape",
            shapes=input_shape,
        )
        others = (1 - self.same_task) / max(number - 1, 1)
        weights = np.full((number, input_shape[0][-1] or 0), others)
        weights[self.task] = self.same_task if number > 1 else 1
        self.mixing = self.add_weight(
            shape=weights.shape, initializer=keras.initializers.Constant(weights), name="mixing"
        )

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        # An einsum would transpose the features, which takes several times as long.
        weights = tf.unstack(tf.convert_to_tensor(self.mixing))
        return tf.add_n([a * x for a, x in zip(weights, inputs, strict=True)])

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        return input_shape[0]

    def compute_mask(
        self, inputs: Sequence[tf.Tensor], mask: Sequence[tf.Tensor | None] | None
    ) -> tf.Tensor | None:
        # All networks have the same layers.
        return mask[self.task] if mask else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "task": self.task, "same_task": self.same_task}


def cross_stitch_encoder(
    tasks: Sequence[str],
    inputs: Sequence[int | None] | keras.Model,
    build_layers: Sequence[Build],
    same_task: float = 0.9,
) -> keras.Model:
    """Cross-stitch: each task has its network, stitched to the others (Misra et al. 2016).

    arXiv 1604.03539. After each part of the networks, a cross-stitch unit gives each task a sum of
    the features of all, weighted for each channel, which is where the next part goes on. The paper
    has two tasks and starts with the weights 0.9 and 0.1; with more tasks, the others share the
    rest of 1.

    The tasks share all but the weights of their own last units. Take it for a few tasks: each has a
    whole network, so a step costs as much as one network per task and the stitching. The paper
    starts from networks that were trained on their tasks alone.

    Args:
        tasks: Task names.
        inputs: Shape of an example, without the batch; or a Functional model whose output the
            networks see.
        build_layers: By part, a function that builds it: a layer or model from one tensor (B, ...)
            to one tensor (B, ..., C), a new one at each call.
        same_task: First weight of a task's own features.

    Returns:
        Functional model to a dict of features by task, with the shape of the last part's output.

    Raises:
        ValueError: If the inputs are no numbers, if there is no part, if a function builds no new
            layer or layers of different shapes, or if `same_task` is not from 0 to 1.

    Example:

    ```python
    parts = [lambda: keras.layers.Dense(32, "relu"), lambda: keras.layers.Dense(16, "relu")]
    encoder = tag_keras.cross_stitch_encoder(["depth", "normal"], (20,), parts)
    heads = {"depth": keras.layers.Dense(1), "normal": keras.layers.Dense(3)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """
    names = check_task_names(tasks)
    valid = isinstance(build_layers, list | tuple) and len(build_layers) > 0
    wanted = "`build_layers` should be a list with a function for each part"
    check(valid, wanted, build_layers=build_layers)
    first, x, made = start(inputs)
    features = [x] * len(names)
    for build in build_layers:
        outputs = side_by_side("build_layers", build, features, made)
        features = [CrossStitch(task, same_task)(outputs) for task in range(len(names))]
    by_task = dict(zip(names, features, strict=True))
    return keras.Model(first, by_task, name="cross_stitch_encoder")
