"""UPGrad: project gradients so that their sum conflicts with none of them."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.dual_cone import DualConeMethod
from tag_keras.gradient_methods.solvers import complementarity, with_ridge


def upgrad_coefficients(gram: tf.Tensor, ridge: float = 1e-4) -> tf.Tensor:
    """Coefficients of UPGrad (Quinton and Rey, arXiv 2406.16232, eq. 3 and 4), from products alone.

    The projection of g_i onto the dual cone is the vector closest to g_i that has no negative
    product with any gradient. It is g_i + sum_j lambda_j g_j, with the lambda >= 0 that makes it
    shortest. The projections are summed.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        ridge: Number, relative to the trace, that is added to the diagonal. Without it dependent
            gradients have no unique coefficients.

    Returns:
        Tensor (T,): coefficients of the g_i in the sum, all 1 where no two gradients conflict.
    """
    regular = with_ridge(gram, ridge)
    # Row i is the problem of task i. The ridge makes no conflict: it is on the diagonal.
    added = complementarity(regular, regular)
    return tf.cast(1.0 + tf.reduce_sum(added, axis=0), "float32")


@keras.saving.register_keras_serializable(package="tag_keras")
class UPGrad(DualConeMethod):
    """UPGrad (Quinton and Rey 2024, arXiv 2406.16232): unconflicting projection of gradients.

    Each task's gradient is replaced by the closest vector that has no negative product with any
    gradient, and the shared variables get the sum of the results:

        sum_i argmin |v - g_i|^2    over all v with <v, g_j> >= 0 for every j

    Without a conflict, this is the plain sum. Unlike with PCGrad, a small step along it raises no
    task's loss, and the order of the tasks does not matter. The paper takes the mean, which is
    T times smaller.

    A step makes one backward pass per task: about 5 plain steps for nine tasks. Take it where
    gradients of tasks conflict, and one network has to serve all of them.

    Args:
        ridge: Number that is added to the squared length of each gradient, relative to the sum of
            these squares. Without it nearly parallel gradients have no unique solution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `ridge` is not between 1e-6 and 1.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.UPGrad())
    ```
    """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return upgrad_coefficients(gram, self.ridge)
