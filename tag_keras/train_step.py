"""A training step that measures affinities on its way."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backend.gradients import (
    Gradients,
    gradient_norms,
    gram_matrix,
    of_whole_batch,
    overflowed,
    select_variables,
)
from tag_keras.backend.optimizers import accumulated_batches, loss_scale
from tag_keras.backend.precision import FullPrecision
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.backend.steps import Steps, steps_of
from tag_keras.estimators.base import AffinityEstimator, Probe
from tag_keras.estimators.cadence import Cadence
from tag_keras.estimators.held_out import HeldOutBatches
from tag_keras.estimators.statistics import ProbeStatistics
from tag_keras.multitask.backward_passes import BackwardPasses
from tag_keras.multitask.task_model import TaskModel


class Observed(NamedTuple):
    """What a training step knows before it moves the variables.

    Args:
        losses: T scalars, this replica's shares.
        labels: Tensor (T,): number of labels in the whole batch.
        gradients: Gradients of the losses of the whole batch, with respect to the shared variables.
        is_scaled: Whether mixed precision multiplied the losses before the backward passes; the
            gradients are divided by it again.
        batch_size: Number of examples in the batch of this replica.
    """

    losses: Sequence[tf.Tensor]
    labels: tf.Tensor
    gradients: Gradients
    is_scaled: bool
    batch_size: tf.Tensor


class TaskStep:
    """Makes a training step with a batch, as `train_step` does, from the gradients of the tasks.

    The model's gradient method combines them, if it has one, and its loss weighting gets their
    norms, if it needs them.

    Args:
        model: Compiled model.
    """

    def __init__(self, model: TaskModel) -> None:
        self._model = model

    def __call__(self, data: Any) -> dict[str, Any]:
        return self.train_on(data)

    def train_on(
        self, batch: Any, observe: Callable[[Observed], None] | None = None
    ) -> dict[str, Any]:
        """Makes the step.

        Args:
            batch: The batch.
            observe: What is to be done before the variables move.

        Returns:
            The logs.
        """
        model, task_losses = self._model, self._model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape(persistent=True) as tape:
            y_pred = model(x, training=True)
            losses, labels = task_losses(y, y_pred, sample_weight)
            factors = task_losses.factors()
            total = task_losses.joint(losses, labels, factors)
            own_losses = model.own_losses()
            scaled = [model.optimizer.scale_loss(one) for one in (*losses, total, *own_losses)]
        task_losses.track(losses, labels)

        kernel, method = self._kernel(), self._method()
        alone = kernel if observe is None and method is None else None
        of_tasks, joint = scaled[: len(losses)], scaled[len(losses) :]
        passes = BackwardPasses(model, tape, of_tasks, joint, factors, alone)
        scale = loss_scale(model.optimizer)
        whole = of_whole_batch(passes.of_tasks, passes.chosen, scale)
        if observe is not None:
            size = tf.shape(y_pred[model.tasks[0]])[0]
            observe(Observed(losses, labels, whole, scale is not None, size))
        coefficients = None if method is None else method.coefficients(gram_matrix(whole, factors))
        model.optimizer.apply(*zip(*passes.of_joint_loss(coefficients), strict=True))

        of_kernel = select_variables(whole, [variable is kernel for variable in passes.chosen])
        norms = None if kernel is None else gradient_norms(of_kernel)
        task_losses.update(losses, labels, norms)
        return model.logs_after(x, y, y_pred, sample_weight, tf.add_n([total, *own_losses]))

    def check(self) -> None:
        """Checks that a built encoder has what the step needs.

        Raises:
            ValueError: If it has not.
        """
        self._kernel()
        self._method()

    def _kernel(self) -> keras.Variable | None:
        """The variable whose gradients the loss weighting looks at."""
        model = self._model
        if model.loss_weighting is None or not model.loss_weighting.needs_norms:
            return None
        shared = model.shared_variables
        if not shared and len(model.tasks) == 1:
            shared = model.encoder.trainable_variables
        return model.loss_weighting.kernel_in(model.encoder, shared)

    def _method(self) -> Any:
        """The gradient method; `None` also where one task has nothing to share."""
        model = self._model
        if model.gradient_method is None:
            return None
        if len(model.tasks) > 1:
            model.check_shares("a gradient method could combine")
        return model.gradient_method if model.shared_variables else None


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

    every = estimator.every * (accumulated_batches(model.optimizer) or 1)
    probing = steps_of(model, ProbeStep(model, estimator, statistics))
    if held_out is not None:
        held_out.open(model.distribute_strategy)
        probing = _on_pairs(model, probing, held_out, statistics, every)
    return Cadence(
        statistics,
        every,
        model.steps_per_execution,
        steps_of(model, plain_step),
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
