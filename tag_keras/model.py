"""Multi-task models that measure inter-task affinity while they train."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity, LookaheadAffinity
from tag_keras.gradients import task_gradients, weighted_sum
from tag_keras.grouped_model import GroupedModel
from tag_keras.probe_statistics import EpochEnds, ProbeStatistics
from tag_keras.task_losses import of_whole_batch
from tag_keras.task_model import TaskModel
from tag_keras.train_step import (
    lookahead_affinity,
    lookahead_step,
    source_gradients,
    sum_over_replicas,
)

__all__ = ["GroupedModel", "MultiTaskModel"]


@keras.saving.register_keras_serializable(package="tag_keras")
class MultiTaskModel(TaskModel):
    """A Keras model with one shared encoder and one head per task.

    It compiles, trains, evaluates, predicts, saves and loads as any `keras.Model` whose output is
    a dict by task. With `compile(affinity=...)` it measures while it trains how a step for one
    task changes the loss of every other (TAG; Fifty et al. 2021, arXiv 2109.04617).

    `MultiTaskModel.from_functional(model)` makes one of any Functional model with a dict of
    outputs.

    The logs hold `loss`, `<task>_loss` and `<task>_<metric>` whatever the number of tasks. Labels
    are a dict by task and may hold more tasks than the model has.

    Args:
        encoder: Layer or model, from the inputs to one feature tensor, or to a dict of one
            feature tensor per task. Its trainable variables are the shared variables; of those of
            one that gives a dict, the ones that more than one task depends on.
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
        super().__init__(encoder, heads, **kwargs)
        self._statistics = ProbeStatistics(len(self.tasks), name="probe_statistics")
        # Set by `compile`.
        self._affinity_options: Any = None

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
                affinities cannot be measured: `steps_per_execution` above 1, accumulation of
                gradients, or no shared variable.
        """
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        self._affinity_options = affinity
        if affinity is not None:
            self._check_measurable()
            self._statistics.start()

    def make_train_function(self, force: bool = False) -> None:
        self.train_function: Any
        if self.train_function is not None and not force:
            return
        if self._affinity_options is None:
            super().make_train_function(force)
            return
        plain = self._make_function(self.train_step)
        probing = self._make_function(self._probe_step)
        every, statistics = self._affinity_options.every, self._statistics
        built = False

        # Two compiled functions, chosen in Python: the plain one holds no trace of the probe, and
        # a tf.cond around all-reduces does not run under MirroredStrategy.
        def train_function(iterator: Any) -> Any:
            nonlocal built
            iterator = iterator if built else self._build_for(iterator)
            built = True
            logs = (probing if statistics.steps % every == 0 else plain)(iterator)
            # Not reached when the iterator turns out to be at its end. The optimizer's iterations
            # do not know of that, and so cannot serve as the counter.
            statistics.steps += 1
            return logs

        self.train_function = train_function

    def _probe_step(self, data: Any) -> dict[str, Any]:
        """A training step that measures affinities on its way; else the same as `train_step`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in self.non_trainable_variables]
        variables, scale_loss = self.trainable_variables, self.optimizer.scale_loss
        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            losses = self._task_losses(y, y_pred, sample_weight)
            own_losses = self._own_losses()
            terms = [*losses, tf.add_n(own_losses)] if own_losses else losses
            scaled = [scale_loss(term) for term in terms]
        gradients = task_gradients(tape, scaled, variables)

        def losses_after(values: Sequence[Any]) -> list[tf.Tensor]:
            predictions, _ = self.stateless_call(values, state, x, training=True)
            after: list[tf.Tensor] = self._task_losses(y, predictions, sample_weight)
            return after

        batch_size = tf.shape(y_pred[self.tasks[0]])[0]
        self._measure(losses, gradients[: len(losses)], losses_after, batch_size)
        weights = [*self._task_losses.weights, 1.0][: len(terms)]
        self.optimizer.apply(weighted_sum(gradients, weights), variables)

        self._task_losses.track(losses, batch_size)
        total = tf.add_n([self._task_losses.joint(losses), *own_losses])
        self._loss_tracker.update_state(of_whole_batch(total), sample_weight=batch_size)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _measure(
        self,
        losses: Sequence[tf.Tensor],
        gradients: Sequence[Sequence[tf.Tensor | None]],
        losses_after: Callable[[Sequence[Any]], list[tf.Tensor]],
        batch_size: tf.Tensor,
    ) -> None:
        """Adds a probe to the statistics.

        Args:
            losses: T scalars.
            gradients: Their gradients, scaled, with respect to all trainable variables.
            losses_after: Gives the T losses at other values of all trainable variables.
            batch_size: Number of examples in the batch of this replica.
        """
        options, variables = self._affinity_options, self.trainable_variables
        shared = self.shared_variables

        def step(row: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            return lookahead_step(self.optimizer, row, shared, options.update)

        def losses_at(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            return losses_after([new.get(id(variable), variable) for variable in variables])

        sources = source_gradients(self.optimizer, gradients, variables, shared)
        values = lookahead_affinity(losses, sources, step, losses_at, options.baseline)
        self._statistics.update(values, *sum_over_replicas([batch_size]))

    def _build_for(self, iterator: Any) -> Any:
        """Creates all variables before the first step, which would be traced twice otherwise.

        Returns:
            The iterator with the batches that it was given with.
        """
        if hasattr(iterator, "element_spec"):
            batch = keras.tree.map_structure(
                # What has no type stands for a sample weight that is None.
                lambda spec: spec if getattr(spec, "dtype", None) else None,
                iterator.element_spec,
            )
        else:
            batch = next(iterator)
            iterator = iter([batch])
        self._symbolic_build(data_batch=batch)
        self._check_measurable()
        return iterator

    def _check_measurable(self) -> None:
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        for name, value in (
            ("steps_per_execution", self.steps_per_execution),
            ("gradient_accumulation_steps", optimizer.gradient_accumulation_steps or 1),
        ):
            if value != 1:
                raise ValueError(
                    f"Affinities are measured with {name}=1. Received: {name}={value}. Compile "
                    "with `affinity=None`, or leave the option out."
                )
        if self.encoder.built and not self.shared_variables:
            raise ValueError(
                "The encoder has no trainable variable that several tasks share, so there is "
                "nothing that an affinity could be measured on. Give several tasks a common layer "
                "with weights, or set `trainable = True` on it, and compile again."
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
            # First, so that a checkpoint at the end of an epoch holds the epoch closed.
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.callbacks.insert(0, ends)
            else:
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

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        options = self._affinity_options
        if config and options is not None:
            config["affinity"] = dataclasses.asdict(options)
        return config

    def compile_from_config(self, config: dict[str, Any], **more: Any) -> None:
        if options := config.pop("affinity", None):
            more["affinity"] = LookaheadAffinity(**options)
        super().compile_from_config(config, **more)
