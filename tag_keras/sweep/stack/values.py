"""Variables of the networks of a stack: what they begin with, and their values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Start(NamedTuple):
    """What a network begins with.

    Args:
        tasks: Its tasks.
        stream: Index of the stream of batches that it sees.
        loss_weights: Weight of each of its tasks in the joint loss.
        values: Values of variables of the model for all tasks, by `id`. The network does not have
            those that are absent: they belong to heads of other tasks, or are the same for all.
    """

    tasks: tuple[str, ...]
    stream: int
    loss_weights: Mapping[str, float]
    values: Mapping[int, Any]


class Stacked:
    """Variables of the model, each with a value for every network.

    Args:
        variables: The variables.
        size: The number K of networks.
    """

    def __init__(self, variables: Sequence[keras.Variable], size: int) -> None:
        self.variables = list(variables)
        self.values = [tf.Variable(tf.zeros([size, *one.shape], one.dtype)) for one in variables]

    def begin(self, starts: Sequence[Start]) -> None:
        """Gives each network the values that it begins with."""
        for variable, value in zip(self.variables, self.values, strict=True):
            own = keras.ops.convert_to_numpy(variable)
            value.assign(np.stack([start.values.get(id(variable), own) for start in starts]))

    def now(self) -> list[tf.Tensor]:
        """The values of all networks."""
        return [one.value() for one in self.values]

    def assign(self, values: Sequence[tf.Tensor], keeps: tf.Tensor | None = None) -> None:
        """Assigns new values; networks where `keeps` is true keep theirs."""
        for variable, value in zip(self.values, values, strict=True):
            if keeps is not None:
                shape = [-1] + [1] * (len(variable.shape) - 1)
                value = tf.where(tf.reshape(keeps, shape), variable, value)
            variable.assign(value)

    def of(self, values: Sequence[tf.Tensor]) -> list[tuple[keras.Variable, tf.Tensor]]:
        """The variables with values of one network."""
        return list(zip(self.variables, values, strict=True))

    def after(self, scope: keras.StatelessScope) -> list[tf.Tensor]:
        """Values of one network at the end of a scope."""
        return [scope.get_current_value(one) for one in self.variables]

    def row(self, index: int) -> list[Any]:
        """The values of a network, as arrays."""
        return [one[index].numpy() for one in self.values]

    def set_row(self, index: int, values: Sequence[Any]) -> None:
        """Sets the values of a network."""
        for variable, value in zip(self.values, values, strict=True):
            variable[index].assign(tf.cast(value, variable.dtype))
