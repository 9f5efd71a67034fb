"""One function for many networks at once, by vectorising TensorFlow's operations."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class LoopGradientError(ValueError):
    """A gradient that TensorFlow cannot vectorise; that of vectorised operations it can take."""


def for_each_network(function: Callable[[Any], Any], values: Any) -> Any:
    """Applies a function to each network's values, all at once.

    An operation that TensorFlow cannot vectorise, such as a convolution with a filter for each
    network, runs in a loop over the networks, inside the same graph.

    Args:
        function: Function from the values of one network to tensors.
        values: Structure of tensors whose first axis is that of the K networks.

    Returns:
        Structure of tensors whose first axis has the K results.

    Raises:
        LoopGradientError: If the function takes the gradient of a loop, such as that of a recurrent
            layer, with respect to what the loop gets.
    """
    try:
        return tf.vectorized_map(function, values, fallback_to_while_loop=True, warn=False)
    except TypeError as error:
        # The lists of tensors that such a gradient reads.
        if "variant" in str(error):
            raise LoopGradientError(
                "TensorFlow cannot vectorise gradients through a recurrent layer"
            ) from error
        raise
