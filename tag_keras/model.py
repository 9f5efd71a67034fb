"""Multi-task models that measure inter-task affinity while they train."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity, LookaheadAffinity
from tag_keras.gradients import task_gradients, weighted_sum
from tag_keras.grouped_model import GroupedModel
from tag_keras.probe_statistics import EpochEnds, ProbeStatistics
from tag_keras.task_losses import TaskLosses, of_one_replica, of_whole_batch
from tag_keras.tasks import (
    check_agreement,
    check_task_names,
    metrics_by_task,
    select_labels,
    select_weights,
)
from tag_keras.train_step import lookahead_affinity, lookahead_step, source_gradients

__all__ = ["GroupedModel", "MultiTaskModel"]


@keras.saving.register_keras_serializable(package="tag_keras")
class MultiTaskModel(keras.Model):  # type: ignore[misc]
    """A Keras model with one shared encoder and one head per task.

    It compiles, trains, evaluates, predicts, saves and loads as any `keras.Model` whose output is
    a dict by task. With `compile(affinity=...)` it measures while it trains how a step for one
    task changes the loss of every other (TAG; Fifty et al. 2021, arXiv 2109.04617).

    The logs hold `loss`, `<task>_loss` and `<task>_<metric>` whatever the number of tasks. Labels
    are a dict by task and may hold more tasks than the model has.

    Args:
        encoder: Layer or model, from the inputs to one feature tensor, or to a dict of one
            feature tensor per task. Its trainable variables are the shared variables.
        heads: Layer or model by task, from the features to the prediction of the task.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If `heads` is not a dict of layers with at least one task.

    Example:

    ```python
    encoder = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(32, "relu")])
    heads = {"age": keras.layers.Dense(1), "smiling": keras.layers.Dense(1)}
    losses = {"age": "mse", "smiling": keras.losses.BinaryCrossentropy(from_logits=True)}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model.compile("adam", losses, affinity=tag_keras.LookaheadAffinity(every=10))
    model.fit(x, {"age": age, "smiling": smiling}, epochs=10)
    affinity = model.get_affinity()
    ```
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
        self._statistics = ProbeStatistics(len(self.tasks), name="probe_statistics")
        # Both are set by `compile`; Keras reports a model that is used before.
        self._affinity_options: Any = None
        self._task_losses: Any = None

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables that a lookahead moves: those of the encoder."""
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
        affinity: LookaheadAffinity | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does, and the measuring of affinities.

        Args:
            optimizer: As in Keras.
            loss: Loss by task, or one for all tasks.
            loss_weights: Weight by task in the joint loss: a float, or a `keras.Variable` that may
                be assigned during training. Defaults to 1. Affinities do not depend on them.
            metrics: Metrics by task, or a list of names for all tasks.
            weighted_metrics: The same, weighted by `sample_weight`.
            affinity: What to measure during training; nothing by default. Measuring starts anew.
            **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
            ValueError: If the dicts have other tasks than the heads, if there is no loss, or if
                affinities cannot be measured: `steps_per_execution` above 1, or no shared variable.
        """
        metrics = metrics_by_task("metrics", metrics, self.tasks)
        weighted_metrics = metrics_by_task("weighted_metrics", weighted_metrics, self.tasks)
        optional = {
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        check_agreement(self.tasks, {"loss": loss}, optional)
        task_losses = TaskLosses(self.tasks, loss, loss_weights)
        if affinity is not None and kwargs.get("steps_per_execution", 1) != 1:
            raise ValueError(
                "Affinities are measured with `steps_per_execution=1`. "
                f"Received: steps_per_execution={kwargs['steps_per_execution']}."
            )
        super().compile(
            optimizer=optimizer, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs
        )
        self.loss = loss
        self._task_losses = task_losses
        self._affinity_options = affinity
        if affinity is not None:
            if self.encoder.built:
                self._check_shared_variables()
            self._statistics.start()

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

    def make_train_function(self, force: bool = False) -> None:
        # `fit` calls this first. A checkpoint may be restored after it, so the step to go on from
        # is read when the first step is made.
        self._next_step: int | None = None
        self.train_function: Any
        if self.train_function is not None and not force:
            return
        if self._affinity_options is None:
            super().make_train_function(force)
            return
        plain = self._make_function(self.train_step)
        probing = self._make_function(self._probe_step)
        every = self._affinity_options.every

        # Two compiled functions, chosen in Python: the plain one holds no trace of the probe, and
        # a tf.cond around all-reduces does not run under MirroredStrategy.
        def train_function(iterator: Any) -> Any:
            if self._next_step is None:
                iterator = self._build_for(iterator)
                self._next_step = int(self.optimizer.iterations.numpy())
            function = probing if self._next_step % every == 0 else plain
            self._next_step += 1
            return function(iterator)

        self.train_function = train_function

    def _probe_step(self, data: Any) -> dict[str, Any]:
        """A training step that measures affinities on its way; else the same as `train_step`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        options, variables, shared = (
            self._affinity_options,
            self.trainable_variables,
            self.shared_variables,
        )
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in self.non_trainable_variables]

        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            losses = self._task_losses(y, y_pred, sample_weight)
            own_losses = self._own_losses()
            terms = [*losses, tf.add_n(own_losses)] if own_losses else losses
            scaled = [self.optimizer.scale_loss(term) for term in terms]
        gradients = task_gradients(tape, scaled, variables)

        def step(row: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            return lookahead_step(self.optimizer, row, shared, options.update)

        def losses_after(values: list[tf.Tensor]) -> list[tf.Tensor]:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            moved = [new.get(id(variable), variable) for variable in variables]
            predictions, _ = self.stateless_call(moved, state, x, training=True)
            after: list[tf.Tensor] = self._task_losses(y, predictions, sample_weight)
            return after

        sources = source_gradients(self.optimizer, gradients[: len(losses)], variables, shared)
        self._statistics.update(
            lookahead_affinity(losses, sources, step, losses_after, options.baseline)
        )
        weights = [*self._task_losses.weights, 1.0][: len(terms)]
        self.optimizer.apply(weighted_sum(gradients, weights), variables)

        self._task_losses.track(losses, tf.shape(y_pred[self.tasks[0]])[0])
        total = tf.add_n([self._task_losses.joint(losses), *own_losses])
        batch_size = tf.shape(keras.tree.flatten(x)[0])[0]
        self._loss_tracker.update_state(of_whole_batch(total), sample_weight=batch_size)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _build_for(self, iterator: Any) -> Any:
        """Creates all variables before the first step, which would be traced twice otherwise.

        Returns:
            The iterator with the batches that it was given with.
        """
        if hasattr(iterator, "element_spec"):
            batch = keras.tree.map_structure(
                # Anything else stands for a sample weight that is None.
                lambda spec: spec if isinstance(spec, tf.TensorSpec) else None,
                iterator.element_spec,
            )
        else:
            batch = next(iterator)
            iterator = iter([batch])
        self._symbolic_build(data_batch=batch)
        self._check_shared_variables()
        return iterator

    def _check_shared_variables(self) -> None:
        if not self.shared_variables:
            raise ValueError(
                "The encoder has no trainable variable, so the tasks share nothing that an "
                "affinity could be measured on. Give it layers with weights, or set "
                "`encoder.trainable = True`, and compile again."
            )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        if self._affinity_options is not None:
            ends = EpochEnds(self._statistics, self.tasks)
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.append(ends)
            else:
                # First, so that a checkpoint at the end of an epoch holds the epoch closed.
                callbacks = [ends, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def get_affinity(self) -> Affinity:
        """Inter-task affinities measured since `compile(affinity=...)`, over all calls of `fit`.

        Returns:
            `Affinity` of the T tasks, with standard errors, counts and the mean of every epoch.

        Raises:
            ValueError: If nothing was measured.
        """
        affinity = self._statistics.affinity(self.tasks) if self._statistics.weights else None
        if affinity is None or not (affinity.count + affinity.skipped).any():
            raise ValueError(
                "No affinities have been measured. Compile with "
                "`affinity=tag_keras.LookaheadAffinity(...)` and call `fit` first."
            )
        return affinity

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            # Pairs, because the order of the tasks is to be kept.
            "heads": [[task, serialize(self.heads[task])] for task in self.tasks],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MultiTaskModel":
        def deserialize(layer: Any) -> Any:
            return keras.saving.deserialize_keras_object(layer, custom_objects)

        heads = {task: deserialize(head) for task, head in config["heads"]}
        return cls(**{**config, "encoder": deserialize(config["encoder"]), "heads": heads})

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if not config:
            return {}
        weights = {
            task: float(weight)
            for task, weight in zip(self.tasks, self._task_losses.weights, strict=True)
        }
        options = self._affinity_options
        return {
            **config,
            "loss": keras.saving.serialize_keras_object(self.loss),
            "loss_weights": weights,
            "affinity": None if options is None else dataclasses.asdict(options),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        options = config.pop("affinity")
        self.compile(
            affinity=None if options is None else LookaheadAffinity(**options),
            **keras.saving.deserialize_keras_object(config),
        )
        if self.built:
            self.optimizer.build(self.trainable_variables)
