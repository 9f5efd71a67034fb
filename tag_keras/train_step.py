"""The steps of training: what a probe computes, from losses, gradients and an optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.gradients import Gradients, map_tasks, stack_columns
from tag_keras.optimizers import inner_optimizer
from tag_keras.replicas import sum_over_replicas

Step = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


def lookahead_affinity(
    losses: tf.Tensor,
    gradients: Gradients,
    step: Step,
    loss_sums: Callable[[list[tf.Tensor]], tf.Tensor],
    zero_step: Sequence[tf.Tensor] | None = None,
) -> tf.Tensor:
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

        Z[i, j] = 1 - L_j(values after the step for task i) / L_j

    Args:
        losses: Float32 tensor (T,): the losses L_j at the current values.
        gradients: Gradients of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        loss_sums: Gives for values of the shared variables a float32 tensor (2, T): sums and
            divisors of the losses. Those of all replicas are added up before they are divided,
            because the ratio is one of losses of the whole batch.
        zero_step: The values after a step with zero gradients, if the Z of that step is to be
            subtracted from every row.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    sums = map_tasks(lambda row: loss_sums(step(row)), gradients)
    if zero_step is not None:
        sums = tf.concat([sums, loss_sums(list(zero_step))[None]], axis=0)
    (sums,) = sum_over_replicas([sums])
    values = 1.0 - tf.math.divide_no_nan(sums[:, 0], sums[:, 1]) / losses
    if zero_step is not None:
        values = values[:-1] - values[-1]
    return _where_positive(losses, values)


def first_order_affinity(
    losses: tf.Tensor,
    gradients: Gradients,
    step: Step,
    values: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Inter-task affinity to first order in the step: the Taylor expansion of the lookahead.

        Z[i, j] = -<g_j, values after the step for task i - values> / L_j

    For a step of plain gradient descent this is `learning_rate * <g_i, g_j> / L_j` (Fifty et al.
    2021, arXiv 2109.04617, section 3). It needs no forward pass.

    Args:
        losses: Float32 tensor (T,): the losses L_j.
        gradients: Gradients g_i of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        values: P tensors that the steps are measured from: the current values, or those after a
            step with zero gradients.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    columns = stack_columns(gradients)

    def gains(row: Sequence[tf.Tensor]) -> tf.Tensor:
        moves = [after - before for after, before in zip(step(row), values, strict=True)]
        products = [
            tf.linalg.matvec(column, tf.reshape(move, [-1]))
            for column, move in zip(columns, moves, strict=True)
        ]
        return -tf.add_n([tf.cast(one, "float32") for one in products])

    return _where_positive(losses, map_tasks(gains, gradients) / losses)


def cosine_affinity(gradients: Gradients) -> tf.Tensor:
    """Cosine similarity of the gradients of two tasks (CS of Fifty et al. 2021, arXiv 2109.04617).

        Z[i, j] = <g_i, g_j> / (|g_i| |g_j|)

    Args:
        gradients: Gradients of the T losses with respect to P variables.

    Returns:
        Float32 tensor (T, T), symmetric, in [-1, 1]. NaN where a gradient is 0.
    """
    columns = [tf.cast(column, "float32") for column in stack_columns(gradients)]
    # Divided by the largest first, so that squares of small gradients do not vanish.
    largest = tf.reduce_max([tf.reduce_max(tf.abs(column), axis=1) for column in columns], axis=0)
    scaled = [tf.math.divide_no_nan(column, largest[:, None]) for column in columns]
    gram = tf.add_n([tf.matmul(column, column, transpose_b=True) for column in scaled])
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    products = norms[:, None] * norms[None, :]
    cosines = tf.clip_by_value(tf.math.divide_no_nan(gram, products), -1.0, 1.0)
    return tf.where(products > 0, cosines, float("nan"))


def overflowed(gradients: Gradients) -> tf.Tensor:
    """Boolean tensor (T,): whether the gradients of a task are not all finite."""
    finite = [
        tf.reduce_all(tf.math.is_finite(column), axis=1) for column in stack_columns(gradients)
    ]
    return ~tf.reduce_all(finite, axis=0)


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
    optimizer = inner_optimizer(optimizer)
    if update == "sgd":
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        return [
            tf.convert_to_tensor(variable) - tf.cast(rate, gradient.dtype) * gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
    view = stateless_view(optimizer, variables)
    with keras.StatelessScope() as scope:
        view.apply(list(gradients), list(variables))
    return [scope.get_current_value(variable) for variable in variables]


class _StatelessUpdates(keras.optimizers.Optimizer):  # type: ignore[misc]
    """What Keras' TensorFlow optimizers do to tf.Variables, done to Keras variables instead.

    `Optimizer.stateless_apply` raises on the TensorFlow backend, because the methods below write
    to tf.Variables, which a `StatelessScope` does not see. Everything of Keras that this relies on
    and that is not public stands in this class and in `stateless_view`.
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

    @property
    def iterations(self) -> Any:
        # Keras counts batches; the step that comes after accumulating gradients counts once.
        return self._iterations // self._steps_of_one_update + self._more_updates

    def _var_key(self, variable: keras.Variable) -> Any:
        # The original asks the tf.Variable, which is hidden once the scope holds a new value.
        return self._keys[id(variable)]


def stateless_view(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    more_updates: tf.Tensor | int = 0,
    **attributes: Any,
) -> keras.optimizers.Optimizer:
    """A second face of `optimizer`, over the same state, that can be applied in a scope.

    Args:
        optimizer: A built optimizer that wraps no other.
        variables: Variables that it was built with.
        more_updates: Integer: updates that these variables had beyond `optimizer.iterations`. They
            count for the optimizer's own formulas, as Adam's correction, and not for a learning
            rate schedule.
        **attributes: What the view is to have otherwise than `optimizer`.

    Returns:
        An optimizer to be applied in a `keras.StatelessScope`.
    """
    # Python's method order puts _StatelessUpdates after the optimizer's own classes and before
    # keras.optimizers.Optimizer, so what Muon or Nadam override for themselves stays in force.
    kind = type("StatelessView", (type(optimizer), _StatelessUpdates), {})
    view: Any = object.__new__(kind)
    view.__dict__.update(optimizer.__dict__)
    view.__dict__.update(
        _keys={id(variable): optimizer._var_key(variable) for variable in variables},
        _steps_of_one_update=optimizer.gradient_accumulation_steps or 1,
        _more_updates=more_updates,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        use_ema=False,
        **attributes,
    )
    return view


def _where_positive(losses: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    # Relative to a loss that is not positive, a gain says nothing.
    usable = (losses > 0) & tf.math.is_finite(losses) & tf.math.is_finite(values)
    return tf.where(usable, values, float("nan"))
