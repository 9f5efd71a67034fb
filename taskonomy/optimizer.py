"""Stochastic gradient descent as in PyTorch, with which the papers train on Taskonomy."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.utils.checks import check


@keras.saving.register_keras_serializable(package="taskonomy")
class SGDWithPenalty(keras.optimizers.SGD):  # type: ignore[misc]
    """Momentum and weight decay of PyTorch's `SGD`.

        velocity = momentum * velocity + gradient + penalty * variable
        variable = variable - learning_rate * velocity

    Keras' `SGD` differs in both. Its `weight_decay` shrinks the weights beside the step, outside of
    the momentum: at a momentum of 0.9 that is a tenth of the decay. And its velocities hold the
    learning rate that they were made with, so that some steps after it was halved are too large.

    Args:
        learning_rate: Learning rate.
        momentum: Momentum.
        penalty: Weight decay: in effect, half of it times the squared weights is added to the
            loss. Variables given to `exclude_from_weight_decay` go without.
        **kwargs: Further arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: If it is to be Nesterov's.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        penalty: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        check("nesterov" not in kwargs, "This is not Nesterov's momentum", **kwargs)
        super().__init__(learning_rate, momentum, **kwargs)
        self.penalty = penalty

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        ops = keras.ops
        rate = ops.cast(learning_rate, variable.dtype)
        velocity = ops.cast(gradient, variable.dtype)
        if self._use_weight_decay(variable):
            velocity += ops.cast(self.penalty, variable.dtype) * variable
        if self.momentum:
            slot = self.momentums[self._get_variable_index(variable)]
            velocity += ops.cast(self.momentum, variable.dtype) * slot
            self.assign(slot, velocity)
        self.assign_sub(variable, rate * velocity)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["nesterov"]
        return {**config, "penalty": self.penalty}
