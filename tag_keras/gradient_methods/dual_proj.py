"""DualProj: project the sum of the gradients so that it conflicts with none of them."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.dual_cone import DualConeMethod
from tag_keras.gradient_methods.solvers import complementarity, with_ridge


def dual_proj_coefficients(gram: tf.Tensor, ridge: float = 1e-4) -> tf.Tensor:
    """Coefficients of the projection (Lopez-Paz and Ranzato, arXiv 1706.08840).

    The vector closest to s = sum_i g_i that has no negative product with any gradient is
    s + sum_j lambda_j g_j, with the lambda >= 0 that makes it shortest.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        ridge: Number, relative to the trace, that is added to the diagonal.

    Returns:
        Tensor (T,): coefficients of the g_i, all 1 where the sum conflicts with no gradient.
    """
    regular = with_ridge(gram, ridge)
    added = complementarity(regular, tf.reduce_sum(regular, axis=0)[None])[0]
    return tf.cast(1.0 + added, "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class DualProj(DualConeMethod):
    """DualProj (Lopez-Paz and Ranzato, NeurIPS 2017, arXiv 1706.08840): projected sum of gradients.

    Of all vectors that conflict with no gradient, the shared variables get the closest to the sum:

        argmin |v - sum_i g_i|^2    over all v with <v, g_j> >= 0 for every j

    The paper, where the method is a part of Gradient Episodic Memory, projects the gradient of the
    present task so; the name is TorchJD's. `UPGrad` projects each gradient for itself.

    A step makes one backward pass per task. Take it to change the plain step only where it would
    raise a task's loss.

    Args:
        ridge: Number that is added to the squared length of each gradient, relative to the sum of
            these squares. Without it nearly parallel gradients have no unique solution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `ridge` is not between 1e-6 and 1.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.DualProj())
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return dual_proj_coefficients(gram, self.ridge)
