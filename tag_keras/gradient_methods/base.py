"""The interface of gradient methods, and the checks of `compile(gradient_method=...)`."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.loss_weighting.base import LossWeighting, weights_batches
from tag_keras.multitask.task_model import TaskModel
from tag_keras.utils.checks import implements


class GradientMethod(keras.layers.Layer):  # type: ignore[misc]
    """Base class of gradient methods. A subclass implements `coefficients` or `make_step`.

    Let g_i be the gradient of task i's loss times its weight in the joint loss. For the shared
    variables, the optimizer gets sum_i coefficients[i] * g_i in place of the sum of the g_i. The
    variables of single tasks, and losses without a task, such as regularisers, are trained as
    without the method.

    `compile` gives each model its own copy of the method, whose weights are saved with the model.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    # Whether `get_affinity` gives something after training.
    measures_affinity = False
    # Whether `coefficients` also gets `scale`, a float32 scalar: the entry by which all gradients
    # are divided. The products of the gradients as they are would be `gram * scale**2`.
    needs_scale = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        # Keras would forbid a layer that it has built to add weights.
        self.built = True

    def start(self, tasks: tuple[str, ...]) -> None:
        """Creates the weights of the method. By default there are none.

        Args:
            tasks: Names of the T tasks.
        """

    def coefficients(self, gram: tf.Tensor) -> tf.Tensor:
        """Coefficients of the tasks' gradients in their sum.

        Args:
            gram: Float32 tensor (T, T): products <g_i, g_j> over the shared variables, for the
                whole batch. All gradients are divided by the largest entry of any, so only ratios
                of products have a meaning, unless the method sets `needs_scale`. A task without a
                label in the batch has products of 0.

        Returns:
            Float32 tensor (T,).
        """
        raise NotImplementedError

    def make_step(self, model: TaskModel) -> Callable[[Any], dict[str, Any]] | None:
        """Makes the training step of a compiled model: a function from a batch to the logs.

        By default `None`: the model makes a step that calls `coefficients`.

        Args:
            model: The compiled model.
        """
        return None

    def add_zeros(self, name: str, shape: tuple[int, ...], dtype: str = "int64") -> keras.Variable:
        """Creates a weight that begins with zeros and that no optimizer trains.

        Args:
            name: Name of the weight.
            shape: Its shape.
            dtype: Its data type.
        """
        return self.add_weight(
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            # Replicas hold equal values, and must do so after they are restored.
            aggregation="only_first_replica",
            name=name,
        )

    def after_execution(self) -> None:
        """Runs in Python after each call of the compiled train function. By default nothing."""

    def get_affinity(self) -> Affinity:
        """Returns the affinities, for methods that measure them."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        # Keras' own would add `trainable` and the dtype policy, which never change.
        return {"name": self.name}


def check_method(method: Any, affinity: Any, weighting: LossWeighting | None) -> None:
    """Checks the gradient method of `compile` beside its `affinity` and `loss_weighting`, if any.

    Raises:
        ValueError: If `method` is no gradient method, or if both it and another argument need a
            training step of their own.
    """
    has_step = implements(method, GradientMethod, "make_step")
    if not (method is None or has_step or implements(method, GradientMethod, "coefficients")):
        raise ValueError(
            "`gradient_method` should be a method, such as `tag_keras.PCGrad()`. Received: "
            f"gradient_method={method!r}."
        )
    others = {"affinity": affinity}
    if isinstance(weighting, LossWeighting) and (
        weighting.needs_norms or weighting.is_trained or weights_batches(weighting)
    ):
        others["loss_weighting"] = weighting
    for name, other in others.items():
        if has_step and other is not None:
            raise ValueError(
                f"{type(method).__name__} has training steps of its own, in which `{name}` has no "
                f"part. Leave one of the two out. Received: {name}={type(other).__name__}."
            )
