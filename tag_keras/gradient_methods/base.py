"""Methods that combine the gradients of the tasks: what `compile(gradient_method=...)` takes."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.loss_weighting.base import LossWeighting
from tag_keras.multitask.task_model import TaskModel
from tag_keras.utils.checks import check, implements


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

    def make_step(self, model: TaskModel) -> Callable[[Any], dict[str, Any]] | None:
        """Makes a training step for a compiled model: from a batch of data to the logs.

        By default `None`: the model makes the step, which calls `coefficients`.
        """
        return None

    def after_execution(self) -> None:
        """What is to be done in Python after each call of the compiled train function."""

    def get_affinity(self) -> Affinity:
        """The affinities, if the method measures any."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        # Keras' own adds nothing but the policy, which is always the same.
        return {"name": self.name}


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
