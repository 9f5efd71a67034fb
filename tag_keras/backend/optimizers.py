"""Keras optimizers: the one inside a loss-scaling wrapper, its settings, and stateless steps."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.backend.scopes import InnerScope, outside_of_scopes


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer inside the wrapper that scales losses, if there is one."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def accumulated_batches(optimizer: Any) -> int | None:
    """Number of batches whose gradients make one step; `None` if every batch makes a step."""
    number: int | None = getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None)
    return number


def loss_scale(optimizer: Any) -> tf.Tensor | None:
    """Factor by which mixed precision multiplies losses; `None` without a loss scale."""
    one = tf.ones(())
    scale = optimizer.scale_loss(one)
    return None if scale is one else scale


def variables_of_all(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer has once for all weights: iterations and learning rate."""
    return [optimizer.iterations, optimizer._learning_rate]


def rate_variable(optimizer: Any) -> keras.Variable | None:
    """The variable that holds the learning rate; `None` if the rate follows a schedule."""
    rate = optimizer._learning_rate
    return rate if isinstance(rate, keras.Variable) else None


def slots_by_variable(
    optimizer: Any,
) -> dict[tuple[str, int | None], keras.Variable]:
    """The variables of a built optimizer, each by its name in the optimizer and its index.

    The index is that of the trainable variable that it belongs to; `None` for one that belongs to
    all, such as the learning rate.

    Raises:
        ValueError: If the optimizer keeps variables in another way.
    """
    number = len(optimizer._trainable_variables)
    own = {id(one): one for one in optimizer.variables}
    found: dict[tuple[str, int | None], keras.Variable] = {}
    for name, value in vars(optimizer).items():
        if name in ("_variables", "_trainable_variables"):
            continue
        if isinstance(value, keras.Variable):
            found[name, None] = value
        elif isinstance(value, list | tuple) and len(value) == number:
            found |= {(name, i): one for i, one in enumerate(value) if id(one) in own}
    found = {key: one for key, one in found.items() if id(one) in own}
    if {id(one) for one in found.values()} != set(own):
        raise ValueError(
            f"The optimizer {type(optimizer).__name__} has variables that are none of its lists "
            "with one for each weight."
        )
    return found


def clipped_gradients(optimizer: Any, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients, clipped if the optimizer was told to clip."""
    return list(optimizer._clip_gradients(gradients))


def exclude_from_weight_decay(optimizer: Any, variables: Sequence[keras.Variable]) -> None:
    """Excludes more variables from weight decay. Keras' own method forgets the ones before."""
    optimizer = inner_optimizer(optimizer)
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    keys = {optimizer._var_key(variable) for variable in variables}
    optimizer._exclude_from_weight_decay = excluded | keys


def lookahead_step(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[tf.Tensor],
    variables: Sequence[keras.Variable],
    update: Literal["optimizer", "sgd"] = "optimizer",
) -> list[tf.Tensor]:
    """Values that the variables would have after one step of the optimizer. Nothing changes.

    With `update="optimizer"` this is the step that `optimizer.apply` would take, with momentum,
    adaptive rates, clipping, weight decay and constraints. It leaves out gradient accumulation and
    the moving average of the weights, which need several steps.

    Args:
        optimizer: A built optimizer.
        gradients: P gradients, without a loss scale.
        variables: P variables that the optimizer was built with.
        update: `"optimizer"`, or `"sgd"` for `variable - learning_rate * gradient`.
    """
    optimizer = inner_optimizer(optimizer)
    if update == "sgd":
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        return [
            tf.convert_to_tensor(variable) - tf.cast(rate, gradient.dtype) * gradient
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
    view = stateless_view(optimizer, variables)
    with InnerScope() as scope:
        view.apply(list(gradients), list(variables))
    return [scope.get_current_value(variable) for variable in variables]


def with_shape(gradient: Any, variable: Any) -> Any:
    """A gradient that knows the shape of its variable; `None` and `tf.IndexedSlices` stay.

    One that comes through a recurrent layer does not, where batches may have any size.
    """
    if not isinstance(gradient, tf.Tensor):
        return gradient
    return tf.ensure_shape(gradient, variable.shape)


class _StatelessUpdates(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Optimizer methods that write to Keras variables.

    Keras' versions write to tf.Variables, which a `StatelessScope` does not see: that is why
    `Optimizer.stateless_apply` raises on the TensorFlow backend.
    """

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable]) -> None:
        """Makes a step. A scope takes no value whose shape is not known."""
        super().apply(list(map(with_shape, grads, trainable_variables)), trainable_variables)

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
        # Keras counts batches, but several batches whose gradients accumulate make one step.
        return self._iterations // self._steps_of_one_update + self._more_updates

    def _var_key(self, variable: keras.Variable) -> Any:
        # Keras asks the tf.Variable, which is hidden once the scope holds a new value.
        return self._keys[id(variable)]


def stateless_view(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    more_updates: tf.Tensor | int = 0,
    **attributes: Any,
) -> keras.optimizers.Optimizer:
    """An optimizer with the state of `optimizer` that can be applied in a `keras.StatelessScope`.

    Outside of a scope it would change the state of `optimizer`.

    Args:
        optimizer: A built optimizer that wraps no other.
        variables: Variables that it was built with.
        more_updates: Number of updates that these variables had beyond `optimizer.iterations`.
            They count in the optimizer's own formulas, such as Adam's correction, but not in a
            learning rate schedule.
        **attributes: Attributes in which it should differ from `optimizer`.
    """
    # Python's method order puts _StatelessUpdates after the optimizer's own classes and before
    # keras.optimizers.Optimizer, so the methods that Muon or Nadam override stay in force.
    kind = type("StatelessView", (type(optimizer), _StatelessUpdates), {})
    view: Any = object.__new__(kind)
    view.__dict__.update(optimizer.__dict__)
    with outside_of_scopes():
        keys = {id(variable): optimizer._var_key(variable) for variable in variables}
    view.__dict__.update(
        _keys=keys,
        _steps_of_one_update=optimizer.gradient_accumulation_steps or 1,
        _more_updates=more_updates,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        use_ema=False,
        **attributes,
    )
    return view
