"""Nash-MTL: the direction that tasks agree on when they bargain."""

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.fairgrad import fair_coefficients


@keras.saving.register_keras_serializable(package="tag_keras")
class NashMTL(GradientMethod):
    """Nash-MTL (Navon et al., ICML 2022, arXiv 2202.01017, claim 3.1): the tasks bargain.

    The shared variables get d = sum_i w_i g_i, the Nash bargaining solution: of all directions, the
    one in which the sum of log <g_i, d> is largest. Its weights solve

        <g_i, d> = 1 / w_i    for each i

    How long a task's gradient is does not matter to its part. The length of d is the root of the
    number of tasks, whatever that of the gradients: take an optimizer that divides by the size of
    gradients, such as Adam, or a learning rate that falls. A task without a gradient takes no part.

    The weights are exact, and new in each step. The paper may keep them for some steps, to save
    backward passes, and its code limits the length of d to 1, which is one factor in each step.

    A step makes one backward pass per task. Take it for tasks whose losses differ in size and unit.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.NashMTL())
    ```
    """

    needs_scale = True

    def coefficients(self, gram: tf.Tensor, scale: tf.Tensor = 1.0) -> tf.Tensor:
        return fair_coefficients(gram, 1.0, scale)
