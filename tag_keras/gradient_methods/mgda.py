"""MGDA: the shortest vector between the gradients."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import complementarity, cosines_and_lengths, number_of


def mgda_coefficients(gram: tf.Tensor) -> tf.Tensor:
    """Coefficients of MGDA (Sener and Koltun, arXiv 1810.04650, eq. 3), from products alone.

    The weights w >= 0 with the sum 1 make |sum_i w_i g_i| shortest. Up to their sum, they solve
    x >= 0, G x >= 1, x * (G x - 1) = 0.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.

    Returns:
        Tensor (T,): the weights times the number of gradients that are not 0.
    """
    cosines, lengths = cosines_and_lengths(gram)
    # With y_i = x_i |g_i|, so that a gradient may be much shorter than another.
    inverse = tf.math.divide_no_nan(tf.ones_like(lengths), lengths)
    inverse = tf.math.divide_no_nan(inverse, tf.reduce_max(inverse))
    weights = complementarity(cosines, -inverse[None])[0] * inverse
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights))
    return tf.cast(number_of(lengths) * weights, "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class MGDA(GradientMethod):
    """MGDA (Désidéri 2012; Sener and Koltun, NeurIPS 2018, arXiv 1810.04650): min-norm gradient.

    The shared variables get the shortest vector in the convex hull of the gradients,

        T * argmin |sum_i w_i g_i|^2    over w >= 0 with sum_i w_i = 1

    It has the same product with the gradients of all tasks that count, and no smaller one with any
    other: a small step raises no task's loss. Tasks with short gradients count most. The paper has
    no factor T; with it, equal gradients make the plain sum. A task without a gradient takes no
    part, and T counts the others. The solution is exact, where the paper's algorithm approaches it.

    A step makes one backward pass per task. Take it to find a point that cannot be improved for all
    tasks together; it slows down where gradients conflict much.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.MGDA())
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return mgda_coefficients(gram)
