"""ConFIG: a direction with equal cosines to all gradients."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import cosines_and_lengths, solve


def config_coefficients(gram: tf.Tensor) -> tf.Tensor:
    """Coefficients of ConFIG (Liu, Chu and Thuerey, arXiv 2408.11104), from products alone.

    With u_i = g_i / |g_i|, the direction v = sum_i x_i u_i has the product 1 with each u_i, so x
    solves cosines times x = 1, and |v|^2 = sum_i x_i. The result is (sum_i <g_i, v>) v / |v|^2.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.

    Returns:
        Tensor (T,): coefficients of the g_i in the result.
    """
    cosines, lengths = cosines_and_lengths(gram)
    has_gradient = tf.cast(lengths > 0, lengths.dtype)
    parts = solve(cosines, has_gradient)
    square = tf.reduce_sum(parts)
    factors = tf.math.divide_no_nan(parts * tf.reduce_sum(lengths), lengths)
    return tf.cast(tf.math.divide_no_nan(factors, square), "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class ConFIG(GradientMethod):
    """ConFIG (Liu, Chu and Thuerey, ICLR 2025, arXiv 2408.11104): conflict-free direction.

    The shared variables get the vector d with the same cosine to each gradient, and as long as the
    projections of all gradients on it together:

        <d, g_i> / |g_i| = <d, g_j> / |g_j| >= 0,   |d| = sum_i <d, g_i> / |d|

    A small step raises no task's loss, and the size of a gradient does not decide on the direction.
    A task without a gradient takes no part. Equal gradients make the plain sum.

    A step makes one backward pass per task. Take it where gradients differ in size and conflict, as
    in networks that learn physical equations.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.ConFIG())
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return config_coefficients(gram)
