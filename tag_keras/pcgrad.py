"""PCGrad from the Gram matrix of the tasks' gradients."""

import tensorflow as tf


def pcgrad_coefficients(gram: tf.Tensor, order: tf.Tensor, with_itself: bool = False) -> tf.Tensor:
    """Coefficients of the gradients in their sum after projections (PCGrad; arXiv 2001.06782).

    Every gradient g_i is projected, one after the other, on the normal plane of each other one that
    it then conflicts with: v <- v - (<v, g_j> / |g_j|^2) g_j if <v, g_j> < 0. All that is known of
    v are its coefficients in the g_j, and all that is asked of the g_j are their products.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        order: Integer tensor (T, T): row i is a permutation of the tasks, the order in which g_i is
            projected on the normal planes of the others.
        with_itself: Whether g_i is also projected on the normal plane of itself where it comes
            to conflict with itself, as in the code of the authors of the paper.

    Returns:
        Tensor (T,): all 1 where no two gradients conflict.
    """
    tasks = gram.shape[0]
    identity, squares = tf.eye(tasks, dtype=gram.dtype), tf.linalg.diag_part(gram)
    rows = identity
    for step in range(tasks):
        others = tf.one_hot(order[:, step], tasks, dtype=gram.dtype)
        products = tf.reduce_sum(tf.matmul(rows, gram) * others, axis=1)
        lengths = tf.linalg.matvec(others, squares)
        conflict = (products < 0) & (lengths > 0)
        if not with_itself:
            conflict &= tf.linalg.diag_part(others) == 0
        factors = tf.where(conflict, tf.math.divide_no_nan(products, lengths), 0.0)
        rows -= factors[:, None] * others
    return tf.reduce_sum(rows, axis=0)
