"""Proximal inter-task affinity: how the update of a group of tasks changed the losses."""

import tensorflow as tf


def group_affinity(
    before: tf.Tensor, after: tf.Tensor, group: tf.Tensor, present: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Proximal inter-task affinity of one update (Jeong and Yoon 2025, arXiv 2502.11986).

    The update of the group G gives task t the gain a_t = (1 - after_t / before_t) / |G|. The
    affinity of source s onto target t is:

        s in G, t not in G   a_t
        s = t in G           a_t, or no value if a_t is negative
        s != t, both in G    a_t, or -max(a_s, a_t) if a_s and a_t have opposite signs:
                             one gains and the other loses, which is a conflict for both

    So every source in the group has an equal share in the gain. A task whose loss was not positive
    before, or is not finite after, has no value as a target, nor as a source within its group.

    Args:
        before: Float32 tensor (T,): losses before the update.
        after: Float32 tensor (T,): losses after the update.
        group: Boolean tensor (T,): tasks of the group.
        present: Boolean tensor (T,): tasks with labels. Tasks without labels have no values and do
            not count in |G|.

    Returns:
        Affinities, float32 tensor (T, T), [source, target], 0 where there is no value; and where
        there is one, boolean tensor (T, T).
    """
    usable = present & (before > 0) & tf.math.is_finite(before) & tf.math.is_finite(after)
    sources = group & present
    size = tf.maximum(tf.reduce_sum(tf.cast(sources, "float32")), 1.0)
    gains = (1.0 - tf.math.divide_no_nan(after, before)) / size
    gains = tf.where(usable, gains, 0.0)
    of_source, of_target = gains[:, None], gains[None, :]
    # The product of small gains would be 0.
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
    """Exponential moving average, `(1 - decay) * average + decay * values`, of visited entries."""
    return tf.where(visited, (1.0 - decay) * average + decay * values, average)
