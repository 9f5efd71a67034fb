"""Held-out data that affinities are measured on: what they may be, cut into batches."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.tasks import select_labels, select_weights

# What a configuration has in the place of the data.
PLACEHOLDER = "held-out data"
_WANTED = (
    "`on` should be held-out data: `(x, y)` or `(x, y, sample_weight)`, a batched tf.data.Dataset, "
    "or a function that gives one of these"
)
# By the number of examples of a batch, and of batches to pass over: all batches after those.
Batches = Callable[[int, int], tf.data.Dataset]


def check_data(on: Any) -> None:
    """Checks that something may be held-out data, or a function that gives them.

    Raises:
        ValueError: If it may not.
    """
    known = on is None or isinstance(on, tf.data.Dataset) or callable(on)
    pair = isinstance(on, tuple | list) and len(on) in (2, 3)
    if not (known or pair or (isinstance(on, str) and on == PLACEHOLDER)):
        what = f"{len(on)} parts" if isinstance(on, tuple | list) else repr(on)
        raise ValueError(f"{_WANTED}. Received: {what}.")


def open_data(on: Any, tasks: tuple[str, ...]) -> Batches:
    """Checks held-out data, and gives their batches: x, labels by task, and weights by task if any.

    Args:
        on: The data, or a function that gives them.
        tasks: Task names.

    Returns:
        A function of the number of examples that batches of arrays are to have, and of the number
        of batches to pass over. It gives a dataset without end, of batches of one size.

    Raises:
        ValueError: If the data are not there, or not what they should be.
    """
    if isinstance(on, str):
        raise ValueError(
            "A saved model does not hold the held-out data that it measured affinities on. Give "
            "them before training: compile again, with `LookaheadAffinity(on=...)`, or without "
            "`affinity` to measure nothing."
        )
    if callable(on):
        on = on()
        if callable(on) or on is None or isinstance(on, str):
            raise ValueError(f"{_WANTED}. Received: a function that gave {on!r}.")
        check_data(on)
    return _of_dataset(on, tasks) if isinstance(on, tf.data.Dataset) else _of_arrays(on, tasks)


def _of_arrays(on: Any, tasks: tuple[str, ...]) -> Batches:
    x, y, weights = keras.utils.unpack_x_y_sample_weight(tuple(on))
    selected = keras.tree.map_structure(_array, _selected(x, y, weights, tasks))
    leaves = keras.tree.flatten(selected)
    lengths = {len(leaf) if leaf.shape else None for leaf in leaves}
    if len(lengths) != 1 or lengths & {0, None}:
        raise ValueError(
            "The arrays of the held-out data (`on`) should all have the same number of examples, "
            f"at least 1. Received: shapes {[leaf.shape for leaf in leaves]}."
        )
    labels, weights = selected[1], dict(zip(tasks, [None] * len(tasks), strict=True))
    weights |= selected[2] if len(selected) == 3 else {}
    if without := [task for task in tasks if not has_label(labels[task], weights[task])]:
        raise no_labels(without)
    length = len(leaves[0])
    with tf.device("CPU:0"):
        tensors = keras.tree.map_structure(
            tf.convert_to_tensor, keras.tree.lists_to_tuples(selected)
        )

    def batches(size: int, skipped: int) -> tf.data.Dataset:
        indices = tf.data.Dataset.range(length).shuffle(length, seed=0)
        indices = indices.batch(min(size, length), drop_remainder=True).repeat().skip(skipped)
        arrays = tf.data.Dataset.from_tensors(tensors).repeat()
        rows = tf.data.Dataset.zip((indices, arrays)).map(
            lambda index, all_rows: tf.nest.map_structure(
                lambda rows: tf.gather(rows, index), all_rows
            )
        )
        return rows.prefetch(1)

    return batches


def _of_dataset(dataset: tf.data.Dataset, tasks: tuple[str, ...]) -> Batches:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            "The held-out dataset (`on`) should have elements (x, y) or (x, y, sample_weight). "
            f"Received: element_spec={spec}."
        )

    def select(*batch: Any) -> Any:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        return _selected(x, y, weights, tasks)

    # Here, because an error in a function of a dataset would be one of TensorFlow.
    select(*spec)
    selected = dataset.map(select)
    # Of two batches one is whole, even if batches are shuffled.
    shapes = [keras.tree.flatten(batch[1])[0].shape for batch in selected.take(2)]
    if not shapes or not all(shape.rank for shape in shapes):
        what = f"labels of shape {shapes[0]}" if shapes else "a dataset without any batch"
        raise ValueError(
            "The held-out dataset (`on`) should give batches of examples: batch it with `batch`. "
            f"Received: {what}."
        )
    whole = max(shape[0] for shape in shapes)
    same = selected.filter(
        lambda x, labels, *_: tf.equal(tf.shape(tf.nest.flatten(labels)[0])[0], whole)
    )
    return lambda size, skipped: same.repeat().skip(skipped).prefetch(1)


def _selected(x: Any, y: Any, weights: Any, tasks: tuple[str, ...]) -> tuple[Any, ...]:
    """Inputs, labels and, if there are any, sample weights of the tasks."""
    try:
        labels = select_labels(y, tasks)
    except ValueError as error:
        raise ValueError(
            f"The held-out data (`on`) lack labels. {error} Give them labels of these tasks, or "
            "leave the tasks out of the model."
        ) from error
    chosen = select_weights(weights, tasks)
    kept = {task: weight for task, weight in chosen.items() if weight is not None}
    return (x, labels, kept) if kept else (x, labels)


def _array(value: Any) -> npt.NDArray[Any]:
    array = np.asarray(value)
    # As Keras takes the arrays of `fit`.
    is_float = np.issubdtype(array.dtype, np.floating)
    return array.astype(keras.config.floatx()) if is_float else array


def has_label(labels: Any, weights: Any) -> bool:
    """Whether any label of a task is there."""
    labels = np.asarray(labels)
    known = ~np.isnan(labels) if np.issubdtype(labels.dtype, np.floating) else np.True_
    if weights is None:
        return bool(np.any(known))
    weights = np.asarray(weights)
    known = np.broadcast_to(known, labels.shape)
    if weights.ndim <= known.ndim:
        known = known.any(axis=tuple(range(weights.ndim, known.ndim)))
    else:
        weights = weights.reshape(known.shape)
    return bool(np.any(known & (weights != 0)))


def no_labels(tasks: list[str]) -> ValueError:
    return ValueError(
        f"The held-out data (`on`) have no label of the tasks {tasks}: all are NaN or have the "
        "sample weight 0. Give them labels of these tasks, or leave the tasks out of the model."
    )
