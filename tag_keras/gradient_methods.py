"""Methods that combine the gradients of the tasks: what `compile(gradient_method=...)` takes."""

import random
from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.checks import check, check_choice, check_number, check_seed, implements
from tag_keras.pcgrad import pcgrad_coefficients
from tag_keras.task_model import TaskModel
from tag_keras.task_step import TaskStep
from tag_keras.upgrad import upgrad_coefficients
from tag_keras.weighting import LossWeighting


class GradientMethod(keras.layers.Layer):  # type: ignore[misc]
    """What all gradient methods have in common. A subclass implements `coefficients`.

    With the gradients g_i of the tasks' losses, multiplied by their weights in the joint loss, the
    optimizer gets sum_i coefficients[i] * g_i for the shared variables instead of the sum of the
    g_i. What belongs to single tasks, and losses that belong to none, such as regularisers, are
    trained as without the method.

    A method that is no combination of gradients implements `make_step` instead. `compile` gives
    every model a copy of its own, whose weights are saved with the model.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    # Whether training with the method measures affinities.
    measures_affinity = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        # Keras would lock a layer that it has built.
        self.built = True

    def start(self, tasks: tuple[str, ...]) -> None:
        """Creates the weights for these T tasks. By default there are none."""

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        """Coefficients of the gradients in their combination.

        Args:
            gram: Float32 tensor (T, T): products <g_i, g_j> over the shared variables and the whole
                batch. The gradients were divided by the largest of their numbers, so coefficients
                may only depend on the ratios of products.

        Returns:
            Float32 tensor (T,).
        """
        raise NotImplementedError

    def make_step(self, model: TaskModel) -> Callable[[Any], dict[str, Any]]:
        """Makes the training step of a compiled model: from a batch of data to the logs."""
        return TaskStep(model)

    def after_execution(self) -> None:
        """What is to be done in Python after each call of the compiled train function."""

    def get_affinity(self) -> Affinity:
        """The affinities, if the method measures any."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        # Keras' own adds nothing but the policy, which is always the same.
        return {"name": self.name}


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


@keras.saving.register_keras_serializable(package="tag_keras")
class UPGrad(GradientMethod):
    """Unconflicting projection of gradients (UPGrad; Quinton and Rey 2024, arXiv 2406.16232).

    Every task's gradient is replaced by the closest vector that has no negative product with any
    of the gradients; the shared variables get the sum of the results. Unlike that of PCGrad, a
    small step along this sum increases no task's loss, and it depends on no order. If no two
    gradients conflict, this is the plain sum (the paper takes the mean, which is T times smaller).

    Args:
        ridge: Number, relative to the sum of the squared lengths of the gradients, that is added to
            these squares, because nearly parallel gradients would give no unique solution.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `ridge` is not between 1e-6 and 1.

    Example:

    ```python
    model.compile("adam", "mse", gradient_method=tag_keras.UPGrad())
    ```
    """

    def __init__(self, ridge: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = "between 1e-6 and 1, such as 1e-4"
        # The products are of float32: less would not make up for their rounding.
        self.ridge = check_number("ridge", ridge, wanted, lambda number: 1e-6 <= number <= 1)

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        return upgrad_coefficients(gram, self.ridge)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ridge": self.ridge}


def check_method(method: Any, affinity: Any, weighting: LossWeighting | None) -> None:
    """Checks a gradient method that `compile` was given, and what it was given with it.

    Raises:
        ValueError: If it is none, or if it has a training step of its own and something else that
            was given would need another one.
    """
    has_step = implements(method, GradientMethod, "make_step")
    check(
        method is None or has_step or implements(method, GradientMethod, "coefficients"),
        "`gradient_method` should be a method, such as `tag_keras.PCGrad()`",
        gradient_method=method,
    )
    if not has_step:
        return
    looked = isinstance(weighting, LossWeighting) and (
        weighting.needs_norms or weighting.is_trained
    )
    for name, other in (("affinity", affinity), ("loss_weighting", weighting if looked else None)):
        if other is not None:
            raise ValueError(
                f"{type(method).__name__} has training steps of its own, in which `{name}` has no "
                f"part. Leave one of the two out. Received: {name}={type(other).__name__}."
            )
