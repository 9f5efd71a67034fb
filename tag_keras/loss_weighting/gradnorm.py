"""GradNorm: weights that make the gradients of the tasks equally large."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import layers_in, own_trainable_variables
from tag_keras.loss_weighting.base import LossWeighting, losses_of_whole_batch
from tag_keras.utils.checks import check, check_number, is_number


@keras.saving.register_keras_serializable(package="tag_keras")
class GradNorm(LossWeighting):
    """GradNorm (Chen et al., ICML 2018, arXiv 1711.02257, eq. 1 and 2).

    Tasks that learn slowly get larger gradients. Let n_i be the norm of the gradient of L_i with
    respect to the kernel of one shared layer, and G_i = weights[i] * n_i. Let r_i be the ratio of
    the loss of task i to its first loss, divided by the mean of these ratios over the tasks. After
    every training step, the weights make one step of gradient descent on

        sum_i |G_i - mean(G) * r_i ** alpha|

    where mean(G) * r_i ** alpha counts as constant. Then they are clipped, and scaled so that their
    sum is T again. A task without a label in the batch is left out and keeps its weight; its first
    loss is the loss of the first batch with a label.

    G leaves out the `loss_weights` of `compile`: they remain the user's preference among gradients
    that would be equally large. The weights stay as they are after a batch whose losses or norms
    are not finite.

    A step costs about 1.3 plain steps for nine tasks. Take it to hold back tasks that learn faster
    than the others.

    Args:
        shared_layer: Layer of the encoder, or its name: usually the last layer that all tasks
            share, where the gradients of the tasks cost little.
        alpha: Number of at least 0: how much slow tasks are pulled forward; 0 makes all gradients
            equally large. The paper uses 1.5 for similar and 0.12 for different tasks.
        learning_rate: Step size of the weights, which is multiplied by n_i. If the norms are 10 or
            more, take at most a tenth of the default, or the weights are noise.
        clip: Smallest and largest weight before the scaling.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an option has another type, or is out of range.

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
        # Only its name: a layer would become a part of this one.
        self.shared_layer: str = getattr(shared_layer, "name", shared_layer)
        wanted = "a number of at least 0"
        self.alpha = check_number("alpha", alpha, wanted, _is_not_negative)
        self.learning_rate = check_number("learning_rate", learning_rate, wanted, _is_not_negative)
        self.clip = float(limits[0]), float(limits[1])
        # Index of the layer among the encoder's layers, once it is found. Its kernel is looked up
        # each time: the layer may get another one, as by `enable_lora`.
        self._layer: int | None = None
        # Index of the kernel among the encoder's variables, in a file of version 0.1.
        self._kernel: int | None = None

    def start(self, num_tasks: int) -> None:
        super().start(num_tasks)
        self._values = self.add_state("values", (num_tasks,), 1.0)
        # NaN until a task has a label.
        self._first_losses = self.add_state("first_losses", (num_tasks,), float("nan"))

    def task_weights(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._values)

    def kernel_in(
        self, encoder: keras.layers.Layer, shared: Sequence[keras.Variable]
    ) -> keras.Variable:
        layers = list({id(one): one for one in layers_in(encoder)}.values())
        kernels = [_last_kernel(layer, shared) for layer in layers]
        if self._kernel is not None:
            kernel = dict(enumerate(encoder.variables)).get(self._kernel)
            same = [i for i, one in enumerate(kernels) if one is not None and one is kernel]
            self._layer, self._kernel = next(iter(same), None), None
        # In a loaded model, automatic names of layers may differ, but the layers keep their order.
        if self._layer is not None and self._layer < len(layers):
            kernel = kernels[self._layer]
            if kernel is not None:
                return kernel
        trained = [i for i, kernel in enumerate(kernels) if kernel is not None]
        found = [i for i in trained if layers[i].name == self.shared_layer]
        if len(found) != 1:
            fault = f"names {len(found)} layers" if found else "names no layer"
            names = sorted({layers[i].name for i in trained})
            raise ValueError(
                f"`shared_layer` {fault} of the encoder with a kernel that several tasks train. "
                f"Name one of {names}. Received: shared_layer={self.shared_layer!r}."
            )
        (self._layer,) = found
        return kernels[self._layer]

    def update(
        self, losses: Sequence[tf.Tensor], labels: tf.Tensor, norms: tf.Tensor | None = None
    ) -> None:
        whole = losses_of_whole_batch(losses)
        active, first = labels > 0, tf.convert_to_tensor(self._first_losses)
        is_first = active & tf.math.is_nan(first)
        first = tf.where(is_first & tf.math.is_finite(whole), whole, first)
        self._first_losses.assign(first)
        weights = tf.convert_to_tensor(self._values)
        rates = training_rates(whole, first, active)
        self._values.assign(
            gradnorm_step(weights, norms, rates, active, self.alpha, self.learning_rate, self.clip)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shared_layer": self.shared_layer,
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "clip": list(self.clip),
            "layer": self._layer,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradNorm":
        indices = ("layer", "kernel")
        weighting = cls(**{name: one for name, one in config.items() if name not in indices})
        weighting._layer, weighting._kernel = (config.get(name) for name in indices)
        return weighting


def training_rates(losses: tf.Tensor, first_losses: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    """Relative inverse training rates of the tasks: r_i of GradNorm.

    Args:
        losses: Tensor (T,): current losses.
        first_losses: Tensor (T,): first losses. If one is not above 0, the loss counts as
            unchanged.
        active: Boolean tensor (T,): the tasks that take part.

    Returns:
        Tensor (T,) with the mean 1 over the active tasks; all 1 if their losses are all 0.
    """
    ratios = tf.where(first_losses > 0, tf.math.divide_no_nan(losses, first_losses), 1.0)
    # A negative number has no power `alpha`.
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
    """Weights (T,) of GradNorm after one step.

    Args:
        weights: Tensor (T,): positive weights.
        norms: Tensor (T,): norms of the gradients of the unweighted losses.
        rates: Tensor (T,): relative inverse training rates of the tasks.
        active: Boolean tensor (T,): the tasks that take part.
        alpha: Power of the rates.
        learning_rate: Step size of the weights.
        clip: Smallest and largest weight before the sum is restored.
    """
    # The sum of |w_i n_i - target_i| over i has, for constant targets, the derivative
    # n_i * sign(w_i n_i - target_i) with respect to w_i: no second derivatives are needed.
    targets = _mean(weights * norms, active) * rates**alpha
    stepped = weights - learning_rate * norms * tf.sign(weights * norms - targets)
    stepped = tf.clip_by_value(stepped, *clip)
    before = tf.reduce_sum(tf.where(active, weights, 0.0))
    after = tf.reduce_sum(tf.where(active, stepped, 0.0))
    stepped *= tf.math.divide_no_nan(before, after)
    is_finite = tf.reduce_all(tf.math.is_finite(stepped) | ~active)
    return tf.where(active & is_finite, stepped, weights)


def _last_kernel(
    layer: keras.layers.Layer, shared: Sequence[keras.Variable]
) -> keras.Variable | None:
    """The last kernel of a layer itself that is shared: it has several axes, a bias has one."""
    ids = {id(variable) for variable in shared}
    own = [v for v in own_trainable_variables(layer) if id(v) in ids and len(v.shape) > 1]
    return own[-1] if own else None


def _is_not_negative(number: float) -> bool:
    return number >= 0


def _mean(values: tf.Tensor, active: tf.Tensor) -> tf.Tensor:
    number = tf.reduce_sum(tf.cast(active, "float32"))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(active, values, 0.0)), number)
