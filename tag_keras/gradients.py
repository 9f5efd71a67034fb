"""Per-task gradients and their sums."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def task_gradients(
    tape: tf.GradientTape, losses: Sequence[tf.Tensor], variables: Sequence[Any]
) -> list[list[tf.Tensor | None]]:
    """Gradient of each loss with respect to each variable, by one backward pass per loss.

    Args:
        tape: Persistent tape that recorded the losses.
        losses: T scalars.
        variables: P variables.

    Returns:
        T lists of P dense tensors with the shapes of the variables; `None` where the loss does
        not depend on the variable.
    """
    gradients = [tape.gradient(loss, list(variables)) for loss in losses]
    return [[_dense(gradient) for gradient in row] for row in gradients]


def weighted_sum(
    gradients: Sequence[Sequence[tf.Tensor | None]], weights: Sequence[Any]
) -> list[tf.Tensor | None]:
    """Gradient of `sum_i weights[i] * L_i` from the gradients of the losses.

    Args:
        gradients: T lists of P tensors, `None` for a zero gradient.
        weights: T scalars.

    Returns:
        P tensors; `None` where all T gradients are `None`.
    """
    return [_sum_one(column, weights) for column in zip(*gradients, strict=True)]


def _sum_one(column: Sequence[tf.Tensor | None], weights: Sequence[Any]) -> tf.Tensor | None:
    terms = [
        # A Python weight of 1 costs no operation, which is every weight by default.
        gradient if isinstance(weight, float) and weight == 1.0 else gradient * weight
        for gradient, weight in zip(column, weights, strict=True)
        if gradient is not None
    ]
    return tf.add_n(terms) if terms else None


def _dense(gradient: Any) -> tf.Tensor | None:
    # An Embedding's gradient comes as tf.IndexedSlices.
    return None if gradient is None else tf.convert_to_tensor(gradient)
