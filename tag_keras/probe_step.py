"""A training step that measures affinities on its way."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.estimators import AffinityEstimator, Probe
from tag_keras.gradients import (
    Gradients,
    looped_gradients,
    of_whole_batch,
    task_gradients,
    weighted_sum,
)
from tag_keras.precision import FullPrecision
from tag_keras.probe_statistics import ProbeStatistics
from tag_keras.replicas import num_replicas, sum_over_replicas
from tag_keras.task_model import TaskModel
from tag_keras.train_step import overflowed

# With more tasks, the graph has a loop over them. It is slower than T copies of a few operations,
# and much faster to trace than T copies of many.
_MOST_UNROLLED = 12


class ProbeStep:
    """Makes a training step with a batch, as `train_step` does, and a probe.

    Args:
        model: Compiled model.
        estimator: What to measure.
        statistics: Statistics that the probe is added to.
    """

    def __init__(
        self, model: TaskModel, estimator: AffinityEstimator, statistics: ProbeStatistics
    ) -> None:
        self._model = model
        self._estimator = estimator
        self._statistics = statistics
        self._full_precision = FullPrecision(model)

    def __call__(self, data: Any) -> dict[str, Any]:
        model, task_losses = self._model, self._model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in model.non_trainable_variables]
        with tf.GradientTape(persistent=True) as tape:
            y_pred = model(x, training=True)
            losses, labels = task_losses(y, y_pred, sample_weight)
            total = task_losses.joint(losses)
            own_losses = model.own_losses()
            scaled = [model.optimizer.scale_loss(one) for one in (*losses, total, *own_losses)]
        of_tasks, joint = self._backward(tape, scaled[: len(losses)], scaled[len(losses) :])

        def loss_sums(values: Sequence[Any]) -> tf.Tensor:
            with self._full_precision():
                predictions, _ = model.stateless_call(values, state, x, training=True)
                sums, divisors, _ = task_losses.sums(y, predictions, sample_weight)
            return tf.stack([tf.stack([tf.cast(one, "float32") for one in sums]), divisors])

        self._measure(losses, labels, of_tasks, loss_sums, tf.shape(y_pred[model.tasks[0]])[0])
        model.optimizer.apply(*zip(*joint, strict=True))

        task_losses.track(losses, labels)
        return model.logs_after(x, y, y_pred, sample_weight, tf.add_n([total, *own_losses]))

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
        model = self._model
        shared, weights = model.shared_variables, model.task_losses.weights
        ids = {id(variable) for variable in shared}
        others = [variable for variable in model.trainable_variables if id(variable) not in ids]
        variables = [*shared, *others]
        of_tasks: Gradients
        if is_looped(model):
            of_tasks = looped_gradients(tape, losses, shared)
            gradients = [*weighted_sum(of_tasks, weights), *tape.gradient(joint[0], others)]
        else:
            rows = task_gradients(tape, losses, variables)
            gradients = weighted_sum(rows, weights)
            of_tasks = [row[: len(shared)] for row in rows]
        if own_losses := list(joint[1:]):
            more = tape.gradient(own_losses, variables)
            gradients = weighted_sum([gradients, more], [1.0, 1.0])
        # Adam and others square the slices of an Embedding's gradient before they add up those of
        # the same row: for them a dense gradient would be another step.
        embeddings = {
            id(variable)
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.Embedding)
            for variable in layer.trainable_variables
        }
        chosen = [index for index, one in enumerate(variables) if id(one) in embeddings]
        exact = tape.gradient(list(joint), [variables[index] for index in chosen])
        for index, gradient in zip(chosen, exact, strict=True):
            gradients[index] = gradient
        return of_tasks, list(zip(gradients, variables, strict=True))

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
        model = self._model
        shared, variables = model.shared_variables, model.trainable_variables

        def sums_at(values: Sequence[tf.Tensor]) -> tf.Tensor:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            return loss_sums([new.get(id(variable), variable) for variable in variables])

        one = tf.ones(())
        scale = model.optimizer.scale_loss(one)
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
            optimizer=model.optimizer,
            loss_sums=sums_at,
            low_precision=self._full_precision.is_needed(),
        )
        values = self._estimator.measure(probe)
        has_labels, too_large = labels > 0, None
        if is_scaled:
            too_large = has_labels & overflowed(gradients)
            # A ReLU takes NaN for 0: after a step to no number the losses may be numbers again.
            values = tf.where(too_large[:, None], float("nan"), values)
        self._statistics.update(values, whole_size, has_labels, too_large)


def is_looped(model: TaskModel) -> bool:
    """Whether the graph has a loop over the tasks, in which replicas cannot communicate."""
    synchronizes = any(getattr(layer, "synchronized", False) for layer in model._flatten_layers())
    return len(model.tasks) > _MOST_UNROLLED and not (synchronizes and num_replicas() > 1)
