"""A training step that measures affinities on its way."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.cadence import Cadence, Steps, on_device, one_at_a_time
from tag_keras.estimators import AffinityEstimator, Probe
from tag_keras.held_out_batches import HeldOutBatches
from tag_keras.optimizers import accumulated_batches
from tag_keras.precision import FullPrecision
from tag_keras.probe_statistics import ProbeStatistics
from tag_keras.replicas import sum_over_replicas
from tag_keras.task_model import TaskModel
from tag_keras.task_step import Observed, TaskStep
from tag_keras.train_step import overflowed


class ProbeStep(TaskStep):
    """Makes a training step with a batch, as `train_step` does, and a probe.

    With held-out data it gets pairs of a training batch and a held-out batch, whose losses are then
    those that a probe looks at.

    Args:
        model: Compiled model.
        estimator: What to measure.
        statistics: Statistics that the probe is added to.
    """

    def __init__(
        self, model: TaskModel, estimator: AffinityEstimator, statistics: ProbeStatistics
    ) -> None:
        super().__init__(model)
        self._estimator = estimator
        self._statistics = statistics
        self._is_held_out = estimator.target_data() is not None
        self._full_precision = FullPrecision(model)

    def __call__(self, data: Any) -> dict[str, Any]:
        batch, target = data if self._is_held_out else (data, data)
        return self.train_on(batch, self._observer(target))

    def _observer(self, target: Any) -> Callable[[Observed], None]:
        """Probes with the losses of the batch `target`; called before the forward pass."""
        model, task_losses = self._model, self._model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(target)
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in model.non_trainable_variables]
        shared, variables = model.shared_variables, model.trainable_variables

        def sums_at(values: Sequence[tf.Tensor]) -> tf.Tensor:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            mixed = [new.get(id(variable), variable) for variable in variables]
            with self._full_precision():
                predictions, _ = model.stateless_call(mixed, state, x, training=True)
                sums, *counts = task_losses.sums(y, predictions, sample_weight)
            return tf.stack([tf.stack([tf.cast(one, "float32") for one in sums]), *counts])

        return lambda observed: self._measure(observed, sums_at)

    def _measure(self, observed: Observed, sums_at: Callable[[Sequence[Any]], tf.Tensor]) -> None:
        """Adds a probe to the statistics.

        Args:
            observed: Losses and gradients of the training batch.
            sums_at: Gives for values of the shared variables a float32 tensor (3, T): sums and
                divisors of this replica's losses of the target batch, and numbers of labels.
        """
        shared = self._model.shared_variables
        stacked = tf.stack([tf.cast(loss, "float32") for loss in observed.losses])
        # All of one type: TensorFlow does not reduce tensors of host and device together.
        size = tf.cast(observed.batch_size, "float32")
        losses, whole_size = sum_over_replicas([stacked, size])
        has_labels = has_target_labels = observed.labels > 0
        if self._is_held_out:
            (whole,) = sum_over_replicas([sums_at([tf.convert_to_tensor(one) for one in shared])])
            losses = tf.math.divide_no_nan(whole[0], whole[1])
            has_target_labels = whole[2] > 0
        probe = Probe(
            losses=losses,
            gradients=observed.gradients,
            variables=shared,
            optimizer=self._model.optimizer,
            loss_sums=lambda values: sums_at(values)[:2],
            low_precision=not self._is_held_out and self._full_precision.is_needed(),
        )
        values = self._estimator.measure(probe)
        too_large = None
        if observed.is_scaled:
            too_large = has_labels & overflowed(observed.gradients)
            # A ReLU takes NaN for 0: after a step to no number the losses may be numbers again.
            values = tf.where(too_large[:, None], float("nan"), values)
        self._statistics.update(values, whole_size, has_labels, too_large, has_target_labels)


def probing_steps(
    model: TaskModel,
    estimator: AffinityEstimator,
    statistics: ProbeStatistics,
    plain_step: Callable[[Any], dict[str, Any]],
    held_out: HeldOutBatches | None = None,
) -> Cadence:
    """A train function of steps, some of which measure affinities.

    Args:
        model: Compiled model.
        estimator: What to measure.
        statistics: Statistics that the probes are added to.
        plain_step: Makes a step without a probe.
        held_out: Batches that the probes look at; by default those of the training.
    """

    def several(step: Callable[[Any], dict[str, Any]]) -> Steps:
        if model.steps_per_execution > 1:
            return on_device(model, step)
        return one_at_a_time(model._make_function(step))

    every = estimator.every * (accumulated_batches(model.optimizer) or 1)
    probing = several(ProbeStep(model, estimator, statistics))
    if held_out is not None:
        held_out.open(model.distribute_strategy)
        probing = _on_pairs(model, probing, held_out, statistics, every)
    return Cadence(
        statistics,
        every,
        model.steps_per_execution,
        several(plain_step),
        probing,
        model.get_metrics_result,
    )


def _on_pairs(
    model: TaskModel,
    steps: Steps,
    held_out: HeldOutBatches,
    statistics: ProbeStatistics,
    every: int,
) -> Steps:
    """Steps that get each batch together with a held-out one; the cadence asks for one."""

    def on_pairs(iterator: Any, number: int) -> tuple[Any, int]:
        for batch in itertools.islice(iterator, 1):
            # By the number of the probe, so that a restart goes on with the batches to come.
            probe = statistics.steps // every
            pair = batch, held_out.batch(probe, batch, statistics.largest_batch())
            return steps(iter([pair]), 1)
        return model.get_metrics_result(), 0

    return on_pairs
