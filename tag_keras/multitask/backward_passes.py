"""The backward passes of a training step that looks at the gradients of the single tasks."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, looped_gradients, task_gradients, weighted_sum
from tag_keras.backend.layers import layers_in
from tag_keras.backend.replicas import num_replicas
from tag_keras.multitask.task_model import TaskModel

# With more tasks, the graph has a loop over them. It is slower than T copies of a few operations,
# and much faster to trace than T copies of many.
_MOST_UNROLLED = 12


class BackwardPasses:
    """One batch's gradients of every task's loss, and those of the joint loss.

    Where the gradients of the tasks are wanted for all shared variables, those of the joint loss
    are made of them, so that there are no more passes than tasks.

    Args:
        model: Compiled model.
        tape: Persistent tape.
        losses: T scalars: losses of the tasks. They may be multiplied by a loss scale.
        joint: Joint loss of the tasks, and the losses of the model's own, multiplied by the same.
        factors: T scalars: weights of the losses in the joint loss.
        kernel: The one variable for which the gradients of the tasks are wanted; `None` for all
            shared variables.
    """

    def __init__(
        self,
        model: TaskModel,
        tape: tf.GradientTape,
        losses: Sequence[tf.Tensor],
        joint: Sequence[tf.Tensor],
        factors: Sequence[Any],
        kernel: keras.Variable | None = None,
    ) -> None:
        self._model, self._tape = model, tape
        self._losses, self._joint, self._factors = list(losses), list(joint), factors
        shared = model.shared_variables
        ids = {id(variable) for variable in shared}
        others = [variable for variable in model.trainable_variables if id(variable) not in ids]
        self._variables = [*shared, *others]
        self._of_others: list[Any] | None = None
        self.of_tasks: Gradients
        self.chosen = shared if kernel is None else [kernel]
        if kernel is not None or not shared:
            by_task = looped_gradients if is_looped(model) and self.chosen else task_gradients
            self.of_tasks = by_task(tape, losses, self.chosen)
        elif is_looped(model):
            self.of_tasks = looped_gradients(tape, losses, shared)
            self._of_others = tape.gradient(joint[0], others)
        else:
            rows = task_gradients(tape, losses, self._variables)
            self.of_tasks = [row[: len(shared)] for row in rows]
            self._of_others = weighted_sum([row[len(shared) :] for row in rows], factors)

    def of_joint_loss(self, coefficients: tf.Tensor | None = None) -> list[tuple[Any, Any]]:
        """Gradient with respect to each trainable variable, with the variable.

        Args:
            coefficients: Float32 tensor (T,): what the gradients of the tasks with respect to the
                shared variables are multiplied by, besides the weights of the losses. By default
                with nothing. It is for all shared variables or none.
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
        """Gradients that are not a sum of those of the tasks, with the indices of the variables.

        Adam and others square the slices of an Embedding's gradient before they add up those of
        the same row: for them a dense gradient would be another step. And what weighs the losses
        has a gradient only of the joint loss.
        """
        layers = layers_in(self._model)
        embeddings = [layer for layer in layers if isinstance(layer, keras.layers.Embedding)]
        weighting = self._model.task_losses.weighting
        ids = {
            id(variable)
            for layer in [*embeddings, *([] if weighting is None else [weighting])]
            for variable in layer.trainable_variables
        }
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
    """Whether the graph has a loop over the tasks, in which replicas cannot communicate."""
    synchronizes = any(getattr(layer, "synchronized", False) for layer in layers_in(model))
    return len(model.tasks) > _MOST_UNROLLED and not (synchronizes and num_replicas() > 1)
