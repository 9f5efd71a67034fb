"""Compiles, trains and evaluates a model that gives a dict of predictions by task."""

import contextlib
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import examples_seen, forget_layer, track_loss
from tag_keras.backend.multi_worker import MultiWorkerModel
from tag_keras.backend.optimizers import exclude_from_weight_decay
from tag_keras.backend.replicas import num_replicas, sum_over_replicas
from tag_keras.loss_weighting.base import LossWeighting, weights_batches
from tag_keras.multitask import task_metrics
from tag_keras.multitask.task_losses import TaskLosses, of_one_replica, of_whole_batch
from tag_keras.utils.checks import check, implements
from tag_keras.utils.labelled_data import check_batched, check_weights
from tag_keras.utils.tasks import check_agreement, metrics_by_task, select_labels, select_weights


class CompiledMethods(keras.layers.Layer):  # type: ignore[misc]
    """Layer that holds the loss weighting and the gradient method of a compiled model.

    A built model takes no new layers, and `compile` may come later. So the model has this layer
    from the start, which always takes new layers. Their weights are saved with the model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Keras would lock a layer that it has built.
        self.built = True

    def put(self, name: str, method: Any, tasks: Any) -> None:
        """Replaces the layer in the attribute `name` by a copy of `method`.

        Two models, or two calls of `compile`, may get the same object: each has its own copy.

        Args:
            name: "loss_weighting" or "gradient_method".
            method: Layer whose `start` creates its weights; `None` for no method.
            tasks: Argument of `start`: the number of tasks, or their names.
        """
        if (old := getattr(self, name, None)) is not None:
            delattr(self, name)
            forget_layer(self, old)
        if method is not None:
            copy = type(method).from_config(method.get_config())
            copy.start(tasks)
            setattr(self, name, copy)


class _TellMissingLabels(keras.callbacks.Callback):  # type: ignore[misc]
    """Warns at the end of an epoch of tasks that had no label in it."""

    def __init__(self, trained: "TaskTrainer") -> None:
        super().__init__()
        self._trained = trained
        self._without: list[str] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._without = None

    def on_test_begin(self, logs: Any = None) -> None:
        # Validation resets what was counted.
        if self._without is None:
            self._without = self._trained.tasks_without_labels()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.on_test_begin()
        self._trained.tell_missing_labels("training", self._without or [])


class TaskTrainer(MultiWorkerModel):
    """Compiles, trains and evaluates by task: the `Trainer` of a model with several tasks.

    Losses, labels, sample weights, metrics and logs are dicts by task. A subclass sets `tasks` and
    `compiled_methods`, and its `call` gives a dict of predictions by task.
    """

    tasks: tuple[str, ...]
    compiled_methods: CompiledMethods
    # `compile` sets it. Keras reports a model that is trained before that.
    task_losses: Any = None
    # Whether `evaluate` or `test_on_batch` runs.
    _evaluates = False
    # The stages, training and evaluation, that tasks were told to lack labels in.
    _told: frozenset[str] = frozenset()

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
        has_weights = implements(loss_weighting, LossWeighting, "task_weights")
        check(
            loss_weighting is None or has_weights or weights_batches(loss_weighting),
            "`loss_weighting` should be a weighting, such as `tag_keras.UncertaintyWeighting()`",
            loss_weighting=loss_weighting,
        )
        given = {
            "metrics": metrics_by_task("metrics", metrics, self.tasks),
            "weighted_metrics": metrics_by_task("weighted_metrics", weighted_metrics, self.tasks),
        }
        check_agreement(self.tasks, {"loss": loss}, {"loss_weights": loss_weights, **given})
        # Checks the losses before the model changes.
        TaskLosses(self.tasks, loss, loss_weights)
        by_output = task_metrics.by_output(**given)
        super().compile(optimizer=optimizer, weighted_metrics=by_output, **kwargs)
        # A namespace: Keras would take metrics in a dict for layers, and log them twice.
        self._metrics_given = types.SimpleNamespace(**given)
        self.loss = loss
        self.compiled_methods.put("loss_weighting", loss_weighting, len(self.tasks))
        if self.loss_weighting is not None:
            exclude_from_weight_decay(self.optimizer, self.loss_weighting.trainable_variables)
        self.task_losses = TaskLosses(self.tasks, loss, loss_weights, self.loss_weighting)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics: list[keras.metrics.Metric] = super().metrics
        if self.task_losses is None:
            return metrics
        # Evaluation uses no weights of the losses, so its logs leave them out.
        weights = [] if self._evaluates else self.task_losses.weight_trackers
        return [*metrics, *self.task_losses.trackers, *weights]

    @property
    def loss_weighting(self) -> LossWeighting | None:
        """The model's own copy of the loss weighting in `compile`, or `None`."""
        return getattr(self.compiled_methods, "loss_weighting", None)

    @property
    def gradient_method(self) -> Any:
        """The model's own copy of the gradient method in `compile`, or `None`."""
        return getattr(self.compiled_methods, "gradient_method", None)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        # After the first call, which may create variables.
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
        """Adds a batch to the metrics and returns the logs; `loss` is this replica's share."""
        size = tf.cast(tf.shape(y_pred[self.tasks[0]])[0], "float32")
        # Keras weighs each replica's share by its number of examples. Here all count the same.
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
        """Joint loss: weighted sum of the tasks' losses, plus the model's own losses."""
        losses, labels = self.task_losses(y, y_pred, sample_weight)
        joint = self.task_losses.joint(losses, labels)
        self.task_losses.track(losses, labels, training)
        if training:
            self.task_losses.update(losses, labels)
        return tf.add_n([joint, *self.own_losses()])

    def check_data(self, method: str, x: Any, y: Any, options: Mapping[str, Any]) -> None:
        if hasattr(x, "element_spec"):
            check_batched("`x`", x)
        # Keras would tell this with all the values of the arrays.
        check_weights(f"`{method}`", y, options.get("sample_weight"))
        validation = options.get("validation_data")
        if isinstance(validation, tuple | list) and len(validation) == 3:
            check_weights("`validation_data`", *validation[1:])

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self._evaluating():
            logs = super().evaluate(*args, **kwargs)
        self.tell_missing_labels("evaluation", self.tasks_without_labels())
        return logs

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
        results = task_metrics.logs(super().get_metrics_result())
        # Without any label a total of 0 would pass for the best.
        seen = tf.add_n([tf.convert_to_tensor(one.count) for one in self.task_losses.trackers])
        return {**results, "loss": tf.where(seen > 0, results["loss"], float("nan"))}

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        return [*super().own_callbacks(), _TellMissingLabels(self)]

    def tasks_without_labels(self) -> list[str]:
        """The tasks that had no label since the metrics were reset; none if there was no batch."""
        if not examples_seen(self):
            return []
        pairs = zip(self.tasks, self.task_losses.labels_seen(), strict=True)
        return [task for task, number in pairs if not number]

    def tell_missing_labels(self, stage: str, without: Sequence[str]) -> None:
        """Warns, once for each stage, of the tasks `without` labels."""
        if without and stage not in self._told:
            self._told |= {stage}
            warnings.warn(
                f"The {stage} data have no label of the tasks {without}: all are NaN or have the "
                "sample weight 0. The losses and metrics of these tasks are NaN, and the total "
                "loss leaves them out.",
                stacklevel=3,
            )

    def own_losses(self) -> list[tf.Tensor]:
        """This replica's shares of the losses that layers add, such as regularisers."""
        return [of_one_replica(loss) for loss in self.losses]

    def compiled_for(self, task: str) -> dict[str, Any]:
        """The `loss`, `metrics` and `weighted_metrics` of a task, as `compile` got them."""
        given = {"loss": self.loss, **vars(self._metrics_given)}
        return {
            name: value.get(task) if isinstance(value, Mapping) else value
            for name, value in given.items()
        }

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        given = {**vars(self._metrics_given), "loss": self.loss}
        if self.loss_weighting is not None:
            given["loss_weighting"] = self.loss_weighting
        serialize = keras.saving.serialize_keras_object
        config |= {name: serialize(value) for name, value in given.items()}
        weights = zip(self.tasks, self.task_losses.weights, strict=True)
        return {**config, "loss_weights": {task: float(weight) for task, weight in weights}}

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config), **more)
        if self.built:
            self.optimizer.build(self.trainable_variables)
