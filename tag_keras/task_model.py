"""A Keras model over an encoder and a head per task: its losses, labels and logs by task."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multi_worker import MultiWorkerModel
from tag_keras.task_losses import TaskLosses, of_one_replica
from tag_keras.tasks import (
    check_agreement,
    check_task_names,
    metrics_by_task,
    select_labels,
    select_weights,
)


def input_signature(encoder: keras.layers.Layer) -> list[keras.InputSpec] | None:
    """What an encoder with one declared input takes; `None` where Keras has to find out."""
    inputs = getattr(encoder, "inputs", None) or []
    if len(inputs) != 1 or isinstance(getattr(encoder, "input", None), Mapping):
        return None
    return [keras.InputSpec(shape=(None, *inputs[0].shape[1:]), dtype=inputs[0].dtype)]


class TaskModel(MultiWorkerModel):
    """What of `MultiTaskModel` has nothing to do with measuring affinities.

    Args:
        encoder: Layer or model, from the inputs to one feature tensor, or to a dict of one
            feature tensor per task.
        heads: Layer or model by task, from the features to the prediction of the task.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If `heads` is not a dict of layers with at least one task.
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        heads: Mapping[str, keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        layers = [encoder, *heads.values()] if isinstance(heads, Mapping) else [heads]
        if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(
                "`encoder` should be a layer and `heads` a dict of layers by task. "
                f"Received: encoder={encoder!r}, heads={heads!r}."
            )
        self.tasks = check_task_names(list(heads))
        self.encoder = encoder
        self.heads = dict(heads)
        # Set by `compile`; Keras reports a model that is trained before.
        self._task_losses: Any = None

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables of the encoder."""
        return list(self.encoder.trainable_variables)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        features = self.encoder(inputs, training=training)
        if not isinstance(features, Mapping):
            features = dict.fromkeys(self.tasks, features)
        elif missing := [task for task in self.tasks if task not in features]:
            raise ValueError(
                f"The encoder should give features for every task. Missing: {missing}. "
                f"Received: {sorted(features)}."
            )
        return {task: self.heads[task](features[task], training=training) for task in self.tasks}

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        metrics = metrics_by_task("metrics", metrics, self.tasks)
        weighted_metrics = metrics_by_task("weighted_metrics", weighted_metrics, self.tasks)
        optional = {
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        check_agreement(self.tasks, {"loss": loss}, optional)
        task_losses = TaskLosses(self.tasks, loss, loss_weights)
        super().compile(
            optimizer=optimizer, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs
        )
        self.loss = loss
        self._task_losses = task_losses

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics: list[keras.metrics.Metric] = super().metrics
        return metrics if self._task_losses is None else [*metrics, *self._task_losses.trackers]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The joint loss: the weighted sum of the tasks' losses, and the model's own losses."""
        losses = self._task_losses(y, y_pred, sample_weight)
        self._task_losses.track(losses, tf.shape(y_pred[self.tasks[0]])[0])
        return tf.add_n([self._task_losses.joint(losses), *self._own_losses()])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        if sample_weight is not None:
            sample_weight = select_weights(sample_weight, self.tasks)
        labels = select_labels(y, self.tasks)
        results: dict[str, Any] = super().compute_metrics(x, labels, y_pred, sample_weight)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        results: dict[str, Any] = super().get_metrics_result()
        if len(self.tasks) > 1:
            return results
        # Keras names the metrics of several outputs after them, those of one output not.
        (task,) = self.tasks
        kept = ("loss", f"{task}_loss")
        return {name if name in kept else f"{task}_{name}": results[name] for name in results}

    def _own_losses(self) -> list[tf.Tensor]:
        """Regularisers and what layers added, per replica."""
        return [of_one_replica(loss) for loss in self.losses]

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Exports as `keras.Model.export` does, with the data type of the encoder's inputs."""
        if kwargs.get("input_signature") is None:
            kwargs["input_signature"] = input_signature(self.encoder)
        super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            # Pairs, because the order of the tasks is to be kept.
            "heads": [[task, serialize(self.heads[task])] for task in self.tasks],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskModel":
        def deserialize(layer: Any) -> Any:
            return keras.saving.deserialize_keras_object(layer, custom_objects)

        heads = {task: deserialize(head) for task, head in config["heads"]}
        return cls(**{**config, "encoder": deserialize(config["encoder"]), "heads": heads})

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        losses = self._task_losses
        weights = {task: float(w) for task, w in zip(self.tasks, losses.weights, strict=True)}
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**config, "loss": loss, "loss_weights": weights}

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config), **more)
        if self.built:
            self.optimizer.build(self.trainable_variables)
