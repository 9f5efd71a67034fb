"""Proximal inter-task affinity: what the update of a group of tasks did to the losses."""

import tensorflow as tf


def group_affinity(
    before: tf.Tensor, after: tf.Tensor, group: tf.Tensor, present: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Proximal inter-task affinity of one update (Jeong and Yoon, Selective Task Group Updates).

    With the gain a_t = (1 - after_t / before_t) / |G| of task t by the update of the group G:

        s in G, t not in G   a_t
        s = t in G           a_t if it is not negative, else there is no value
        s != t, both in G    a_t if a_s and a_t have not opposite signs, else -max(a_s, a_t):
                             one gains what the other loses, which is a conflict for both

    So every source in the group is held to cause an equal share of the gain. A target whose loss
    was not positive, or is not finite, has no value, nor has such a source within its group.

    Args:
        before: Float32 tensor (T,): losses before the update.
        after: Float32 tensor (T,): losses after it.
        group: Boolean tensor (T,): the tasks of the group.
        present: Boolean tensor (T,): the tasks with labels. The others take no part, and do not
            count in |G|.

    Returns:
        Float32 tensor (T, T), [source, target], 0 where there is no value; and a boolean tensor
        (T, T): where there is one.
    """
    usable = present & (before > 0) & tf.math.is_finite(before) & tf.math.is_finite(after)
    sources = group & present
    size = tf.maximum(tf.reduce_sum(tf.cast(sources, "float32")), 1.0)
    gains = (1.0 - tf.math.divide_no_nan(after, before)) / size
    gains = tf.where(usable, gains, 0.0)
    of_source, of_target = gains[:, None], gains[None, :]
    # Not the sign of the product, which would be 0 for small gains.
    agree = ((of_source >= 0) & (of_target >= 0)) | ((of_source <= 0) & (of_target <= 0))
    within = sources[:, None] & sources[None, :]
    values = tf.where(within & ~agree, -tf.maximum(of_source, of_target), of_target)
    harms_itself = tf.linalg.diag(gains < 0)
    visited = sources[:, None] & usable[None, :] & ~(within & ~usable[:, None])
    visited &= ~(within & harms_itself)
    return tf.where(visited, values, 0.0), visited


def moving_average(
    average: tf.Tensor, values: tf.Tensor, visited: tf.Tensor, decay: tf.Tensor | float
) -> tf.Tensor:
    """Exponential moving average `(1 - decay) * average + decay * values` of what was visited."""
    return tf.where(visited, (1.0 - decay) * average + decay * values, average)
