"""Training and evaluation by task: losses, labels, weights and logs are dicts by task."""

import contextlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import keras
import tensorflow as tf

from tag_keras.backend.layers import forget_layer, track_loss
from tag_keras.backend.multi_worker import MultiWorkerModel
from tag_keras.backend.optimizers import exclude_from_weight_decay
from tag_keras.backend.replicas import num_replicas, sum_over_replicas
from tag_keras.loss_weighting.base import LossWeighting
from tag_keras.multitask import task_metrics
from tag_keras.multitask.task_losses import TaskLosses, of_one_replica, of_whole_batch
from tag_keras.utils.checks import check, implements
from tag_keras.utils.tasks import check_agreement, metrics_by_task, select_labels, select_weights

Method = TypeVar("Method", bound=keras.layers.Layer)


class CompiledMethods(keras.layers.Layer):  # type: ignore[misc]
    """Holds what `compile` gets and what has weights: a loss weighting and a gradient method.

    A model that is built takes no more layers. This one, which is a part of the model from its
    start, is never built by Keras and always does; so the weights are saved with the model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def put(self, name: str, method: Method | None, tasks: Any) -> Method | None:
        """Replaces the method of that name by a copy of another one, with weights of its own.

        A copy, because one object may be given to two models, or to `compile` twice, and each of
        them starts anew.

        Args:
            name: Name of the attribute that holds it.
            method: Layer with a configuration, and with a method `start` that creates its weights;
                `None` for no method.
            tasks: What its `start` takes: the number of tasks, or their names.

        Returns:
            The copy.
        """
        if (old := getattr(self, name, None)) is not None:
            delattr(self, name)
            forget_layer(self, old)
        if method is None:
            return None
        copy: Method = type(method).from_config(method.get_config())
        copy.start(tasks)
        setattr(self, name, copy)
        return copy


class TaskTrainer(MultiWorkerModel):
    """A Keras model that gives a dict of predictions by task, whatever it consists of."""

    # Set by the subclass.
    tasks: tuple[str, ...]
    compiled_methods: CompiledMethods
    # Set by `compile`; Keras reports a model that is trained before.
    task_losses: Any = None
    _evaluates = False

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *,
        loss_weighting: LossWeighting | None = None,
        **kwargs: Any,
    ) -> None:
        check(
            loss_weighting is None or implements(loss_weighting, LossWeighting, "task_weights"),
            "`loss_weighting` should be a weighting, such as `tag_keras.UncertaintyWeighting()`",
            loss_weighting=loss_weighting,
        )
        metrics = metrics_by_task("metrics", metrics, self.tasks)
        weighted_metrics = metrics_by_task("weighted_metrics", weighted_metrics, self.tasks)
        optional = {
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        check_agreement(self.tasks, {"loss": loss}, optional)
        TaskLosses(self.tasks, loss, loss_weights)
        by_output = task_metrics.by_output(metrics, weighted_metrics)
        super().compile(optimizer=optimizer, weighted_metrics=by_output, **kwargs)
        # Keras would take metrics in a dict for parts of the model, and log them once more.
        self._metrics_given = types.SimpleNamespace(
            metrics=metrics, weighted_metrics=weighted_metrics
        )
        self.loss = loss
        weighting = self.compiled_methods.put("loss_weighting", loss_weighting, len(self.tasks))
        if weighting is not None:
            exclude_from_weight_decay(self.optimizer, weighting.trainable_variables)
        self.task_losses = TaskLosses(self.tasks, loss, loss_weights, weighting)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics: list[keras.metrics.Metric] = super().metrics
        if self.task_losses is None:
            return metrics
        # Evaluating changes no weights of losses, and tells nothing of them.
        weights = [] if self._evaluates else self.task_losses.weight_trackers
        return [*metrics, *self.task_losses.trackers, *weights]

    @property
    def loss_weighting(self) -> LossWeighting | None:
        """The model's own copy of the loss weighting that it was compiled with."""
        return getattr(self.compiled_methods, "loss_weighting", None)

    @property
    def gradient_method(self) -> Any:
        """The model's own copy of the gradient method that it was compiled with, or `None`."""
        return getattr(self.compiled_methods, "gradient_method", None)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        # Only now are all there: the first call may have made them.
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self.logs_after(x, y, y_pred, sample_weight, loss)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.logs_after(x, y, y_pred, sample_weight, loss)

    def logs_after(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, loss: Any
    ) -> dict[str, Any]:
        """The logs after one more batch, given this replica's share of the joint loss."""
        size = tf.cast(tf.shape(y_pred[self.tasks[0]])[0], "float32")
        # Keras weighs each replica's share by its number of examples. But all count as much.
        (size,) = sum_over_replicas([size])
        track_loss(self, of_whole_batch(loss), size / num_replicas())
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The joint loss: the weighted sum of the tasks' losses, and the model's own losses."""
        losses, labels = self.task_losses(y, y_pred, sample_weight)
        joint = self.task_losses.joint(losses, labels)
        self.task_losses.track(losses, labels, training)
        if training:
            self.task_losses.update(losses, labels)
        return tf.add_n([joint, *self.own_losses()])

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self._evaluating():
            return super().evaluate(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        with self._evaluating():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        before, self._evaluates = self._evaluates, True
        try:
            yield
        finally:
            self._evaluates = before

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        labels, weights = select_labels(y, self.tasks), select_weights(sample_weight, self.tasks)
        outputs = task_metrics.outputs(labels, y_pred, weights)
        results: dict[str, Any] = super().compute_metrics(x, *outputs)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        return task_metrics.logs(super().get_metrics_result(), self.tasks)

    def own_losses(self) -> list[tf.Tensor]:
        """Regularisers and what layers added, per replica."""
        return [of_one_replica(loss) for loss in self.losses]

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        losses = self.task_losses
        weights = {task: float(w) for task, w in zip(self.tasks, losses.weights, strict=True)}
        loss = keras.saving.serialize_keras_object(self.loss)
        metrics = {
            name: keras.saving.serialize_keras_object(given)
            for name, given in vars(self._metrics_given).items()
        }
        config = {**config, **metrics, "loss": loss, "loss_weights": weights}
        if self.loss_weighting is not None:
            config["loss_weighting"] = keras.saving.serialize_keras_object(self.loss_weighting)
        return config

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config), **more)
        if self.built:
            self.optimizer.build(self.trainable_variables)
