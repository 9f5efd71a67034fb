"""Multi-task models that measure inter-task affinity while they train."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.cadence import Cadence, EpochEnds, on_device, one_at_a_time
from tag_keras.estimators import AffinityEstimator, Probe
from tag_keras.gradients import (
    Gradients,
    looped_gradients,
    of_whole_batch,
    task_gradients,
    weighted_sum,
)
from tag_keras.grouped_model import GroupedModel
from tag_keras.precision import FullPrecision
from tag_keras.probe_statistics import ProbeStatistics
from tag_keras.replicas import check_strategy, num_replicas, sum_over_replicas
from tag_keras.task_model import TaskModel
from tag_keras.train_step import overflowed

__all__ = ["GroupedModel", "MultiTaskModel"]


# With more tasks, the graph has a loop over them. It is slower than T copies of a few operations,
# and much faster to trace than T copies of many.
_MOST_UNROLLED = 12


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
        self._full_precision = FullPrecision(self)
        # Set by `compile`.
        self._affinity_options: Any = None

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, Any] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        affinity: AffinityEstimator | None = None,
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
            ValueError: If the dicts have other tasks than the heads, if there is no loss, if
                `affinity` is not an estimator, if affinities are to be measured and no variable is
                shared, or if Keras cannot train under the strategy with these arguments.
        """
        if affinity is not None and not isinstance(affinity, AffinityEstimator):
            raise ValueError(
                "`affinity` should be an estimator, such as tag_keras.LookaheadAffinity(every=10). "
                f"Received: affinity={affinity!r}."
            )
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        check_strategy(self)
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
        if self.steps_per_execution == 1:
            plain = one_at_a_time(self._make_function(self.train_step))
            probing = one_at_a_time(self._make_function(self._probe_step))
        else:
            plain, probing = on_device(self, self.train_step), on_device(self, self._probe_step)
        every = self._affinity_options.every * (_accumulated(self.optimizer) or 1)
        cadence = Cadence(
            self._statistics,
            every,
            self.steps_per_execution,
            plain,
            probing,
            self.get_metrics_result,
        )
        built = False

        def train_function(iterator: Any) -> Any:
            nonlocal built
            iterator = iterator if built else self._build_for(iterator)
            built = True
            return cadence(iterator)

        self.train_function = train_function

    def _probe_step(self, data: Any) -> dict[str, Any]:
        """A training step that measures affinities on its way; else the same as `train_step`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in self.non_trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            losses, labels = self._task_losses(y, y_pred, sample_weight)
            total = self._task_losses.joint(losses)
            own_losses = self._own_losses()
            scaled = [self.optimizer.scale_loss(one) for one in (*losses, total, *own_losses)]
        of_tasks, joint = self._backward(tape, scaled[: len(losses)], scaled[len(losses) :])

        def loss_sums(values: Sequence[Any]) -> tf.Tensor:
            with self._full_precision():
                predictions, _ = self.stateless_call(values, state, x, training=True)
                sums, divisors, _ = self._task_losses.sums(y, predictions, sample_weight)
            return tf.stack([tf.stack([tf.cast(one, "float32") for one in sums]), divisors])

        self._measure(losses, labels, of_tasks, loss_sums, tf.shape(y_pred[self.tasks[0]])[0])
        self.optimizer.apply(*zip(*joint, strict=True))

        self._task_losses.track(losses, labels)
        return self._logs(x, y, y_pred, sample_weight, tf.add_n([total, *own_losses]))

    def _backward(
        self, tape: tf.GradientTape, losses: Sequence[tf.Tensor], joint: Sequence[tf.Tensor]
    ) -> tuple[Gradients, list[tuple[tf.Tensor | None, keras.Variable]]]:
        """The backward passes of a probe, which are also those of its training step.

        Args:
            tape: Persistent tape.
            losses: T scalars.
            joint: Their weighted sum, and the losses of the model's own.

        Returns:
            Gradients of the T losses with respect to the shared variables; and that of the sum of
            `joint` with respect to each trainable variable, with the variable.
        """
        shared, weights = self.shared_variables, self._task_losses.weights
        ids = {id(variable) for variable in shared}
        others = [variable for variable in self.trainable_variables if id(variable) not in ids]
        variables = [*shared, *others]
        of_tasks: Gradients
        if self._is_looped():
            of_tasks = looped_gradients(tape, losses, shared)
            gradients = [*weighted_sum(of_tasks, weights), *tape.gradient(joint[0], others)]
        else:
            rows = task_gradients(tape, losses, variables)
            gradients = weighted_sum(rows, weights)
            of_tasks = [row[: len(shared)] for row in rows]
        if own_losses := list(joint[1:]):
            more = tape.gradient(own_losses, variables)
            gradients = weighted_sum([gradients, more], [1.0, 1.0])
        return of_tasks, list(zip(gradients, variables, strict=True))

    def _is_looped(self) -> bool:
        """Whether the graph has a loop over the tasks, in which replicas cannot communicate."""
        synchronizes = any(
            getattr(layer, "synchronized", False) for layer in self._flatten_layers()
        )
        return len(self.tasks) > _MOST_UNROLLED and not (synchronizes and num_replicas() > 1)

    def _measure(
        self,
        losses: Sequence[tf.Tensor],
        labels: tf.Tensor,
        gradients: Gradients,
        loss_sums: Callable[[Sequence[Any]], tf.Tensor],
        batch_size: tf.Tensor,
    ) -> None:
        """Adds a probe to the statistics.

        Args:
            losses: T scalars, this replica's shares.
            labels: Tensor (T,): number of labels in the whole batch.
            gradients: Their gradients, scaled, with respect to the shared variables.
            loss_sums: Gives for values of all trainable variables a float32 tensor (2, T): sums
                and divisors of this replica's losses.
            batch_size: Number of examples in the batch of this replica.
        """
        shared, variables = self.shared_variables, self.trainable_variables

        def sums_at(values: Sequence[tf.Tensor]) -> tf.Tensor:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            return loss_sums([new.get(id(variable), variable) for variable in variables])

        one = tf.ones(())
        scale = self.optimizer.scale_loss(one)
        is_scaled = scale is not one
        gradients = of_whole_batch(gradients, shared, scale if is_scaled else None)
        stacked = tf.stack([tf.cast(loss, "float32") for loss in losses])
        # All of one type: TensorFlow does not reduce tensors of host and device together.
        size = tf.cast(batch_size, "float32")
        whole_losses, whole_size = sum_over_replicas([stacked, size])
        probe = Probe(
            losses=whole_losses,
            gradients=gradients,
            variables=shared,
            optimizer=self.optimizer,
            loss_sums=sums_at,
            low_precision=self._full_precision.is_needed(),
        )
        values = self._affinity_options.measure(probe)
        has_labels, too_large = labels > 0, None
        if is_scaled:
            too_large = has_labels & overflowed(gradients)
            # A ReLU takes NaN for 0: after a step to no number the losses may be numbers again.
            values = tf.where(too_large[:, None], float("nan"), values)
        self._statistics.update(values, whole_size, has_labels, too_large)

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
        check_strategy(self)
        if self._affinity_options is not None:
            ends = EpochEnds(self._statistics, self.tasks, self._labels_seen)
            # First, so that a checkpoint at the end of an epoch holds the epoch closed.
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.callbacks.insert(0, ends)
            else:
                callbacks = [ends, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def _labels_seen(self) -> list[float]:
        return [float(tf.convert_to_tensor(one.count)) for one in self._task_losses.trackers]

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
        if not affinity.count.any():
            reason, remedy = "a loss was not positive or not finite", "Check the losses"
            if self._statistics.overflowed().any():
                reason = "the gradients overflowed in float16"
                remedy = 'Use the policy "mixed_bfloat16", or losses of smaller values'
            raise ValueError(
                f"All {affinity.skipped.max()} probes were left out, because {reason}. {remedy}."
            )
        return affinity

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        options = self._affinity_options
        if config and options is not None:
            config["affinity"] = keras.saving.serialize_keras_object(options)
        return config


def _accumulated(optimizer: Any) -> int | None:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    steps: int | None = optimizer.gradient_accumulation_steps
    return steps
