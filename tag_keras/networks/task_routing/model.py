"""Task Routing for many tasks of one kind, one of which is trained at each step."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.backend.layers import track_loss
from tag_keras.multitask import task_metrics
from tag_keras.multitask.task_losses import TaskLosses
from tag_keras.networks.task_routing.encoder import check_trunk, features_by_task
from tag_keras.networks.task_routing.layer import mask_seed
from tag_keras.networks.task_routing.stacked_tasks import (
    LossByTask,
    TaskDense,
    draw_task,
    stack_labels,
    stack_weights,
    stacked_losses,
)
from tag_keras.utils.checks import check, check_choice
from tag_keras.utils.tasks import check_task_names

# The loss and the metrics that all tasks share know them as one task of this name.
_ANY = "any"


@keras.saving.register_keras_serializable(package="tag_keras")
class TaskRoutingModel(keras.Model):  # type: ignore[misc]
    """Trains a network with Task Routing on one task at each step (Strezoski et al. 2019).

    arXiv 1903.12117. This model is for many tasks of one kind, such as attributes of images. They
    have one loss, and their heads are one layer, so that the graph has the same size for 2 tasks
    and for 300. Each step draws one of the tasks that have labels in the batch, and uses only the
    channels, the head and the loss of this task. With `sampling="all"` it trains on the mean loss
    of all tasks. A NaN is a missing label, as for `MultiTaskModel`. An optimizer with a memory,
    such as Adam, also moves the weights of the other tasks, by what it remembers.

    Args:
        trunk: Functional model from `[inputs, task ids (B,)]` to features (B, F), such as from
            `routed_resnet` or `routed_vgg11`.
        tasks: Task names, in the order of the masks, of the labels and of the predictions.
        units: Number of values of each prediction.
        sampling: `"one"` to train one task at each step, or `"all"`.
        seed: Seed of the draws. By default `keras.utils.set_random_seed` determines it.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: Tensor (B, ...).
        training: Whether the model is being trained.

    Returns:
        Predictions (B, T, units).

    Raises:
        ValueError: If the trunk does not take inputs and task ids, or an argument is out of range.

    Example:

    ```python
    trunk = tag_keras.routed_vgg11(num_tasks=312, input_shape=(64, 64, 3))
    model = tag_keras.TaskRoutingModel(trunk, attributes)  # 312 names
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(images, labels)  # labels (B, 312), or a dict of (B,) by attribute
    logits = model.predict(images)[:, attributes.index("red_wing")]
    ```
    """

    def __init__(
        self,
        trunk: keras.Model,
        tasks: Sequence[str],
        units: int = 1,
        sampling: Literal["one", "all"] = "one",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # The trunk and the head cast their inputs by their own dtype policies.
        super().__init__(**{"autocast": False, **kwargs})
        self.tasks = check_task_names(tasks)
        check_trunk(trunk, len(self.tasks))
        check_choice("sampling", sampling, ("one", "all"))
        self.trunk, self.sampling, self.seed = trunk, sampling, mask_seed(seed)
        self.head = TaskDense(len(self.tasks), units, dtype="float32")
        self.head.build(trunk.output_shape)
        # A weight, because Keras does not save a SeedGenerator.
        self._draws = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="draws"
        )
        self._loss_by_task = LossByTask(len(self.tasks), name="loss_by_task")
        # Set by `compile`.
        self._losses_of_any: Any = None
        # After a call without data the model can be saved and backed up at once.
        self(keras.KerasTensor(trunk.inputs[0].shape, trunk.inputs[0].dtype))

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: Optimizer, or its name.
            loss: One loss for all tasks.
            metrics: List of metrics. Each is over all labels of all tasks that are not missing.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If there is not one loss, if the metrics are not a list, if there are
                weights of tasks, or if the strategy has several replicas.
        """
        names = ("loss_weights", "weighted_metrics")
        weights = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        is_one = loss is not None and not isinstance(loss, Mapping | list | tuple)
        check(
            is_one and isinstance(metrics, list | tuple | None) and not weights,
            "`loss` should be one loss, and `metrics` a list, for all tasks alike. For tasks of "
            "several kinds or weights, use MultiTaskModel with task_routing_encoder",
            loss=loss,
            metrics=metrics,
            **weights,
        )
        replicas = self.distribute_strategy.num_replicas_in_sync
        remedy = "For several, use MultiTaskModel with task_routing_encoder"
        check(replicas == 1, f"TaskRoutingModel trains on one device. {remedy}", replicas=replicas)
        losses = TaskLosses((_ANY,), loss)
        by_output = task_metrics.by_output({_ANY: metrics}, None) or {}
        super().compile(optimizer, **{**kwargs, "weighted_metrics": by_output.get(_ANY)})
        # Keras would take a list of metrics for parts of the model, and log them a second time.
        self._metrics_given = types.SimpleNamespace(metrics=metrics)
        self._losses_of_any, self.loss = losses, loss

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self._predict_tasks(inputs, tf.range(len(self.tasks)), training)

    def _predict_tasks(self, inputs: tf.Tensor, ids: tf.Tensor, training: bool | None) -> tf.Tensor:
        """Predictions (B, K, units) for the K tasks `ids`."""
        if training:
            # In one pass, so that batch normalization sees all tasks at once.
            outputs = self.head(features_by_task(self.trunk, inputs, ids, True), ids)
        else:
            # One task after the other, because T batches at once may not fit in memory.
            size = tf.shape(inputs)[:1]
            outputs = tf.map_fn(
                lambda one: self.head(
                    self.trunk([inputs, tf.fill(size, one)], training=False), one
                ),
                ids,
                fn_output_signature=self.head.compute_dtype,
            )
        return tf.transpose(outputs, [1, 0, 2])

    def train_step(self, data: Any) -> dict[str, Any]:
        x, labels, weights = self._unpacked(data)
        ids = self._sampled_tasks(labels, weights)
        y, weights = (tf.gather(one, ids, axis=1) for one in (labels, weights))
        with tf.GradientTape() as tape:
            y_pred = self._predict_tasks(x, ids, training=True)
            loss = self._joint_loss(y, y_pred, weights, ids)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._metrics_of(y, y_pred, weights)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, weights = self._unpacked(data)
        y_pred = self(x, training=False)
        self._joint_loss(y, y_pred, weights, tf.range(len(self.tasks)))
        return self._metrics_of(y, y_pred, weights)

    def _unpacked(self, data: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Inputs, labels (B, T, ...) and weights (B, T)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = stack_weights(sample_weight, self.tasks, tf.shape(x)[0])
        return x, stack_labels(y, self.tasks), weights

    def _sampled_tasks(self, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Indices (K,) of the tasks that the next step trains."""
        if self.sampling == "all":
            return tf.range(len(self.tasks))
        draw = tf.convert_to_tensor(self._draws)
        self._draws.assign(draw + 1)
        seed = tf.stack([tf.constant(self.seed, draw.dtype), draw])
        return draw_task(seed, labels, weights)

    def _joint_loss(
        self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor, ids: tf.Tensor
    ) -> tf.Tensor:
        """Mean loss of the tasks that have labels, plus the model's own losses."""
        losses, numbers = stacked_losses(self._losses_of_any, labels, predictions, weights)
        self._loss_by_task.update_state(ids, losses, numbers)
        with_labels = tf.reduce_sum(tf.cast(numbers > 0, losses.dtype))
        mean = tf.math.divide_no_nan(tf.reduce_sum(losses), with_labels)
        loss = tf.add_n([mean, *self.losses])
        track_loss(self, loss, tf.shape(labels)[0])
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: tf.Tensor, sample_weight: Any = None
    ) -> dict[str, Any]:
        weights = stack_weights(sample_weight, self.tasks, tf.shape(y_pred)[0])
        return self._metrics_of(stack_labels(y, self.tasks), y_pred, weights)

    def _metrics_of(self, y: tf.Tensor, y_pred: tf.Tensor, weights: tf.Tensor) -> dict[str, Any]:
        """Metrics over all examples and tasks, from labels and predictions (B, K, ...)."""
        rows = (tf.reshape(one, [-1, *one.shape[2:]]) for one in (y, y_pred, weights))
        results: dict[str, Any] = super().compute_metrics(None, *rows)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        results = super().get_metrics_result()
        # Only `evaluate` logs the losses of the tasks: here each would make the graph larger.
        return {name: one for name, one in results.items() if name != self._loss_by_task.name}

    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does, with the loss of each task in the logs.

        Args:
            *args: Arguments of `keras.Model.evaluate`.
            return_dict: Whether to return a dict by name, or a list.
            **kwargs: Further arguments of `keras.Model.evaluate`.
        """
        logs = super().evaluate(*args, return_dict=True, **kwargs)
        losses = self._loss_by_task.result().numpy()
        for task, loss in zip(self.tasks, losses, strict=True):
            logs[f"{task}_loss"] = float(loss)
        return logs if return_dict else list(logs.values())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            "tasks": list(self.tasks),
            "units": self.head.units,
            "sampling": self.sampling,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskRoutingModel":
        trunk = keras.saving.deserialize_keras_object(config["trunk"], custom_objects)
        return cls(**{**config, "trunk": trunk})

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        serialize = keras.saving.serialize_keras_object
        config.pop("weighted_metrics")
        metrics = self._metrics_given.metrics
        return {**config, "loss": serialize(self.loss), "metrics": serialize(metrics)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)
