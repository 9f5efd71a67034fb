"""GradNorm: weights of the tasks by which their gradients become equally large."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in, own_trainable_variables
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.loss_weighting.base import LossWeighting, stack_losses
from tag_keras.utils.checks import check, check_number, is_number


@keras.saving.register_keras_serializable(package="tag_keras")
class GradNorm(LossWeighting):
    """GradNorm (Chen et al., ICML 2018, arXiv 1711.02257, eq. 1 and 2).

    With n_i, the norm of the gradient of L_i with respect to the kernel of one shared layer,
    G_i = weights[i] * n_i, and a task's rate r_i, its loss relative to its first one divided by the
    mean of this over the tasks, the weights make after every step a step of gradient descent on

        sum_i |G_i - mean(G) * r_i ** alpha|

    whose last factor is taken as a constant. They are then clipped, and multiplied such that their
    sum is T again. So tasks that learn slowly get larger gradients. A task without a label in the
    batch keeps its weight and takes no part; its first loss is that of the first batch with one.

    `loss_weights` of `compile` are no part of G: they remain the user's preference among gradients
    that would be equally large. After a batch whose losses or norms are not finite, the weights
    stay as they are.

    Args:
        shared_layer: Layer of the encoder, or its name: usually the last one that all tasks share.
            There the gradients of the tasks cost little.
        alpha: How much slow tasks are pulled forward; 0 makes all gradients equally large. The
            paper uses 1.5 for similar and 0.12 for different tasks.
        learning_rate: Of the weights, whose step is this times the norm of the gradient of L_i: for
            norms of 10 and more take a tenth of it and less, or the weights are noise.
        clip: Least and largest weight before the multiplication.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an option is not what it should be.

    Example:

    ```python
    shared = keras.layers.Dense(32, "relu", name="shared")
    model = tag_keras.MultiTaskModel(shared, heads)
    model.compile("adam", "mse", loss_weighting=tag_keras.GradNorm(shared_layer="shared"))
    ```
    """

    needs_norms = True

    def __init__(
        self,
        shared_layer: keras.layers.Layer | str,
        alpha: float = 1.5,
        learning_rate: float = 0.025,
        clip: tuple[float, float] = (0.1, 10.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check(
            isinstance(shared_layer, keras.layers.Layer | str),
            "`shared_layer` should be a layer of the encoder, or its name",
            shared_layer=shared_layer,
        )
        limits = tuple(clip) if isinstance(clip, list | tuple) else ()
        check(
            len(limits) == 2
            and all(is_number(limit) for limit in limits)
            and 0 < limits[0] <= 1 <= limits[1],
            "`clip` should be a positive number of at most 1 and one of at least 1, such as "
            "(0.1, 10.0)",
            clip=clip,
        )
        # Not the layer, which would become a part of this one.
        self.shared_layer: str = getattr(shared_layer, "name", shared_layer)
        self.alpha, self.learning_rate = (
            check_number(name, value, "a number of at least 0", lambda number: number >= 0)
            for name, value in (("alpha", alpha), ("learning_rate", learning_rate))
        )
        self.clip = float(limits[0]), float(limits[1])
        # Index of the kernel among the encoder's variables, as soon as it is found.
        self._kernel: int | None = None

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        self._values = self.add_state("values", (num_tasks,), 1.0)
        # NaN for a task that has had no label.
        self._first_losses = self.add_state("first_losses", (num_tasks,), float("nan"))

    def task_weights(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._values)

    def kernel_in(
        self, encoder: keras.layers.Layer, shared: Sequence[keras.Variable]
    ) -> keras.Variable:
        ids = {id(variable) for variable in shared}
        variables = encoder.variables
        # Of a model that was loaded, layers with automatic names may have others; the order of
        # their variables is the same.
        if self._kernel is not None and self._kernel < len(variables):
            kernel = variables[self._kernel]
            if id(kernel) in ids and len(kernel.shape) > 1:
                return kernel
        kernels: dict[str, list[keras.Variable]] = {}
        for layer in {id(one): one for one in layers_in(encoder)}.values():
            # Biases and the like have one axis.
            trained = own_trainable_variables(layer)
            own = [v for v in trained if id(v) in ids and len(v.shape) > 1]
            if own:
                kernels.setdefault(layer.name, []).append(own[-1])
        found = kernels.get(self.shared_layer, [])
        if len(found) != 1:
            fault = f"names {len(found)} layers" if found else "names no layer"
            raise ValueError(
                f"`shared_layer` {fault} of the encoder with a kernel that several tasks train. "
                f"Name one of {sorted(kernels)}. Received: shared_layer={self.shared_layer!r}."
            )
        self._kernel = next(i for i, variable in enumerate(variables) if variable is found[0])
        return found[0]

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        (whole,) = sum_over_replicas([stack_losses(losses)])
        active, first = labels > 0, tf.convert_to_tensor(self._first_losses)
        is_first = active & tf.math.is_nan(first)
        first = tf.where(is_first & tf.math.is_finite(whole), whole, first)
        self._first_losses.assign(first)
        weights = tf.convert_to_tensor(self._values)
        self._values.assign(
            gradnorm_step(
                weights,
                norms,
                training_rates(whole, first, active),
                active,
                self.alpha,
                self.learning_rate,
                self.clip,
            )
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shared_layer": self.shared_layer,
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "clip": list(self.clip),
            "kernel": self._kernel,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradNorm":
        config = {**config}
        kernel = config.pop("kernel", None)
        weighting = cls(**config)
        weighting._kernel = kernel
        return weighting


def training_rates(losses: tf.Tensor, first_losses: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    """Relative inverse training rates of the tasks: r_i of GradNorm.

    Args:
        losses: Tensor (T,).
        first_losses: Tensor (T,). A loss that has not begun above 0 counts as one that stays.
        active: Boolean tensor (T,): the tasks that take part.

    Returns:
        Tensor (T,), with the mean 1 over the active tasks; all 1 if their losses are all 0.
    """
    ratios = tf.where(first_losses > 0, tf.math.divide_no_nan(losses, first_losses), 1.0)
    # A negative one has no power.
    ratios = tf.maximum(ratios, 0.0)
    mean = _mean(ratios, active)
    return tf.where(mean > 0, tf.math.divide_no_nan(ratios, mean), 1.0)


def gradnorm_step(
    weights: tf.Tensor,
    norms: tf.Tensor,
    rates: tf.Tensor,
    active: tf.Tensor,
    alpha: float,
    learning_rate: float,
    clip: tuple[float, float],
) -> tf.Tensor:
    """The weights of GradNorm after one step.

    Args:
        weights: Tensor (T,): the positive weights.
        norms: Tensor (T,): norms of the gradients of the unweighted losses.
        rates: Tensor (T,): see `training_rates`.
        active: Boolean tensor (T,): the tasks that take part.
        alpha: Power of the rates.
        learning_rate: Of the weights.
        clip: Least and largest weight before the sum is made what it was.

    Returns:
        Tensor (T,).
    """
    # The sum of |w_i n_i - target_i| over i has, for constant targets, the derivative
    # n_i * sign(w_i n_i - target_i) with respect to w_i: no second derivatives are needed.
    targets = _mean(weights * norms, active) * rates**alpha
    stepped = weights - learning_rate * norms * tf.sign(weights * norms - targets)
    stepped = tf.clip_by_value(stepped, *clip)
    before, after = (tf.reduce_sum(tf.where(active, one, 0.0)) for one in (weights, stepped))
    stepped *= tf.math.divide_no_nan(before, after)
    is_finite = tf.reduce_all(tf.math.is_finite(stepped) | ~active)
    return tf.where(active & is_finite, stepped, weights)


def _mean(values: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    number = tf.reduce_sum(tf.cast(active, "float32"))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(active, values, 0.0)), number)
