"""Backward passes of a training step that needs the gradients of the single tasks."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, looped_gradients, task_gradients, weighted_sum
from tag_keras.backend.layers import layers_in
from tag_keras.backend.replicas import num_replicas
from tag_keras.multitask.task_model import TaskModel

# With more tasks, the graph has a loop over them: slower than T copies of the backward pass, but
# traced much faster. At 12 tasks of a small network that probes each second step, copies traced in
# 2.4 times the time of plain Keras and made 84 steps per second, the loop in 1.5 and made 42; at 16
# tasks the copies traced in 3.5 times, the loop in 2.2, and both made 35 steps per second.
_MOST_UNROLLED = 12


class BackwardPasses:
    """Gradients of every task's loss and of the joint loss for one batch.

    If the tasks' gradients cover all shared variables, they give the gradients of the joint loss,
    so that there are no more passes than tasks.

    Args:
        model: Compiled model.
        tape: Persistent tape that recorded the losses.
        losses: T scalars, which may be multiplied by a loss scale.
        joint: Scalars: the joint loss of the tasks, then the model's own losses, with that scale.
        factors: T scalars: weights of the losses in the joint loss.
        chosen: Variables that need gradients by task; `None` for all shared variables.
    """

    def __init__(
        self,
        model: TaskModel,
        tape: tf.GradientTape,
        losses: Sequence[tf.Tensor],
        joint: Sequence[tf.Tensor],
        factors: Sequence[Any],
        chosen: Sequence[keras.Variable] | None = None,
    ) -> None:
        self._model, self._tape = model, tape
        self._losses, self._joint, self._factors = list(losses), list(joint), factors
        shared = model.shared_variables
        ids = {id(variable) for variable in shared}
        others = [variable for variable in model.trainable_variables if id(variable) not in ids]
        self._variables = [*shared, *others]
        self._of_others: list[Any] | None = None
        self.of_tasks: Gradients
        self.chosen = shared if chosen is None else list(chosen)
        if not self.chosen:
            self.of_tasks = [[] for _ in losses]
        elif chosen is not None:
            by_task = looped_gradients if is_looped(model) else task_gradients
            self.of_tasks = by_task(tape, losses, self.chosen)
        elif is_looped(model):
            self.of_tasks = looped_gradients(tape, losses, shared)
            self._of_others = tape.gradient(joint[0], others)
        else:
            rows = task_gradients(tape, losses, self._variables)
            self.of_tasks = [row[: len(shared)] for row in rows]
            self._of_others = weighted_sum([row[len(shared) :] for row in rows], factors)

    def of_joint_loss(self, coefficients: tf.Tensor | None = None) -> list[tuple[Any, Any]]:
        """Pairs of a gradient and its variable, for all trainable variables.

        Args:
            coefficients: Float32 tensor (T,): further factors of the tasks' gradients with respect
                to the shared variables; by default 1. Only without `chosen`.
        """
        if self._of_others is None:
            gradients = self._tape.gradient(self._joint, self._variables)
            return list(zip(gradients, self._variables, strict=True))
        factors = self._factors
        if coefficients is not None:
            pairs = zip(tf.unstack(coefficients), factors, strict=True)
            factors = [one * tf.cast(factor, "float32") for one, factor in pairs]
        gradients = [*weighted_sum(self.of_tasks, factors), *self._of_others]
        if own_losses := self._joint[1:]:
            more = self._tape.gradient(own_losses, self._variables)
            gradients = weighted_sum([gradients, more], [1.0, 1.0])
        for index, gradient in self._exact(None if coefficients is None else factors):
            gradients[index] = gradient
        return list(zip(gradients, self._variables, strict=True))

    def _exact(self, factors: Sequence[tf.Tensor] | None) -> list[tuple[int, Any]]:
        """Pairs of a variable's index and a gradient that cannot be a sum over the tasks.

        Optimizers like Adam square the slices of an Embedding's gradient before they add them up by
        row, so a dense gradient would make another step. The variables of a loss weighting have a
        gradient only in the joint loss.
        """
        layers: list[keras.layers.Layer] = [
            layer for layer in layers_in(self._model) if isinstance(layer, keras.layers.Embedding)
        ]
        if self._model.loss_weighting is not None:
            layers.append(self._model.loss_weighting)
        ids = {id(variable) for layer in layers for variable in layer.trainable_variables}
        chosen = [index for index, one in enumerate(self._variables) if id(one) in ids]
        combined = [i for i in chosen if factors is not None and i < len(self.chosen)]
        plain = [i for i in chosen if i not in combined]
        gradients = self._tape.gradient(self._joint, [self._variables[i] for i in plain])
        exact = list(zip(plain, gradients, strict=True))
        if factors is not None and combined:
            targets = [*self._losses, *self._joint[1:]]
            seeds = [*factors, *(tf.ones(()) for _ in self._joint[1:])]
            gradients = self._tape.gradient(
                targets,
                [self._variables[i] for i in combined],
                [tf.cast(seed, target.dtype) for seed, target in zip(seeds, targets, strict=True)],
            )
            exact += zip(combined, gradients, strict=True)
        return exact


def is_looped(model: TaskModel) -> bool:
    """Whether the graph has a loop over the tasks. Replicas cannot communicate in such a loop."""
    synchronizes = any(getattr(layer, "synchronized", False) for layer in layers_in(model))
    return len(model.tasks) > _MOST_UNROLLED and not (synchronizes and num_replicas() > 1)
