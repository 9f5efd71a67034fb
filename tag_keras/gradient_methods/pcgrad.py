"""Methods that combine the gradients of the tasks: what `compile(gradient_method=...)` takes."""

import random
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.utils.checks import check_choice, check_seed


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


@keras.saving.register_keras_serializable(package="tag_keras")
class PCGrad(GradientMethod):
    """Projecting conflicting gradients (PCGrad; Yu et al., NeurIPS 2020, arXiv 2001.06782).

    Every task's gradient is projected on the normal planes of those of the others that it conflicts
    with, that is, has a negative product with; the shared variables get the sum of the results. If
    no two gradients conflict, this is the plain sum.

    Args:
        order: In which order the gradient of a task meets the others: `"random"`, drawn anew for
            every task and step, as in the paper; or `"authors"`, in which the code of the authors
            goes through them: as the tasks are listed, the task itself included.
        seed: Seed of the orders; drawn by default, from `keras.utils.set_random_seed` if it was
            called.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If there is no such order, or if the seed is none.

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
        super().__init__(**kwargs)
        check_choice("order", order, ("random", "authors"))
        self.order, self.seed = order, None if seed is None else check_seed(seed)
        self._draws: Any = None

    def start(self, tasks: tuple[str, ...]) -> None:
        # What `keras.utils.set_random_seed` sets.
        seed = random.randrange(2**31) if self.seed is None else self.seed
        # The seed and the number of draws. Not a generator of Keras, whose state is not saved.
        self._draws = self.add_weight(
            shape=(2,),
            dtype="int64",
            initializer=lambda shape, dtype: tf.constant([seed, 0], dtype),
            trainable=False,
            aggregation="only_first_replica",
            name="draws",
        )

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        tasks = gram.shape[0]
        if self.order == "authors":
            order = tf.tile(tf.range(tasks)[None], [tasks, 1])
            return pcgrad_coefficients(gram, order, with_itself=True)
        draws = tf.convert_to_tensor(self._draws)
        self._draws.assign(draws + tf.constant([0, 1], "int64"))
        # One algorithm for all devices, because all replicas have to draw the same.
        numbers = tf.random.stateless_uniform([tasks, tasks], draws, alg="philox")
        return pcgrad_coefficients(gram, tf.argsort(numbers, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "seed": self.seed}
