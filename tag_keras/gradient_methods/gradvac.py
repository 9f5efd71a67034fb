"""GradVac: raise the cosines between gradients to what they usually are."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.gradient_methods.random_orders import RandomOrders
from tag_keras.gradient_methods.solvers import exact
from tag_keras.utils.checks import check_number

# A gradient cannot be turned all the way to another by adding some of it.
_LARGEST_COSINE = 0.9999


def gradvac_coefficients(
    gram: tf.Tensor, order: tf.Tensor, targets: tf.Tensor, beta: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Coefficients of GradVac (Wang et al., arXiv 2010.05874, algorithm 1), from products alone.

    For each task i, v starts as g_i and meets the other gradients g_j one after the other. If its
    cosine c with g_j is below the target t for the pair, v gets as much of g_j as makes it t:

        v <- v + |v| (t sqrt(1 - c^2) - c sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j

    Then the target moves to (1 - beta) t + beta c. Each v is kept as its coefficients in the g_j.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        order: Integer tensor (T, T): row i is a permutation of the tasks, the order in which g_i
            meets the others.
        targets: Tensor (T, T): target for the cosine of v of the row's task with the column's g_j.
        beta: Part by which targets move, from 0 to 1.

    Returns:
        Tensor (T,): coefficients of the g_i in the sum. Tensor (T, T): the new targets. A gradient
        that is 0 meets no other, and its targets stay.
    """
    tasks = gram.shape[0]
    rows, squares = tf.eye(tasks, dtype=gram.dtype), tf.linalg.diag_part(gram)
    for step in range(tasks):
        others = tf.one_hot(order[:, step], tasks, dtype=gram.dtype)
        products = tf.reduce_sum(tf.matmul(rows, gram) * others, axis=1)
        lengths = tf.sqrt(tf.linalg.matvec(others, squares))
        own = tf.sqrt(tf.nn.relu(tf.reduce_sum(tf.matmul(rows, gram) * rows, axis=1)))
        meets = (lengths * own > 0) & (tf.linalg.diag_part(others) == 0)
        cosine = tf.clip_by_value(tf.math.divide_no_nan(products, lengths * own), -1.0, 1.0)
        target = tf.minimum(tf.reduce_sum(targets * others, axis=1), _LARGEST_COSINE)
        sine, wanted = tf.sqrt(1 - cosine**2), tf.sqrt(1 - target**2)
        added = tf.math.divide_no_nan(own * (target * sine - cosine * wanted), lengths * wanted)
        rows += tf.where(meets & (cosine < target), added, 0.0)[:, None] * others
        moved = tf.where(meets, beta * (cosine - tf.reduce_sum(targets * others, axis=1)), 0.0)
        targets += moved[:, None] * others
    return tf.reduce_sum(rows, axis=0), targets


@keras.saving.register_keras_serializable(package="tag_keras")
class GradVac(RandomOrders):
    """GradVac (Wang et al., ICLR 2021, arXiv 2010.05874): gradient vaccine.

    Each task's gradient meets the others in a random order. Where its cosine with another gradient
    is smaller than it usually is, some of that gradient is added, so that it is as usual. The usual
    cosine of each pair is a moving average over the steps, which begins with 0 and is saved with
    the model. The shared variables get the sum of the results.

    While the averages are 0, this is `PCGrad`. It also acts between tasks that do not conflict.

    A step makes one backward pass per task. Take it for tasks that are alike, such as languages.

    Args:
        beta: Part by which the moving averages follow the cosine of a step, from 0 to 1. The paper
            uses 0.01.
        seed: Seed of the random orders, from 0 on. By default `keras.utils.set_random_seed`
            determines it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `beta` is not from 0 to 1, or `seed` is no such integer.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.GradVac())
    ```
    """

    def __init__(self, beta: float = 0.01, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        wanted = "from 0 to 1, such as 0.01"
        self.beta = check_number("beta", beta, wanted, lambda number: 0 <= number <= 1)
        self._targets: Any = None

    def start(self, tasks: tuple[str, ...]) -> None:
        super().start(tasks)
        self._targets = self.add_zeros("targets", (len(tasks), len(tasks)), "float32")

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        targets = tf.cast(tf.convert_to_tensor(self._targets), "float64")
        orders = self.draw_orders(gram.shape[0])
        results = gradvac_coefficients(exact(gram), orders, targets, self.beta)
        coefficients, targets = (tf.cast(one, "float32") for one in results)
        self._targets.assign(targets)
        return coefficients

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}
