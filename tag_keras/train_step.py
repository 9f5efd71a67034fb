"""Training steps: with one backward pass, with one per task, and with a probe of affinities."""

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backend.gradients import (
    Gradients,
    StackedGradients,
    gradient_norms,
    gram_matrix,
    of_whole_batch,
    overflowed,
    select_variables,
)
from tag_keras.backend.optimizers import accumulated_batches, loss_scale
from tag_keras.backend.precision import FullPrecision
from tag_keras.backend.replicas import mean_over_workers, sum_over_replicas
from tag_keras.backend.steps import Steps, steps_of
from tag_keras.estimators.base import AffinityEstimator, Probe
from tag_keras.estimators.cadence import Cadence, ProbeSchedule
from tag_keras.estimators.held_out import HeldOutBatches
from tag_keras.estimators.statistics import ProbeStatistics
from tag_keras.loss_weighting.base import looks_again, losses_of_whole_batch
from tag_keras.multitask.backward_passes import BackwardPasses
from tag_keras.multitask.shared_features import FeatureTape
from tag_keras.multitask.task_model import TaskModel

Step = Callable[[Any], dict[str, Any]]


def step_without_probe(model: TaskModel) -> Step:
    """The training step of a compiled model when it does not probe."""
    step: Step = model.train_step
    if model.gradient_method is not None:
        step = model.gradient_method.make_step(model) or TaskStep(model)
    elif model.loss_weighting is not None and model.loss_weighting.needs_norms:
        step = TaskStep(model)
    return _looking_again(model, step) if looks_again(model.loss_weighting) else step


def _looking_again(model: TaskModel, step: Step, is_held_out: bool = False) -> Step:
    """A step that tells the loss weighting the losses of the same batch after it.

    They are from the state and with the random numbers of the step, and leave no trace.

    Args:
        model: Compiled model.
        step: Its training step.
        is_held_out: Whether the step gets pairs of a batch and a held-out batch.
    """

    def look_again(data: Any) -> dict[str, Any]:
        start = model.pass_state.now(model)
        logs = step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data[0] if is_held_out else data)
        with start.again([]):
            losses, labels = model.task_losses(y, model(x, training=True), sample_weight)
        weighting: Any = model.loss_weighting
        weighting.after_step(losses_of_whole_batch(losses), labels > 0)
        return logs

    return look_again


class Passes(NamedTuple):
    """A training step after its forward and backward passes, before the variables move.

    Args:
        batch: Inputs, labels and sample weights.
        predictions: By task.
        losses: T scalars: this replica's shares of the losses.
        labels: Tensor (T,): number of labels in the batch of all replicas.
        factors: T scalars: weights of the losses in the joint loss.
        joint_loss: Scalar: this replica's share, with the model's own losses.
        backward: The backward passes.
        gradients: Gradients of the T losses on the batch of all replicas, with respect to
            `backward.chosen`.
        of_features: Float32 tensor (T, N): gradients of the T losses with respect to the features
            of this replica; `None` if the step does not need them.
    """

    batch: tuple[Any, Any, Any]
    predictions: dict[str, tf.Tensor]
    losses: Sequence[tf.Tensor]
    labels: tf.Tensor
    factors: Sequence[Any]
    joint_loss: tf.Tensor
    backward: BackwardPasses
    gradients: Gradients
    of_features: tf.Tensor | None = None


class TaskStep:
    """Makes a training step of a compiled model, from the gradients of every task.

    The model's gradient method, if any, combines them. Its loss weighting may get their norms.
    """

    # Whether the step always needs the gradients with respect to all shared variables.
    needs_all = False
    # Whether it needs those with respect to the features.
    on_features = False

    def __init__(self, model: TaskModel) -> None:
        self._model = model

    def __call__(self, data: Any) -> dict[str, Any]:
        return self.update(self.passes(data))

    def passes(self, batch: Any) -> Passes:
        """Makes the forward pass and the backward passes."""
        model, task_losses = self._model, self._model.task_losses
        batch = x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        heads = FeatureTape() if self.on_features else None
        records = contextlib.nullcontext() if heads is None else heads.recording()
        with tf.GradientTape(persistent=True) as tape, records:
            y_pred = model(x, training=True)
            losses, labels = task_losses(y, y_pred, sample_weight)
            factors = task_losses.factors(losses, labels)
            total = task_losses.joint(losses, labels, factors)
            own_losses = model.own_losses()
            scaled = [model.optimizer.scale_loss(one) for one in (*losses, total, *own_losses)]
        task_losses.track(losses, labels)

        of_tasks, joint = scaled[: len(losses)], scaled[len(losses) :]
        scale = loss_scale(model.optimizer)
        of_features = None if heads is None else heads.gradients(of_tasks, scale)
        backward = BackwardPasses(model, tape, of_tasks, joint, factors, self._chosen())
        gradients = of_whole_batch(backward.of_tasks, backward.chosen, scale)
        return Passes(
            batch,
            y_pred,
            losses,
            labels,
            factors,
            tf.add_n([total, *own_losses]),
            backward,
            gradients,
            of_features,
        )

    def update(self, passes: Passes) -> dict[str, Any]:
        """Moves the variables, and gives the logs."""
        model, backward = self._model, passes.backward
        coefficients = norms = None
        if (method := self._method()) is not None:
            gram, scale = gram_matrix(passes.gradients, passes.factors)
            more = {"scale": scale} if method.needs_scale else {}
            coefficients = method.coefficients(gram, **more)
        model.optimizer.apply(*zip(*backward.of_joint_loss(coefficients), strict=True))

        if (kernel := self._kernel()) is not None:
            is_kernel = [variable is kernel for variable in backward.chosen]
            norms = gradient_norms(select_variables(passes.gradients, is_kernel))
        model.task_losses.update(passes.losses, passes.labels, norms)
        x, y, sample_weight = passes.batch
        return model.logs_after(x, y, passes.predictions, sample_weight, passes.joint_loss)

    def check(self) -> None:
        """Raises a `ValueError` if the built encoder lacks a variable that the step needs."""
        self._kernel()
        self._method()

    def _chosen(self) -> list[keras.Variable] | None:
        """The variables that need gradients by task; `None` for all shared ones."""
        if self.needs_all or self._method() is not None:
            return None
        kernel = self._kernel()
        return [] if kernel is None else [kernel]

    def _kernel(self) -> keras.Variable | None:
        """The variable whose gradient norms the loss weighting needs, if any."""
        model = self._model
        if model.loss_weighting is None or not model.loss_weighting.needs_norms:
            return None
        shared = model.shared_variables
        if not shared and len(model.tasks) == 1:
            shared = model.encoder.trainable_variables
        return model.loss_weighting.kernel_in(model.encoder, shared)

    def _method(self) -> Any:
        """The gradient method; `None` also if the only task has nothing to share."""
        model = self._model
        if model.gradient_method is None:
            return None
        if len(model.tasks) > 1:
            model.check_shares("a gradient method could combine")
        return model.gradient_method if model.shared_variables else None


class ProbeStep(TaskStep):
    """Makes a training step as `TaskStep` does, and measures affinities before the update.

    With held-out data it gets pairs of a training batch, which gives the gradients, and a held-out
    batch, which gives the losses of the probe.
    """

    def __init__(
        self, model: TaskModel, estimator: AffinityEstimator, statistics: ProbeStatistics
    ) -> None:
        super().__init__(model)
        self.estimator, self.statistics = estimator, statistics
        self.on_features = estimator.on_features
        self.needs_all = not self.on_features
        self._is_held_out = estimator.target_data() is not None
        self._full_precision = FullPrecision(model)

    def __call__(self, data: Any) -> dict[str, Any]:
        batch, target = data if self._is_held_out else (data, data)
        # Before the forward pass moves the state that lookaheads start from.
        sums_at = self.loss_sums_on(target)
        passes = self.passes(batch)
        size = tf.shape(passes.predictions[self._model.tasks[0]])[0]
        self.measure(
            passes.losses, passes.labels, passes.gradients, size, sums_at, passes.of_features
        )
        return self.update(passes)

    def loss_sums_on(self, target: Any) -> Callable[[Sequence[Any]], tf.Tensor]:
        """A function from values of the shared variables to the losses on a batch.

        All its passes start from the present state. It gives a float32 tensor (3, T): this
        replica's sums, divisors and numbers of labels.
        """
        model, task_losses = self._model, self._model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(target)
        # The seeds in this state give lookaheads the dropout masks of the step.
        start, shared = model.pass_state.now(model), model.shared_variables

        def sums_at(values: Sequence[tf.Tensor]) -> tf.Tensor:
            pairs = list(zip(shared, values, strict=True))
            with self._full_precision(), start.again(pairs):
                predictions = model(x, training=True)
                sums, *counts = task_losses.sums(y, predictions, sample_weight)
            return tf.stack([tf.stack([tf.cast(one, "float32") for one in sums]), *counts])

        return sums_at

    def measure(
        self,
        losses: Sequence[tf.Tensor],
        labels: tf.Tensor,
        gradients: Gradients,
        size: tf.Tensor,
        sums_at: Callable[[Sequence[Any]], tf.Tensor],
        of_features: tf.Tensor | None = None,
    ) -> None:
        """Measures the affinities on a batch, and adds them to the statistics.

        Args:
            losses: T scalars: this replica's shares of the losses.
            labels: Tensor (T,): number of labels in the batch of all replicas.
            gradients: Gradients of the T losses on the batch of all replicas, with respect to the
                shared variables.
            size: Number of examples in this replica's part.
            sums_at: What `loss_sums_on` gave before the forward pass.
            of_features: Tensor (T, N): gradients of the T losses with respect to the features of
                this replica, for an estimator `on_features`.
        """
        model, shared = self._model, self._model.shared_variables
        stacked = tf.stack([tf.cast(loss, "float32") for loss in losses])
        # Both are float32: TensorFlow does not reduce tensors of host and device together.
        whole_losses, whole_size = sum_over_replicas([stacked, tf.cast(size, "float32")])
        has_labels = has_target_labels = labels > 0
        if self._is_held_out:
            (whole,) = sum_over_replicas([sums_at([tf.convert_to_tensor(one) for one in shared])])
            whole_losses = tf.math.divide_no_nan(whole[0], whole[1])
            has_target_labels = whole[2] > 0
        probe = Probe(
            losses=whole_losses,
            gradients=gradients,
            variables=shared,
            optimizer=model.optimizer,
            loss_sums=lambda values: sums_at(values)[:2],
            low_precision=not self._is_held_out and self._full_precision.is_needed(),
            feature_gradients=of_features,
            batch_size=whole_size,
        )
        values = self.estimator.measure(probe)
        too_large = None
        if loss_scale(model.optimizer) is not None:
            too_large = overflowed(gradients)
            if of_features is not None:
                # Each replica has features of its own.
                own = overflowed(StackedGradients([of_features]))
                too_large = sum_over_replicas([tf.cast(own, "float32")])[0] > 0
            too_large &= has_labels
            # A ReLU takes NaN for 0, so losses may be numbers again after a step to no number.
            values = tf.where(too_large[:, None], float("nan"), values)
        self.statistics.update(values, whole_size, has_labels, too_large, has_target_labels)


def probing_steps(
    model: TaskModel, step: ProbeStep, held_out: HeldOutBatches | None = None
) -> Cadence:
    """A train function that makes the probing step as often as its estimator says.

    The losses are measured on `held_out`, by default on the training batches.
    """
    statistics = step.statistics
    schedule = ProbeSchedule(
        step.estimator,
        [statistics],
        accumulated_batches(model.optimizer) or 1,
        model.steps_per_execution,
        lambda every: mean_over_workers(model.distribute_strategy, every),
    )
    plain = steps_of(model, step_without_probe(model))
    probing_step: Step = step
    if looks_again(model.loss_weighting):
        probing_step = _looking_again(model, step, held_out is not None)
    probing = steps_of(model, probing_step)
    if held_out is not None:
        held_out.open(model.distribute_strategy)
        probing = _with_held_out(model, probing, held_out, statistics, schedule)
    logs = model.get_metrics_result
    return Cadence(statistics, schedule, model.steps_per_execution, plain, probing, logs)


def _with_held_out(
    model: TaskModel,
    steps: Steps,
    held_out: HeldOutBatches,
    statistics: ProbeStatistics,
    schedule: ProbeSchedule,
) -> Steps:
    """Steps that get pairs of a batch and a held-out batch. They make one step at a time."""

    def on_pairs(iterator: Any, number: int) -> tuple[Any, int]:
        for batch in itertools.islice(iterator, 1):
            # The number of the probe chooses the batch, so that a restart goes on with the next.
            probe = schedule.number(statistics.steps)
            pair = batch, held_out.batch(probe, batch, statistics.largest_batch())
            return steps(iter([pair]), 1)
        return model.get_metrics_result(), 0

    return on_pairs
