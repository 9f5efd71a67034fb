"""Which labels are missing: those that are NaN, and those whose sample weight is 0."""

from collections.abc import Sequence

import tensorflow as tf


def without_nan(labels: tf.Tensor) -> tf.Tensor:
    """The labels with 0 for NaN: a loss times 0 would still be NaN, and so would its gradient."""
    if not labels.dtype.is_floating:
        return labels
    return tf.where(tf.math.is_nan(labels), tf.zeros_like(labels), labels)


def present(
    labels: tf.Tensor, values: tf.Tensor, conditions: Sequence[tf.Tensor | None] = ()
) -> tf.Tensor:
    """Where a value has a label.

    Args:
        labels: Labels. A NaN in any of those that belong to one value makes it missing.
        values: One value, such as a loss, by example, or by pixel, ...; its axes are the first
            ones of `labels`.
        conditions: What else has to be true, or not 0: sample weights and masks, whose axes are
            the first ones of `values`; `None` is no condition.

    Returns:
        Boolean tensor with the shape of `values`.
    """
    rank = values.shape.rank
    conditions = [tf.cast(one, "bool") for one in conditions if one is not None]
    if labels.dtype.is_floating:
        missing = tf.math.is_nan(labels)
        axes = list(range(rank, labels.shape.rank))
        conditions.append(~(tf.reduce_any(missing, axes) if axes else missing))
    result = tf.ones(tf.shape(values), "bool")
    for one in conditions:
        result = tf.logical_and(result, with_rank(one, rank))
    return result


def with_rank(tensor: tf.Tensor, rank: int) -> tf.Tensor:
    """The tensor with axes of length 1 added or taken away at the end."""
    while tensor.shape.rank < rank:
        tensor = tf.expand_dims(tensor, -1)
    while tensor.shape.rank > rank:
        tensor = tf.squeeze(tensor, -1)
    return tensor
