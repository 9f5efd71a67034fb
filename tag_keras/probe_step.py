"""A training step that measures affinities on its way."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tag_keras.estimators import AffinityEstimator, Probe
from tag_keras.precision import FullPrecision
from tag_keras.probe_statistics import ProbeStatistics
from tag_keras.replicas import sum_over_replicas
from tag_keras.task_model import TaskModel
from tag_keras.task_step import Observed, TaskStep
from tag_keras.train_step import overflowed


class ProbeStep(TaskStep):
    """Makes a training step with a batch, as `train_step` does, and a probe.

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
        self._full_precision = FullPrecision(model)

    def _observer(self, x: Any, y: Any, sample_weight: Any) -> Callable[[Observed], None]:
        model, task_losses = self._model, self._model.task_losses
        # As it is before the forward pass moves it, so that lookaheads share its dropout masks.
        state = [tf.convert_to_tensor(variable) for variable in model.non_trainable_variables]

        def loss_sums(values: Sequence[Any]) -> tf.Tensor:
            with self._full_precision():
                predictions, _ = model.stateless_call(values, state, x, training=True)
                sums, divisors, _ = task_losses.sums(y, predictions, sample_weight)
            return tf.stack([tf.stack([tf.cast(one, "float32") for one in sums]), divisors])

        return lambda observed: self._measure(observed, loss_sums)

    def _measure(self, observed: Observed, loss_sums: Callable[[Sequence[Any]], tf.Tensor]) -> None:
        """Adds a probe to the statistics.

        Args:
            observed: Losses and gradients.
            loss_sums: Gives for values of all trainable variables a float32 tensor (2, T): sums
                and divisors of this replica's losses.
        """
        model = self._model
        shared, variables = model.shared_variables, model.trainable_variables

        def sums_at(values: Sequence[tf.Tensor]) -> tf.Tensor:
            new = {id(variable): value for variable, value in zip(shared, values, strict=True)}
            return loss_sums([new.get(id(variable), variable) for variable in variables])

        stacked = tf.stack([tf.cast(loss, "float32") for loss in observed.losses])
        # All of one type: TensorFlow does not reduce tensors of host and device together.
        size = tf.cast(observed.batch_size, "float32")
        whole_losses, whole_size = sum_over_replicas([stacked, size])
        probe = Probe(
            losses=whole_losses,
            gradients=observed.gradients,
            variables=shared,
            optimizer=model.optimizer,
            loss_sums=sums_at,
            low_precision=self._full_precision.is_needed(),
        )
        values = self._estimator.measure(probe)
        has_labels, too_large = observed.labels > 0, None
        if observed.is_scaled:
            too_large = has_labels & overflowed(observed.gradients)
            # A ReLU takes NaN for 0: after a step to no number the losses may be numbers again.
            values = tf.where(too_large[:, None], float("nan"), values)
        self._statistics.update(values, whole_size, has_labels, too_large)
