"""PyTorch's stochastic gradient descent, the optimizer of the papers on Taskonomy."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.utils.checks import check


@keras.saving.register_keras_serializable(package="taskonomy")
class SGDWithPenalty(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent with the momentum and the weight decay of PyTorch's `SGD`.

        velocity = momentum * velocity + gradient + penalty * variable
        variable = variable - learning_rate * velocity

    Keras' `SGD` differs in both. Its `weight_decay` shrinks the weights outside of the momentum,
    which at a momentum of 0.9 is a tenth of the decay. Its velocities include the learning rate of
    the step that made them, so the steps after a halving of the rate are too large for a while.

    Args:
        learning_rate: Learning rate.
        momentum: Factor of the velocity at each step.
        penalty: Weight decay. It acts like half of it times the squared weights in the loss, except
            for variables given to `exclude_from_weight_decay`.
        **kwargs: Further arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: If `nesterov` is given.
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
