"""IMTL-G: a direction with equal projections on all gradients."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.solvers import cosines_and_lengths, number_of, solve


def imtl_g_coefficients(gram: tf.Tensor) -> tf.Tensor:
    """Coefficients of IMTL-G (Liu et al., ICLR 2021), from products alone.

    With u_i = g_i / |g_i|, the products <sum_j w_j g_j, u_i> are equal for all i: the w_j |g_j| are
    the solution of cosines times x = 1, up to a factor. It makes the sum of w right.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.

    Returns:
        Tensor (T,), whose sum is the number of gradients that are not 0.
    """
    cosines, lengths = cosines_and_lengths(gram)
    weights = tf.math.divide_no_nan(solve(cosines, tf.ones_like(lengths)), lengths)
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights))
    return tf.cast(number_of(lengths) * weights, "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class IMTLG(GradientMethod):
    """IMTL-G (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021): equal projections.

    The shared variables get the sum of w_i g_i whose projections on all gradients are equal:

        <d, g_i> / |g_i| = <d, g_j> / |g_j|    for d = sum_i w_i g_i and sum_i w_i = T

    Weights may be negative. If the sum of what is scaled to T is close to 0, the step is long, and
    if it is negative, the step raises all losses; `ConFIG` has the same projections without that.
    The paper has the sum 1; with T, equal gradients make the plain sum. A task without a gradient
    takes no part, and T counts the others.

    A step makes one backward pass per task. Take it to treat all tasks alike whatever the size of
    their losses; for the losses themselves, the paper adds `IMTLL`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile(
        "adam", "mse", loss_weighting=tag_keras.IMTLL(), gradient_method=tag_keras.IMTLG()
    )
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return imtl_g_coefficients(gram)
