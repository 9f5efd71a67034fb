"""Networks with Task Routing that all tasks go through together, as encoders."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in
from tag_keras.networks.task_routing.layer import Mode, TaskRouting
from tag_keras.networks.task_routing.trunks import routed_resnet
from tag_keras.utils.checks import check, check_input_shape
from tag_keras.utils.tasks import check_task_names


@keras.saving.register_keras_serializable(package="tag_keras")
class RoutedEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Runs a network with Task Routing for all tasks at once (Strezoski et al. 2019).

    arXiv 1903.12117. The layer repeats the batch for each task, and the network takes all copies in
    one pass. So the graph does not grow with the number of tasks, and batch normalization sees the
    examples of all tasks.

    Args:
        trunk: Functional model from `[inputs, task ids (B,)]` to features, such as from
            `routed_resnet` or `routed_vgg11`.
        tasks: Task names, in the order of the masks.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor (B, ...).
        training: Whether the model is being trained.

    Returns:
        Dict of features (B, ...) by task, as `MultiTaskModel` takes it from an encoder.

    Raises:
        ValueError: If the trunk does not take [inputs, task ids] or has another number of tasks.

    Example:

    ```python
    trunk = tag_keras.routed_vgg11(num_tasks=2, input_shape=(32, 32, 3))
    encoder = tag_keras.RoutedEncoder(trunk, ["smiling", "young"])
    heads = {task: keras.layers.Dense(1) for task in encoder.tasks}
    model = tag_keras.MultiTaskModel(encoder, heads)
    ```
    """

    def __init__(self, trunk: keras.Model, tasks: Sequence[str], **kwargs: Any) -> None:
        # The trunk casts its inputs by its own dtype policy.
        super().__init__(**{"autocast": False, **kwargs})
        self.tasks = check_task_names(tasks)
        check_trunk(trunk, len(self.tasks))
        self.trunk = trunk

    def build(self, input_shape: Any) -> None:
        """Does nothing: the trunk is built already.

        Args:
            input_shape: Shape of the inputs, which is not used.
        """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        ids = tf.range(len(self.tasks))
        features = features_by_task(self.trunk, inputs, ids, training)
        return dict(zip(self.tasks, tf.unstack(features, len(self.tasks)), strict=True))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            "tasks": list(self.tasks),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RoutedEncoder":
        trunk = keras.saving.deserialize_keras_object(config["trunk"], custom_objects)
        return cls(**{**config, "trunk": trunk})


def check_trunk(trunk: Any, num_tasks: int) -> None:
    """Raises a `ValueError` unless a network takes inputs and the ids of `num_tasks` tasks."""
    inputs = getattr(trunk, "inputs", None) or []
    check(
        len(inputs) == 2 and inputs[1].shape == (None,),
        "`trunk` should be a Functional model from [inputs, task ids], where the task ids are "
        'keras.Input((), dtype="int32")',
        trunk=trunk,
    )
    routed = {one.num_tasks for one in layers_in(trunk) if isinstance(one, TaskRouting)}
    check(
        routed <= {num_tasks},
        f"`tasks` should name as many tasks as `trunk` routes, {sorted(routed)}",
        num_tasks=num_tasks,
    )


def features_by_task(
    trunk: keras.Model, inputs: tf.Tensor, task_ids: tf.Tensor, training: bool | None
) -> tf.Tensor:
    """Features (K, B, ...) of inputs (B, ...) for K tasks, in one pass through the trunk."""
    count, size = tf.shape(task_ids)[0], tf.shape(inputs)[0]
    repeated = tf.tile(inputs, [count, *[1] * (len(inputs.shape) - 1)])
    ids = tf.reshape(tf.tile(task_ids[:, None], [1, size]), [-1])
    features = trunk([repeated, ids], training=training)
    return tf.reshape(features, [count, size, *features.shape[1:]])


def task_routing_encoder(
    tasks: Sequence[str],
    input_shape: tuple[int, int, int] = (32, 32, 3),
    depth: int | Sequence[int] = 18,
    widths: Sequence[int] = (64, 128, 256, 512),
    sigma: float = 0.5,
    mode: Mode = "partition",
    seed: int | None = None,
) -> keras.Model:
    """Task Routing: each task uses some channels of a ResNet (Strezoski et al. 2019).

    arXiv 1903.12117. At each step all tasks go through the network, in one batch that holds every
    example once for each task. `TaskRoutingModel` takes one task at each step instead.

    A step costs about 6 plain steps for nine tasks. A task has only some of the channels, so take a
    network that is wider than for hard sharing.

    Args:
        tasks: Task names.
        input_shape: Height, width and channels of the images.
        depth: 18 or 34, or the number of blocks of each stage.
        widths: Number of channels of each stage.
        sigma: Share of channels that all tasks use (`"partition"`) or each lacks (`"reference"`).
        mode: `"partition"` as the authors explain it, or `"reference"` as they compute it.
        seed: Seed of the masks, drawn by default.

    Returns:
        Functional model from images (B, H, W, channels) to a dict of features (B, widths[-1]) by
        task.

    Raises:
        ValueError: If an argument is out of range, or if a task would have no channel.

    Example:

    ```python
    tasks = ["smiling", "young"]
    encoder = tag_keras.task_routing_encoder(tasks, (64, 64, 3), widths=(16, 32, 64, 128))
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    ```
    """
    names = check_task_names(tasks)
    trunk = routed_resnet(len(names), input_shape, depth, widths, sigma, mode, seed)
    images = keras.Input(check_input_shape(input_shape))
    features = RoutedEncoder(trunk, names)(images)
    return keras.Model(images, features, name="task_routing_encoder")
