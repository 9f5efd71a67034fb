"""An update for one group of tasks: the optimizer's step on some of the variables."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.optimizers import (
    clipped_gradients,
    inner_optimizer,
    loss_scale,
    stateless_view,
    variables_of_all,
)
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.multitask.task_model import TaskModel

# A tensor, or tf.IndexedSlices.
Gradient = Any


class PartialUpdates:
    """Steps of an optimizer on some parts of the variables, which are chosen in the graph.

    The result equals `optimizer.apply` with the gradients and variables of the chosen parts alone.
    The other parts keep their values and their state in the optimizer, such as momentum. (A step
    with a gradient of 0 would move both.) So the step is computed for all parts and taken for the
    chosen ones. No variable is assigned, and the optimizer's `iterations` stay.

    Args:
        optimizer: A built optimizer.
        variables: The P trainable variables that it was built with.
        parts: For each variable, the index of its part.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        parts: Sequence[int],
    ) -> None:
        optimizer = inner_optimizer(optimizer)
        check_partial(optimizer)
        self._optimizer = optimizer
        self._parts = list(parts)
        common = {id(variable) for variable in variables_of_all(optimizer)}
        own = [variable for variable in optimizer.variables if id(variable) not in common]
        # The trainable variables, then the optimizer's state.
        self.variables = [*variables, *own]
        # For each index into `variables`, the part that moves this variable.
        self._owners: dict[int, int] = {}

    def __call__(
        self,
        values: Sequence[tf.Tensor],
        gradients: Sequence[Gradient | None],
        chosen: tf.Tensor,
        more_updates: Sequence[tf.Tensor | int],
    ) -> list[tf.Tensor]:
        """The values after a step.

        Args:
            values: Values of `self.variables`.
            gradients: P gradients of the whole batch, or `None` for a variable that stays.
            chosen: Boolean tensor: for each part, whether to take the step.
            more_updates: For each part, an integer: its updates beyond `optimizer.iterations`.

        Returns:
            New values of `self.variables`.
        """
        present = [index for index, one in enumerate(gradients) if one is not None]
        # Before clipping: the global norm is the norm of the chosen gradients.
        masked = [_where(chosen[self._parts[index]], gradients[index]) for index in present]
        clipped = dict(zip(present, clipped_gradients(self._optimizer, masked), strict=True))
        result = list(values)
        for part, number in enumerate(more_updates):
            indices = [index for index in present if self._parts[index] == part]
            rows = [clipped[index] for index in indices]
            for index, new in self._stepped(values, rows, indices, number).items():
                if self._owners.setdefault(index, part) != part:
                    raise ValueError(
                        f"The optimizer {type(self._optimizer).__name__} has a state that all "
                        "variables have in common, so it cannot update some of them alone. Use "
                        "another one, such as Adam."
                    )
                result[index] = tf.where(chosen[part], new, values[index])
        return result

    def _stepped(
        self,
        values: Sequence[tf.Tensor],
        gradients: Sequence[Gradient],
        indices: Sequence[int],
        more_updates: tf.Tensor | int,
    ) -> dict[int, tf.Tensor]:
        """By index, the new value of each variable that a step on some of them changes."""
        if not indices:
            return {}
        variables = [self.variables[index] for index in indices]
        unclipped = {"clipnorm": None, "global_clipnorm": None, "clipvalue": None}
        view = stateless_view(self._optimizer, variables, more_updates, **unclipped)
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            before = [scope.get_current_value(variable) for variable in self.variables]
            view.apply(list(gradients), variables)
        after = [scope.get_current_value(variable) for variable in self.variables]
        return {
            index: new
            for index, (old, new) in enumerate(zip(before, after, strict=True))
            if new is not old
        }


def check_partial(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises a `ValueError` if an optimizer cannot update some of its variables alone."""
    optimizer = inner_optimizer(optimizer)
    for name in ("gradient_accumulation_steps", "use_ema"):
        if value := getattr(optimizer, name):
            raise ValueError(
                "Updates by groups of tasks are several in one batch, which does not go with "
                f"{name} of the optimizer: leave it out. Received: {name}={value!r}."
            )


def _where(condition: tf.Tensor, gradient: Gradient) -> Gradient:
    """The gradient where the condition is true, and 0 where it is not."""
    if isinstance(gradient, tf.IndexedSlices):
        values = _where(condition, gradient.values)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.where(condition, gradient, tf.zeros_like(gradient))


class GroupOptimizer:
    """Makes the updates of a model for groups of tasks, by the model's optimizer.

    A variable moves with each group that has a task that depends on the variable: shared variables
    with every group, heads with one.

    `iterations` advances once per batch, and with it a learning rate schedule. The optimizer's own
    formulas, such as Adam's correction, count the updates of a variable: one per batch for heads,
    one per group and batch for shared variables.

    Args:
        model: Compiled model that has all its variables.
        more_updates: Number of updates of the shared variables so far, beyond `iterations`.
    """

    def __init__(self, model: TaskModel, more_updates: keras.Variable) -> None:
        sets = _tasks_by_variable(model)
        # Sorted, so that all replicas and all runs have the same order.
        distinct = sorted(set(sets), key=sorted)
        # Parts of the variables by tasks, boolean tensor.
        self._members = tf.constant(
            [[task in tasks for task in range(len(model.tasks))] for tasks in distinct]
        )
        self._are_common = [len(tasks) > 1 for tasks in distinct]
        self._more_updates = more_updates
        self._optimizer = model.optimizer
        self._updates = PartialUpdates(
            model.optimizer, model.trainable_variables, [distinct.index(one) for one in sets]
        )
        self.variables = self._updates.variables
        self._scale = loss_scale(model.optimizer)

    def step(
        self,
        values: Sequence[tf.Tensor],
        gradients: Sequence[Gradient | None],
        group: tf.Tensor,
        present: tf.Tensor,
        updates: tf.Tensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Makes an update for one group.

        Args:
            values: Values of `self.variables`.
            gradients: Gradients of this replica's share of the group's scaled loss with respect to
                the trainable variables, or `None` where the loss does not depend on a variable.
            group: Boolean tensor (T,): tasks of the group.
            present: Boolean tensor (T,): tasks with labels in the batch.
            updates: Number of updates in this batch so far, int32.

        Returns:
            Values of `self.variables` after the update; whether there was an update, which needs
            labels for the group; and whether there was none because gradients of a scaled loss
            were not finite.
        """
        gradients = self._of_whole_batch(gradients)
        has_labels = tf.reduce_any(group & present)
        finite = tf.constant(True) if self._scale is None else _are_finite(gradients)
        moved = has_labels & finite
        chosen = moved & tf.reduce_any(self._members & group, axis=1)
        integer = self._optimizer.iterations.dtype
        more = tf.cast(self._more_updates, integer) + tf.cast(updates, integer)
        new = self._updates(
            values, gradients, chosen, [more if common else 0 for common in self._are_common]
        )
        return new, moved, has_labels & ~finite

    def counters(
        self, updates: tf.Tensor, overflowed: tf.Tensor
    ) -> list[tuple[keras.Variable, tf.Tensor]]:
        """The optimizer's counters at the end of a batch, with their new values.

        The loss scale counts batches, too. It is halved after a batch with an overflow.
        """
        optimizer, inner = self._optimizer, getattr(self._optimizer, "inner_optimizer", None)
        iterations = optimizer.iterations
        # As in Keras, a batch does not count if overflows left no update.
        counts = tf.cast((updates > 0) | ~overflowed, iterations.dtype)
        result = [(iterations, tf.convert_to_tensor(iterations) + counts)]
        if inner is None:
            return result
        scale = tf.convert_to_tensor(optimizer.dynamic_scale)
        counter = tf.convert_to_tensor(optimizer.step_counter)
        grows = ~overflowed & (counter >= optimizer.dynamic_growth_steps - 1)
        factor = tf.where(overflowed, 0.5, tf.where(grows, 2.0, 1.0))
        following = tf.where(overflowed | grows, tf.zeros_like(counter), counter + 1)
        result += [(optimizer.dynamic_scale, scale * factor), (optimizer.step_counter, following)]
        return result

    def _of_whole_batch(self, gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
        present = [one for one in gradients if one is not None]
        if self._scale is not None:
            # By Keras, which also divides the tf.IndexedSlices of an Embedding.
            present = [keras.ops.divide(one, self._scale) for one in present]
        summed = iter(sum_over_replicas(present))
        return [None if one is None else next(summed) for one in gradients]


def _tasks_by_variable(model: TaskModel) -> list[frozenset[int]]:
    """For each trainable variable of a model, the indices of the tasks that depend on it."""
    tasks: dict[int, frozenset[int]] = dict(model._sharing.tasks_of(model.encoder))
    for index, task in enumerate(model.tasks):
        for variable in model.heads[task].variables:
            tasks[id(variable)] = tasks.get(id(variable), frozenset()) | {index}
    return [tasks.get(id(variable), frozenset()) for variable in model.trainable_variables]


def _are_finite(gradients: Sequence[Any]) -> tf.Tensor:
    values = [getattr(one, "values", one) for one in gradients if one is not None]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in values])
