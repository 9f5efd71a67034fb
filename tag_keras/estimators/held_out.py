"""Held-out data to measure affinities on: the option `on`, a batch for each probe, the labels."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.estimators.statistics import ProbeStatistics
from tag_keras.utils.tasks import select_labels, select_weights

# Configurations hold this text in place of the data.
PLACEHOLDER = "held-out data"
_WANTED = (
    "`on` should be held-out data: `(x, y)` or `(x, y, sample_weight)`, a batched tf.data.Dataset, "
    "or a function that gives one of these"
)


def check_data(on: Any) -> None:
    """Raises a `ValueError` unless `on` may be held-out data, or a function that gives them."""
    if on is None or isinstance(on, tf.data.Dataset) or callable(on):
        return
    if isinstance(on, str) and on == PLACEHOLDER:
        return
    is_list = isinstance(on, tuple | list)
    if not is_list or len(on) not in (2, 3):
        received = f"{len(on)} parts" if is_list else repr(on)
        raise ValueError(f"{_WANTED}. Received: {received}.")


def describe_data(on: Any) -> str:
    """A text that differs for other arrays: a checksum of names, shapes, types and values.

    Datasets and functions all have one text, because they may give other data at each run.
    """
    if not isinstance(on, tuple | list):
        return PLACEHOLDER
    x, *others = on
    by_task = [part if isinstance(part, Mapping) else {"": part} for part in others]
    arrays = [{task: _array(one) for task, one in part.items()} for part in by_task]
    parts = (keras.tree.map_structure(_array, x), *arrays)
    checksum, number = 0, 0
    for path, array in keras.tree.flatten_with_path(parts):
        # Sample weights may be None.
        if array.shape or array.dtype != object:
            name = f"{path} {array.shape} {array.dtype}"
            checksum = zlib.crc32(_bytes(array), zlib.crc32(name.encode(), checksum))
            number += 1
    return f"{PLACEHOLDER}, {number} arrays, CRC-32 {checksum:08x}"


def _bytes(array: npt.NDArray[Any]) -> Any:
    # The buffer of an array of objects, such as Python strings, holds addresses.
    if array.dtype.hasobject:
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _array(value: Any) -> npt.NDArray[Any]:
    """A NumPy array, with floats of the type that Keras gives the arrays of `fit`."""
    array = np.asarray(value)
    is_float = np.issubdtype(array.dtype, np.floating)
    return array.astype(keras.config.floatx(), copy=False) if is_float else array


class HeldOutBatches:
    """Batches of held-out data `on` for the probes, all of one size, without end."""

    def __init__(self, on: Any, tasks: tuple[str, ...]) -> None:
        self._on, self.tasks = on, tasks
        # Set by `open`.
        self._strategy: Any = None
        self._data: Any = None
        self._iterator: Any = None
        # Number of the probe that gets the next batch of the iterator.
        self._next_probe = 0
        # Number of examples that the batches of the iterator were made for.
        self._size = 0

    def open(self, strategy: tf.distribute.Strategy) -> None:
        """Checks the data; their batches are distributed over the replicas of `strategy`."""
        self._data, self._strategy = open_data(self._on, self.tasks), strategy
        self._iterator = None

    def batch(self, probe: int, like: Any, size: int = 0) -> Any:
        """The batch for a probe, distributed over the replicas.

        Args:
            probe: Number of the probe. Each probe has its own batch.
            like: The training batch, which may be the small rest of an epoch.
            size: Number of examples in the largest training batch so far.

        Raises:
            ValueError: If the dataset ends, or if the inputs do not match the training batch.
        """
        is_new = self._iterator is None or probe != self._next_probe or size > self._size
        if is_new:
            self._size = max(size, self._size_of(like))
            batches = self._data.batches(self._size, probe)
            self._iterator = iter(self._strategy.experimental_distribute_dataset(batches))
        self._next_probe = probe + 1
        batch = next(self._iterator, None)
        if batch is None:
            raise ValueError(
                "The held-out dataset (`on`) has come to an end, without a batch as large as one "
                "before: give batches of one size in every pass."
            )
        if is_new:
            self._check_inputs(like, batch)
        return batch

    def without_labels(self, tasks: list[str], most: int) -> list[str]:
        """The tasks, out of `tasks`, without any label in the first `most` batches."""
        if self._data.has_all_labels:
            return []
        for batch in self._data.batches(1, 0).take(most):
            tasks = _without_label(batch, tasks)
            if not tasks:
                break
        return tasks

    def _size_of(self, batch: Any) -> int:
        """Number of examples in a batch that is distributed over the replicas of all workers."""
        first = keras.tree.flatten(_inputs(batch))[0]
        sizes = iter([len(one) for one in self._strategy.experimental_local_results(first)])
        # The parts of other workers may have one example more or less.
        own = self._strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(next(sizes), "float32")
        )
        return int(self._strategy.reduce("SUM", own, axis=None))

    def _check_inputs(self, training: Any, held_out: Any) -> None:
        def shape(value: Any) -> tuple[int, ...]:
            return tuple(self._strategy.experimental_local_results(value)[0].shape)

        wanted = keras.tree.map_structure(shape, _inputs(training))
        found = keras.tree.map_structure(shape, _inputs(held_out))
        # Only the numbers of axes have to agree: sizes may differ from batch to batch.
        if _ranks(wanted) != _ranks(found):
            raise ValueError(
                "The inputs of the held-out data (`on`) should be like those of the training, "
                f"which have the shapes {wanted} in a batch. Received: {found}."
            )


def _inputs(batch: Any) -> Any:
    x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
    return x


def _ranks(shapes: Any) -> Any:
    """The numbers of axes; dicts are equal in any order, and lists are as good as tuples."""
    if isinstance(shapes, Mapping):
        return {name: _ranks(one) for name, one in shapes.items()}
    is_shape = all(isinstance(one, int) for one in shapes)
    return len(shapes) if is_shape else [_ranks(one) for one in shapes]


class HeldOutLabels(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises a `ValueError` after the first epoch if a task has no labels in the held-out data."""

    def __init__(self, batches: HeldOutBatches, statistics: ProbeStatistics) -> None:
        super().__init__()
        self._batches, self._statistics = batches, statistics
        self._is_checked = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_checked:
            return
        self._is_checked = True
        # Not those of `self.model`: a callback that joins a `CallbackList` has no model.
        numbers = zip(self._batches.tasks, self._statistics.values_by_target(), strict=True)
        rare = [task for task, number in numbers if number == 0]
        # A rare label may be in other batches than the few that were probed.
        if rare and (without := self._batches.without_labels(rare, self._statistics.steps)):
            raise _no_labels(without)


class HeldOut(NamedTuple):
    """Held-out data that were checked: batches of x, labels by task, and weights by task, if any.

    Args:
        batches: Function from a batch size, for arrays, and a number of batches to skip, to an
            endless dataset of batches of one size.
        has_all_labels: Whether every task is known to have labels.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    has_all_labels: bool


def open_data(on: Any, tasks: tuple[str, ...]) -> HeldOut:
    """Checks held-out data, or a function that gives them, and makes batches of them.

    Raises:
        ValueError: If the data are missing, or not valid.
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


def _of_arrays(on: Any, tasks: tuple[str, ...]) -> HeldOut:
    x, *by_task = _selected(tuple(on), tasks)
    # A list of numbers is one array as labels, but several arrays as inputs.
    parts = [{task: _array(one) for task, one in part.items()} for part in by_task]
    selected = (keras.tree.map_structure(_array, x), *parts)
    leaves = keras.tree.flatten(selected)
    lengths = {len(leaf) if leaf.shape else 0 for leaf in leaves}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "The arrays of the held-out data (`on`) should all have the same number of examples, "
            f"at least 1. Received: shapes {[leaf.shape for leaf in leaves]}."
        )
    if without := _without_label(selected, list(tasks)):
        raise _no_labels(without)
    (length,) = lengths
    selected = keras.tree.lists_to_tuples(selected)
    with tf.device("CPU:0"):
        arrays = keras.tree.map_structure(tf.convert_to_tensor, selected)

    def batches(size: int, skipped: int) -> tf.data.Dataset:
        def gather(chosen: tf.Tensor, rows: Any) -> Any:
            return tf.nest.map_structure(lambda array: tf.gather(array, chosen), rows)

        indices = _shuffled(length, min(size, length), skipped)
        rows = tf.data.Dataset.from_tensors(arrays).repeat()
        return tf.data.Dataset.zip((indices, rows)).map(gather)

    return HeldOut(batches, has_all_labels=True)


def _shuffled(length: int, size: int, skipped: int) -> tf.data.Dataset:
    """Batches of the indices, in another order in each pass, without a remainder.

    The order depends on the number of the pass alone, so a restart goes on with the next batches.
    """
    number = length // size

    def one_pass(index: tf.Tensor) -> tf.Tensor:
        order = tf.random.experimental.stateless_shuffle(tf.range(length), seed=[0, index])
        return tf.reshape(order[: number * size], [number, size])

    passes = tf.data.Dataset.counter(skipped // number).map(one_pass)
    return passes.unbatch().skip(skipped % number)


def _of_dataset(dataset: tf.data.Dataset, tasks: tuple[str, ...]) -> HeldOut:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            "The held-out dataset (`on`) should have elements (x, y) or (x, y, sample_weight). "
            f"Received: element_spec={spec}."
        )

    def select(*batch: Any) -> Any:
        return _selected(batch, tasks)

    # Called here, because a dataset would turn an error of its function into one of TensorFlow.
    select(*spec)
    selected = dataset.map(select)
    # One of two batches has the full size, even if batches are shuffled.
    shapes = [keras.tree.flatten(batch[1])[0].shape for batch in selected.take(2)]
    if not shapes or not all(shape.rank for shape in shapes):
        received = f"labels of shape {shapes[0]}" if shapes else "a dataset without any batch"
        raise ValueError(
            "The held-out dataset (`on`) should give batches of examples: batch it with `batch`. "
            f"Received: {received}."
        )
    full = max(shape[0] for shape in shapes)
    same = selected.filter(
        lambda x, labels, *_: tf.equal(tf.shape(tf.nest.flatten(labels)[0])[0], full)
    )
    return HeldOut(lambda size, skipped: same.repeat().skip(skipped), has_all_labels=False)


def _selected(batch: tuple[Any, ...], tasks: tuple[str, ...]) -> tuple[Any, ...]:
    """Inputs, labels and, if there are any, sample weights of the tasks."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
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


def _without_label(batch: Any, tasks: list[str]) -> list[str]:
    """The tasks, out of `tasks`, without any label in a batch."""
    _, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
    weights = weights or {}
    return [task for task in tasks if not _has_label(labels[task], weights.get(task))]


def _has_label(labels: Any, weights: Any) -> bool:
    labels, weights = np.asarray(labels), np.asarray(1.0 if weights is None else weights)
    known: Any = np.ones(labels.shape, bool)
    if np.issubdtype(labels.dtype, np.floating):
        known = ~np.isnan(labels)
    # One weight counts for all labels behind its axes.
    known = known.reshape([*known.shape, *[1] * (weights.ndim - known.ndim)])
    known = known.any(axis=tuple(range(weights.ndim, known.ndim)))
    return bool((known & (weights != 0)).any())


def _no_labels(tasks: list[str]) -> ValueError:
    return ValueError(
        f"The held-out data (`on`) have no label of the tasks {tasks}: all are NaN or have the "
        "sample weight 0. Give them labels of these tasks, or leave the tasks out of the model."
    )
