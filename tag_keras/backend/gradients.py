"""Gradients by task: one backward pass per task, unrolled or in a loop; their sums and products."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tag_keras.backend.optimizers import with_shape
from tag_keras.backend.replicas import num_replicas, sum_over_replicas


class StackedGradients(NamedTuple):
    """Gradients of T losses as P tensors (T, ...); `None` where no loss depends on the variable."""

    columns: list[tf.Tensor | None]


# T lists of P tensors, with `None` where a loss does not depend on a variable; or T stacked in P.
Gradients = Sequence[Sequence[tf.Tensor | None]] | StackedGradients


def task_gradients(
    tape: tf.GradientTape, losses: Sequence[tf.Tensor], variables: Sequence[Any]
) -> list[list[tf.Tensor | None]]:
    """Gradients of T losses with respect to P variables, by one backward pass per loss.

    Args:
        tape: Persistent tape that recorded the losses.
        losses: T scalars.
        variables: P variables.

    Returns:
        T lists of P dense tensors; `None` where a loss does not depend on a variable.
    """

    def gradients(loss: tf.Tensor) -> list[tf.Tensor | None]:
        return _dense(tape.gradient(loss, list(variables)), variables)

    return _one_after_the_other(gradients, losses)


def looped_gradients(
    tape: tf.GradientTape, losses: Sequence[tf.Tensor], variables: Sequence[Any]
) -> Gradients:
    """Gradients of T losses with respect to P variables, by a loop in the graph.

    The graph does not grow with T. But each pass runs back through everything that any loss depends
    on, with zeros for the other losses.
    """
    with tape:
        stacked = tf.stack(losses)
    depends: list[bool] = []

    def gradients(seed: tf.Tensor) -> list[tf.Tensor]:
        found = tape.gradient(stacked, list(variables), output_gradients=seed)
        row = _dense(found, variables)
        depends.extend(gradient is not None for gradient in row)
        return [
            tf.zeros_like(variable) if gradient is None else gradient
            for variable, gradient in zip(variables, row, strict=True)
        ]

    columns = _map(gradients, tf.eye(len(losses), dtype=stacked.dtype), like=variables)
    if not any(depends):
        # Without any column, stacked gradients would not tell the number of tasks.
        return [[None] * len(variables) for _ in losses]
    used = zip(columns, depends, strict=False)
    return StackedGradients([column if depend else None for column, depend in used])


def weighted_sum(gradients: Gradients, weights: Sequence[Any]) -> list[tf.Tensor | None]:
    """Gradient of `sum_i weights[i] * L_i` from the gradients of the losses L_i.

    Args:
        gradients: Gradients of T losses with respect to P variables.
        weights: T scalars.

    Returns:
        P tensors; `None` where no loss depends on the variable.
    """
    if not isinstance(gradients, StackedGradients):
        return [_sum_one(column, weights) for column in zip(*gradients, strict=True)]
    factors = tf.stack([tf.cast(weight, "float32") for weight in weights])
    return [
        None if column is None else tf.tensordot(tf.cast(factors, column.dtype), column, 1)
        for column in gradients.columns
    ]


def of_whole_batch(gradients: Gradients, variables: Sequence[Any], scale: Any = None) -> Gradients:
    """Gradients of the losses of the whole batch: the sums over the replicas, zeros for `None`.

    Args:
        gradients: Gradients of this replica's T losses with respect to P variables.
        variables: The P variables.
        scale: Loss scale of mixed precision, by which the gradients are divided.
    """

    def dense(row: Sequence[tf.Tensor | None], axes: list[int]) -> list[tf.Tensor]:
        zeros = [tf.zeros([*axes, *variable.shape], variable.dtype) for variable in variables]
        filled = [zero if one is None else one for zero, one in zip(zeros, row, strict=True)]
        return filled if scale is None else [one / tf.cast(scale, one.dtype) for one in filled]

    if isinstance(gradients, StackedGradients):
        (length,) = {column.shape[0] for column in gradients.columns if column is not None}
        return StackedGradients(sum_over_replicas(dense(gradients.columns, [length])))
    rows = [dense(row, []) for row in gradients]
    if num_replicas() == 1 or not variables:
        return rows
    # One all-reduce for all tasks.
    together = iter(sum_over_replicas([one for row in rows for one in row]))
    return [[next(together) for _ in row] for row in rows]


def map_tasks(function: Callable[[list[tf.Tensor]], tf.Tensor], gradients: Gradients) -> tf.Tensor:
    """Applies a function to the dense gradients of each task, one task after the other in a loop.

    The function goes from P gradients to a float32 tensor. Returns a float32 tensor (T, ...).
    """
    if isinstance(gradients, StackedGradients):
        return _map(function, gradients.columns)
    return tf.stack(_one_after_the_other(function, gradients))


def select_variables(gradients: Gradients, chosen: Sequence[bool]) -> Gradients:
    """Gradients with respect to the chosen variables only, by one boolean for each of the P."""

    def select(row: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        return [one for one, is_chosen in zip(row, chosen, strict=True) if is_chosen]

    if isinstance(gradients, StackedGradients):
        return StackedGradients(select(gradients.columns))
    return [select(row) for row in gradients]


def stack_columns(gradients: Gradients) -> list[tf.Tensor]:
    """Dense gradients of T losses as P matrices (T, size of the variable)."""
    if isinstance(gradients, StackedGradients):
        columns: Any = gradients.columns
    else:
        columns = [tf.stack(column) for column in zip(*gradients, strict=True)]
    return [tf.reshape(column, [column.shape[0], -1]) for column in columns]


def gram_matrix(gradients: Gradients, weights: Sequence[Any]) -> tuple[tf.Tensor, tf.Tensor]:
    """Gram matrix `<w_i g_i, w_j g_j>` of weighted gradients, up to one common factor.

    All gradients are divided by their largest entry, or the squares of small ones would vanish.

    Args:
        gradients: Dense gradients g_i of T losses.
        weights: T scalars w_i.

    Returns:
        Float32 tensor (T, T), and a float32 scalar: the largest entry.
    """
    factors = tf.stack([tf.cast(weight, "float32") for weight in weights])
    columns = [tf.cast(column, "float32") * factors[:, None] for column in stack_columns(gradients)]
    largest = tf.reduce_max([tf.reduce_max(tf.abs(column)) for column in columns])
    scaled = [tf.math.divide_no_nan(column, largest) for column in columns]
    products = [tf.matmul(column, column, transpose_b=True) for column in scaled]
    return tf.add_n(products), largest


def gradient_norms(gradients: Gradients) -> tf.Tensor:
    """Euclidean norms of the dense gradients of T losses: float32 tensor (T,)."""
    norms = [tf.norm(tf.cast(column, "float32"), axis=1) for column in stack_columns(gradients)]
    return tf.norm(tf.stack(norms), axis=0)


def overflowed(gradients: Gradients) -> tf.Tensor:
    """Whether a task's gradients hold infinity or NaN: boolean tensor (T,)."""
    finite = [tf.math.is_finite(column) for column in stack_columns(gradients)]
    return ~tf.reduce_all([tf.reduce_all(column, axis=1) for column in finite], axis=0)


def _map(function: Callable[[Any], Any], elements: Any, like: Sequence[Any] | None = None) -> Any:
    signature: Any = "float32"
    if like is not None:
        signature = [tf.TensorSpec(variable.shape, variable.dtype) for variable in like]
    return tf.map_fn(function, elements, fn_output_signature=signature, parallel_iterations=1)


def _one_after_the_other(function: Callable[[Any], Any], elements: Iterable[Any]) -> list[Any]:
    """Results of a function for each element, in turn: each may take a training step's memory."""
    results: list[Any] = []
    for element in elements:
        before = [one for one in tf.nest.flatten(results[-1:]) if one is not None]
        with tf.control_dependencies(before):
            results.append(function(element))
    return results


def _sum_one(column: Sequence[tf.Tensor | None], weights: Sequence[Any]) -> tf.Tensor | None:
    terms = [
        # Weights are the Python number 1 by default, which needs no operation.
        gradient if isinstance(weight, float) and weight == 1.0 else gradient * weight
        for gradient, weight in zip(column, weights, strict=True)
        if gradient is not None
    ]
    return tf.add_n(terms) if terms else None


def _dense(gradients: Sequence[Any], variables: Sequence[Any]) -> list[tf.Tensor | None]:
    # An Embedding's gradient comes as tf.IndexedSlices.
    return [
        None if one is None else with_shape(tf.convert_to_tensor(one), variable)
        for one, variable in zip(gradients, variables, strict=True)
    ]
