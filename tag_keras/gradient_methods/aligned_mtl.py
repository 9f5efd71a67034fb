"""Aligned-MTL: gradients that are made orthogonal and equally long."""

import keras
import numpy as np
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import exact


def aligned_mtl_coefficients(gram: tf.Tensor) -> tf.Tensor:
    """Coefficients of Aligned-MTL (Senushkin et al., arXiv 2305.19000), from products alone.

    Let G = V diag(s) V' with the eigenvalues s. The aligned gradients are the closest ones that are
    orthogonal and all as long as the root of the smallest s above 0. Their sum has the coefficients
    sqrt(min s) V diag(1 / sqrt(s)) V' 1, where eigenvalues of 0 are left out.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.

    Returns:
        Tensor (T,): coefficients of the g_i in the sum.
    """
    gram = exact(gram)
    tasks, lengths = gram.shape[0], tf.sqrt(tf.linalg.diag_part(gram))
    # Cosines tell which eigenvalues are 0 but for the rounding of float32, whatever the lengths.
    cosines = tf.math.divide_no_nan(gram, lengths[:, None] * lengths)
    tolerance = tasks * np.finfo("float32").eps
    rank = tf.math.count_nonzero(tf.linalg.eigvalsh(cosines) > tolerance, dtype="int32")
    # In rising order.
    values, vectors = tf.linalg.eigh(gram)
    roots = tf.sqrt(tf.where(tf.range(tasks) >= tasks - rank, tf.nn.relu(values), 0.0))
    least = tf.reduce_min(tf.where(roots > 0, roots, tf.reduce_max(roots)))
    balance = tf.math.divide_no_nan(least, roots)
    return tf.cast(tf.linalg.matvec(vectors, balance * tf.reduce_sum(vectors, axis=0)), "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class AlignedMTL(GradientMethod):
    """Aligned-MTL (Senushkin et al., CVPR 2023, arXiv 2305.19000): aligned principal components.

    The gradients are replaced by the closest vectors that are orthogonal and all equally long: as
    long as the root of the smallest eigenvalue above 0 of their products <g_i, g_j>. The shared
    variables get the sum of these, so there is no conflict and none dominates. The paper takes the
    mean, which is T times smaller.

    A step makes one backward pass per task. It is short where two gradients are nearly parallel,
    because of the smallest eigenvalue.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.AlignedMTL())
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return aligned_mtl_coefficients(gram)
