"""The steps of training: what a probe computes, from losses, gradients and an optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf


def lookahead_affinity(
    losses: Sequence[tf.Tensor],
    gradients: Sequence[Sequence[tf.Tensor]],
    step: Callable[[Sequence[tf.Tensor]], list[tf.Tensor]],
    losses_after: Callable[[list[tf.Tensor]], Sequence[tf.Tensor]],
    baseline: bool = False,
) -> tf.Tensor:
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

        Z[i, j] = 1 - L_j(values after the step for task i) / L_j

    Args:
        losses: T scalars L_j at the current values, of this replica.
        gradients: T lists of P tensors: gradient of L_i with respect to the shared variables.
        step: Gives the P values of the shared variables after a step with P gradients.
        losses_after: Gives the T losses at P values of the shared variables, of this replica.
        baseline: Whether to subtract from every row the Z of a step with zero gradients.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    zeros = [[tf.zeros_like(gradient) for gradient in gradients[0]]] if baseline else []
    # The ratio is taken of the losses of the whole batch, not of each replica's.
    before, after = sum_over_replicas(
        [
            _stack(losses),
            tf.stack([_stack(losses_after(step(row))) for row in [*gradients, *zeros]]),
        ]
    )
    values = 1.0 - after / before
    if baseline:
        values = values[:-1] - values[-1]
    return tf.where((before > 0) & tf.math.is_finite(values), values, float("nan"))


def source_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Sequence[tf.Tensor | None]],
    variables: Sequence[keras.Variable],
    shared: Sequence[keras.Variable],
) -> list[list[tf.Tensor]]:
    """Gradients of the whole batch with respect to the shared variables, for `lookahead_affinity`.

    Args:
        optimizer: Optimizer whose loss scale the losses were multiplied by.
        gradients: T lists of one replica's gradients with respect to `variables`.
        variables: All trainable variables.
        shared: P of them.

    Returns:
        T lists of P tensors. No gradient becomes a zero gradient: momentum moves the variable all
        the same.
    """
    columns = {id(variable): column for column, variable in enumerate(variables)}
    one = tf.ones(())
    scale = optimizer.scale_loss(one)

    def of_source(row: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        taken = [row[columns[id(variable)]] for variable in shared]
        dense = [
            tf.zeros_like(variable) if gradient is None else gradient
            for variable, gradient in zip(shared, taken, strict=True)
        ]
        return sum_over_replicas(
            dense if scale is one else [gradient / scale for gradient in dense]
        )

    return [of_source(row) for row in gradients]


def sum_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """All-reduces by summation; with one replica, the tensors as they are."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tensors
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, tensors))


def lookahead_step(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
    update: Literal["optimizer", "sgd"] = "optimizer",
) -> list[tf.Tensor]:
    """Values that the variables would have after one step of the optimizer. Nothing changes.

    With `update="optimizer"` this is the step that `optimizer.apply` would really take: momentum,
    adaptive rates, clipping, weight decay and constraints included. Left out are what belongs to
    several steps: gradient accumulation and the moving average of the weights.

    Args:
        optimizer: A built optimizer.
        gradients: P tensors, not multiplied by a loss scale.
        variables: P variables that the optimizer was built with.
        update: `"sgd"` gives `variable - learning_rate * gradient` instead.

    Returns:
        P tensors with the shapes of the variables.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if update == "sgd":
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        return [
            tf.convert_to_tensor(variable) - tf.cast(rate, gradient.dtype) * gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
    view = _stateless_view(optimizer, variables)
    with keras.StatelessScope() as scope:
        view.apply(list(gradients), list(variables))
    return [scope.get_current_value(variable) for variable in variables]


class _StatelessUpdates(keras.optimizers.Optimizer):  # type: ignore[misc]
    """What Keras' TensorFlow optimizers do to tf.Variables, done to Keras variables instead.

    `Optimizer.stateless_apply` raises on the TensorFlow backend, because the methods below write
    to tf.Variables, which a `StatelessScope` does not see. Everything of Keras that this relies on
    and that is not public stands in this class and in `_stateless_view`.
    """

    def assign(self, variable: keras.Variable, value: tf.Tensor) -> None:
        variable.assign(value)

    def assign_add(self, variable: keras.Variable, value: tf.Tensor) -> None:
        variable.assign(variable + value)

    def assign_sub(self, variable: keras.Variable, value: tf.Tensor) -> None:
        variable.assign(variable - value)

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            if self.weight_decay is not None and self._use_weight_decay(variable):
                decay = keras.ops.cast(self.learning_rate * self.weight_decay, variable.dtype)
                variable.assign(variable - variable * decay)

    def _backend_update_step(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[keras.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable, learning_rate)

    def _var_key(self, variable: keras.Variable) -> Any:
        # The original asks the tf.Variable, which is hidden once the scope holds a new value.
        return self._keys[id(variable)]


def _stateless_view(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """A second face of `optimizer`, over the same state, that can be applied in a scope."""
    # Python's method order puts _StatelessUpdates after the optimizer's own classes and before
    # keras.optimizers.Optimizer, so what Muon or Nadam override for themselves stays in force.
    kind = type("StatelessView", (type(optimizer), _StatelessUpdates), {})
    view: Any = object.__new__(kind)
    view.__dict__.update(optimizer.__dict__)
    view.__dict__.update(
        _keys={id(variable): optimizer._var_key(variable) for variable in variables},
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        use_ema=False,
    )
    return view


def _stack(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    # Ratios of float16 losses would round to multiples of 0.001.
    return tf.stack([tf.cast(loss, "float32") for loss in losses])
