"""A training step that looks at the gradients of the single tasks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tag_keras.backward_passes import BackwardPasses
from tag_keras.gradients import (
    Gradients,
    gradient_norms,
    gram_matrix,
    of_whole_batch,
    select_variables,
)
from tag_keras.optimizers import loss_scale
from tag_keras.task_model import TaskModel


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
