"""Replicas: what the devices of a `tf.distribute` strategy have to agree on."""

import tensorflow as tf


def num_replicas() -> int:
    """Number of replicas that train together; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def sum_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """All-reduces by summation; with one replica, the tensors as they are."""
    context = tf.distribute.get_replica_context()
    # Keras builds its metrics outside of the replicas, where there is nothing to sum.
    if num_replicas() == 1 or context is None:
        return tensors
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))
