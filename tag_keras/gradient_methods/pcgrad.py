"""PCGrad: project conflicting gradients on each other's normal planes."""

from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.gradient_methods.random_orders import RandomOrders
from tag_keras.utils.checks import check_choice


def pcgrad_coefficients(gram: tf.Tensor, order: tf.Tensor, with_itself: bool = False) -> tf.Tensor:
    """Coefficients of PCGrad (Yu et al., arXiv 2001.06782, algorithm 1), from products alone.

    For each task i, v starts as g_i and meets the other gradients g_j one after the other. Where
    they conflict, <v, g_j> < 0, v loses its part along g_j: v <- v - (<v, g_j> / |g_j|^2) g_j. The
    results are summed. Each v is kept as its coefficients in the g_j.

    Args:
        gram: Tensor (T, T): products <g_i, g_j>.
        order: Integer tensor (T, T): row i is a permutation of the tasks, the order in which g_i
            meets the others.
        with_itself: Whether v also meets g_i itself, as in the authors' code: earlier projections
            may have made the two conflict.

    Returns:
        Tensor (T,): coefficients of the g_i in the sum, all 1 where no two gradients conflict.
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


@keras.saving.register_keras_serializable(package="tag_keras")
class PCGrad(RandomOrders):
    """PCGrad (Yu et al., NeurIPS 2020, arXiv 2001.06782): projects conflicting gradients.

    Two gradients conflict if their product is negative. Each task's gradient is projected on the
    normal plane of every gradient that it conflicts with. So v begins as g_i and meets the others:

        v <- v - <v, g_j> / <g_j, g_j> * g_j    for each g_j with <v, g_j> < 0

    The shared variables get the sum of the results. Without a conflict this is the plain sum.

    A step makes one backward pass per task: about 5 plain steps for nine tasks. Take it to compare
    with the literature; `UPGrad` costs the same and does not depend on an order of tasks.

    Args:
        order: Order in which a task's gradient meets the others. `"random"` draws it for every
            task and step, as the paper does. `"authors"` takes the order of the tasks and includes
            the task itself, as the authors' code does.
        seed: Seed of the random orders, from 0 on. By default `keras.utils.set_random_seed`
            determines it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `order` is another word, or `seed` is no such integer.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.PCGrad())
    ```
    """

    def __init__(
        self,
        order: Literal["random", "authors"] = "random",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        check_choice("order", order, ("random", "authors"))
        self.order = order

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        tasks = gram.shape[0]
        if self.order == "authors":
            order = tf.tile(tf.range(tasks)[None], [tasks, 1])
            return pcgrad_coefficients(gram, order, with_itself=True)
        return pcgrad_coefficients(gram, self.draw_orders(tasks))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order}
