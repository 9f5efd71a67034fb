"""A Keras model over an encoder and a head per task: its losses, labels and logs by task."""

import types
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
import tensorflow as tf

from tag_keras.missing_labels import present, with_rank, without_nan
from tag_keras.multi_worker import MultiWorkerModel
from tag_keras.replicas import num_replicas, sum_over_replicas
from tag_keras.shared_variables import SharedVariables, check_functional, check_shared
from tag_keras.task_losses import TaskLosses, of_one_replica, of_whole_batch
from tag_keras.tasks import (
    check_agreement,
    check_task_names,
    metrics_by_task,
    select_labels,
    select_weights,
)


def input_signature(encoder: keras.layers.Layer) -> list[Any] | None:
    """What an encoder with declared inputs takes; `None` where Keras has to find out."""
    if not getattr(encoder, "inputs", None):
        return None

    def spec(tensor: keras.KerasTensor) -> keras.InputSpec:
        return keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)

    # A Sequential has one input, and no `input` before it is called.
    if len(encoder.inputs) == 1 and not isinstance(getattr(encoder, "input", None), Mapping):
        return [spec(encoder.inputs[0])]
    return [keras.tree.map_structure(spec, encoder.input)]


def _symbolic_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    # Not the tensor itself, which would make the multi-task model a part of the model's graph.
    return keras.KerasTensor(tensor.shape, tensor.dtype, sparse=tensor.sparse)


# What the second and the third of the three outputs by task are called, which Keras has for the
# weighted metrics, and for the functions among those that are not weighted.
_WEIGHTED, _FUNCTION = "weighted\n", "function\n"


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
        # The encoder and the heads cast what they get as their own types say. A cast before, to
        # float16 under mixed precision, would lose digits that a float32 encoder takes.
        super().__init__(**{"autocast": False, **kwargs})
        layers = [encoder, *heads.values()] if isinstance(heads, Mapping) else [heads]
        if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(
                "`encoder` should be a layer and `heads` a dict of layers by task. "
                f"Received: encoder={encoder!r}, heads={heads!r}."
            )
        self.tasks = check_task_names(list(heads))
        self.encoder = encoder
        self.heads = dict(heads)
        self._sharing = SharedVariables(self.tasks)
        # Set by `compile`; Keras reports a model that is trained before.
        self._task_losses: Any = None

    @classmethod
    def from_functional(cls, model: keras.Model, shared: Any = None) -> Self:
        """Makes a multi-task model of any Functional model whose outputs are a dict by task.

        The layers and weights are those of `model`, not copies of them. It becomes the encoder,
        and gives every task its prediction; the heads do nothing. An affinity is measured on the
        shared variables: those that the outputs of more than one task depend on, wherever in the
        model they are.

        This is also the way for layers that the encoder has in common with a head, or two heads
        with each other: as parts of one Functional model they can be saved and loaded.

        Args:
            model: A Functional model, with a dict of one tensor by task as outputs.
            shared: What to measure affinities on instead: layers, names of layers, or variables;
                one, or a list of them. `shared_variables` tells what was found.

        Returns:
            A multi-task model, to be compiled.

        Raises:
            ValueError: If the model is not a Functional model with a dict of outputs, if no
                trainable variable is shared by two of them, or if `shared` holds something that
                is not in the model or cannot be trained.

        Example:

        ```python
        image = keras.Input((28, 28, 1))
        trunk = keras.layers.Flatten()(image)
        trunk = keras.layers.Dense(32, "relu", name="trunk")(trunk)
        branch = keras.layers.Dense(16, "relu", name="branch")(trunk)
        outputs = {
            "digit": keras.layers.Dense(10)(branch),
            "parity": keras.layers.Dense(1)(branch),
            "brightness": keras.layers.Dense(1)(trunk),
        }
        model = tag_keras.MultiTaskModel.from_functional(keras.Model(image, outputs))
        [variable.path for variable in model.shared_variables]  # of trunk, and of branch
        ```
        """
        check_functional(model)
        # The type of the output, because a head would cast a float32 output to float16 where
        # mixed precision is the default.
        heads = {
            task: keras.layers.Identity(dtype=tensor.dtype) for task, tensor in model.output.items()
        }
        instance = cls(model, heads)
        if shared is not None:
            instance._sharing.choose(model, shared)
        # Called once, on no data, it knows its shared variables, and can be saved and exported.
        instance(keras.tree.map_structure(_symbolic_input, model.input))
        check_shared(model, instance.shared_variables)
        return instance

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables of the encoder, those that more than one task depends on.

        All of them, if it gives one feature tensor for all tasks. Those of `from_functional`'s
        `shared`, if that was given.
        """
        return self._sharing.of(self.encoder)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, tf.Tensor]:
        if isinstance(inputs, Mapping):
            # An export gives it as a wrapper of a dict, which Keras would warn of.
            inputs = dict(inputs)
        features = self.encoder(inputs, training=training)
        if not isinstance(features, Mapping):
            features = dict.fromkeys(self.tasks, features)
        elif missing := [task for task in self.tasks if task not in features]:
            raise ValueError(
                f"The encoder should give features for every task. Missing: {missing}. "
                f"Received: {sorted(features)}."
            )
        else:
            self._sharing.see_inputs(inputs)
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
        by_output = _by_output(metrics or {}, weighted_metrics or {})
        super().compile(optimizer=optimizer, weighted_metrics=by_output or None, **kwargs)
        # Keras would take metrics in a dict for parts of the model, and log them once more.
        self._metrics_given = types.SimpleNamespace(
            metrics=metrics, weighted_metrics=weighted_metrics
        )
        self.loss = loss
        self._task_losses = task_losses

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        metrics: list[keras.metrics.Metric] = super().metrics
        return metrics if self._task_losses is None else [*metrics, *self._task_losses.trackers]

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
        return self._logs(x, y, y_pred, sample_weight, loss)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self._logs(x, y, y_pred, sample_weight, loss)

    def _logs(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, loss: Any) -> dict[str, Any]:
        """The logs after one more batch, given this replica's share of the joint loss."""
        size = tf.cast(tf.shape(y_pred[self.tasks[0]])[0], "float32")
        # Keras weighs each replica's share by its number of examples. But all count as much.
        (size,) = sum_over_replicas([size])
        self._loss_tracker.update_state(of_whole_batch(loss), sample_weight=size / num_replicas())
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
        losses, labels = self._task_losses(y, y_pred, sample_weight)
        self._task_losses.track(losses, labels)
        return tf.add_n([self._task_losses.joint(losses), *self._own_losses()])

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        # All metrics are weighted ones to Keras, at three outputs by task: so those that are not
        # weighted, too, leave missing labels out.
        labels, weights = select_labels(y, self.tasks), select_weights(sample_weight, self.tasks)
        outputs: dict[str, list[Any]] = {}
        for task in self.tasks:
            label, prediction = tf.convert_to_tensor(labels[task]), y_pred[task]
            weight = weights[task]
            known: Any = None
            if label.shape.rank == prediction.shape.rank == 1:
                # Of two vectors, a metric would give one value, not one by example.
                label, prediction = label[:, None], prediction[:, None]
            if label.dtype.is_floating or weight is not None:
                known = present(label, _one_by_example(prediction), [weight])
                known = tf.cast(known, "float32")
            if weight is not None:
                weight = known * with_rank(tf.cast(weight, "float32"), known.shape.rank)
            else:
                weight = known
            outputs[task] = [without_nan(label), prediction, known]
            outputs[_FUNCTION + task] = [label, prediction, known]
            outputs[_WEIGHTED + task] = [without_nan(label), prediction, weight]
        columns = [
            {name: output[column] for name, output in outputs.items()} for column in range(3)
        ]
        results: dict[str, Any] = super().compute_metrics(x, *columns)
        return results

    def get_metrics_result(self) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for name, value in super().get_metrics_result().items():
            plain = name.removeprefix(_FUNCTION).removeprefix(_WEIGHTED)
            if plain in results:
                # The longest, because a task may be named "a" and another one "a_b".
                task = max((one for one in self.tasks if plain.startswith(f"{one}_")), key=len)
                plain = f"{task}_weighted_{plain.removeprefix(f'{task}_')}"
            results[plain] = value
        return results

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
            "shared": self._sharing.get_config(self.encoder),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskModel":
        def deserialize(layer: Any) -> Any:
            return keras.saving.deserialize_keras_object(layer, custom_objects)

        config = {**config, "encoder": deserialize(config["encoder"])}
        config["heads"] = {task: deserialize(head) for task, head in config["heads"]}
        shared = config.pop("shared", None)
        model = cls(**config)
        model._sharing.set_config(model.encoder, shared)
        return model

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        losses = self._task_losses
        weights = {task: float(w) for task, w in zip(self.tasks, losses.weights, strict=True)}
        loss = keras.saving.serialize_keras_object(self.loss)
        metrics = {
            name: keras.saving.serialize_keras_object(given)
            for name, given in vars(self._metrics_given).items()
        }
        return {**config, **metrics, "loss": loss, "loss_weights": weights}

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config), **more)
        if self.built:
            self.optimizer.build(self.trainable_variables)


class _FunctionMetric(keras.metrics.Mean):  # type: ignore[misc]
    """Mean of what a function gives for labels and predictions, over the labels present.

    A function that takes the mean by itself has to deal with missing labels by itself, as a loss
    has, and is averaged over the batches.
    """

    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        # As Keras calls it.
        name = getattr(function, "__name__", type(function).__name__)
        super().__init__(name=getattr(function, "name", name.strip("<>")))
        self._function = function

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        values = tf.convert_to_tensor(self._function(without_nan(y_true), y_pred))
        if values.shape.rank == 0:
            values, sample_weight = self._function(y_true, y_pred), None
        return super().update_state(values, sample_weight)


def _by_output(metrics: Mapping[str, Any], weighted: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The metrics, all of them weighted ones to Keras, by what it takes for an output."""
    outputs: dict[str, list[Any]] = {}
    for prefix, by_task in (("", metrics), (_WEIGHTED, weighted)):
        for task, given in by_task.items():
            for one in given if isinstance(given, list | tuple) else [given]:
                is_function = callable(one) and not isinstance(one, keras.metrics.Metric | type)
                if is_function and not prefix:
                    outputs.setdefault(_FUNCTION + task, []).append(_FunctionMetric(one))
                elif one is not None:
                    outputs.setdefault(prefix + task, []).append(one)
    return outputs


def _one_by_example(predictions: tf.Tensor) -> tf.Tensor:
    """A tensor with one value where metrics give one: the last axis of predictions left out."""
    return predictions[..., 0] if predictions.shape.rank > 1 else predictions
