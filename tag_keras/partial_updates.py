"""Steps of an optimizer that move some of the variables and leave the others alone."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.optimizers import inner_optimizer
from tag_keras.train_step import stateless_view

# A tensor, or tf.IndexedSlices.
Gradient = Any


class PartialUpdates:
    """Steps of an optimizer on parts of the variables that are chosen in the graph.

    A part that is not chosen keeps its values and the optimizer's state of them, momentum
    included: a step with a gradient of 0 would move both. So the step is computed for all parts,
    from values to values, and taken for those that are chosen: equal to `optimizer.apply` with
    the gradients and variables of these alone. No variable is assigned; the optimizer's
    `iterations` stay.

    Args:
        optimizer: A built optimizer.
        variables: P trainable variables that it was built with.
        parts: Index of its part by variable.

    Raises:
        ValueError: If the optimizer was made with `use_ema` or `gradient_accumulation_steps`.
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
        self._number = len(variables)
        common = {id(optimizer.iterations), id(optimizer._learning_rate)}
        own = [variable for variable in optimizer.variables if id(variable) not in common]
        # The optimizer's state follows the variables.
        self.variables = [*variables, *own]
        # By index into `variables`, the part that moves it.
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
            gradients: P gradients of the whole batch; `None` leaves a variable alone.
            chosen: Boolean tensor, by part.
            more_updates: By part, integers: see `stateless_view`.

        Returns:
            New values of `self.variables`.

        Raises:
            ValueError: If the optimizer has a state that several parts have in common.
        """
        present = [index for index, one in enumerate(gradients) if one is not None]
        # Before clipping by the global norm, which is to be that of the chosen.
        masked = [_where(chosen[self._parts[index]], gradients[index]) for index in present]
        clipped = dict(zip(present, self._optimizer._clip_gradients(masked), strict=True))
        result = list(values)
        for part, number in enumerate(more_updates):
            indices = [index for index in present if self._parts[index] == part]
            rows = [clipped[index] for index in indices]
            for index, new in self._stepped(values, rows, indices, number).items():
                self._check_owner(index, part)
                result[index] = tf.where(chosen[part], new, values[index])
        return result

    def _stepped(
        self,
        values: Sequence[tf.Tensor],
        gradients: Sequence[Gradient],
        indices: Sequence[int],
        more_updates: tf.Tensor | int,
    ) -> dict[int, tf.Tensor]:
        """What a step on some variables makes of all that it changes, by index."""
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

    def _check_owner(self, index: int, part: int) -> None:
        if self._owners.setdefault(index, part) != part:
            raise ValueError(
                f"The optimizer {type(self._optimizer).__name__} has a state that all variables "
                "have in common, so it cannot update some of them alone. Use another one, such as "
                "Adam."
            )


def check_partial(optimizer: keras.optimizers.Optimizer) -> None:
    """Checks that the options of an optimizer go with updates of some of its variables.

    Raises:
        ValueError: If they do not.
    """
    optimizer = inner_optimizer(optimizer)
    for name in ("gradient_accumulation_steps", "use_ema"):
        if value := getattr(optimizer, name):
            raise ValueError(
                "Updates by groups of tasks are several in one batch, which does not go with "
                f"{name} of the optimizer: leave it out. Received: {name}={value!r}."
            )


def _where(condition: tf.Tensor, gradient: Gradient) -> Gradient:
    """The gradient, or 0."""
    if isinstance(gradient, tf.IndexedSlices):
        values = _where(condition, gradient.values)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.where(condition, gradient, tf.zeros_like(gradient))
