"""Held-out data that affinities are measured on: what they may be, cut into batches."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.utils.tasks import select_labels, select_weights

# What a configuration has in the place of the data.
PLACEHOLDER = "held-out data"
_WANTED = (
    "`on` should be held-out data: `(x, y)` or `(x, y, sample_weight)`, a batched tf.data.Dataset, "
    "or a function that gives one of these"
)


class HeldOut(NamedTuple):
    """Held-out data that were checked: batches of x, labels by task, and weights by task, if any.

    Args:
        batches: Gives for the number of examples that batches of arrays are to have, and for a
            number of batches to pass over, a dataset without end of batches of one size.
        has_all_labels: Whether it is known that every task has labels.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    has_all_labels: bool


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


def describe_data(on: Any) -> str:
    """What tells held-out arrays from others: a checksum of their names, shapes, types and values.

    Datasets and functions would have to be run, and may give other data each time.
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
    # Of objects, such as texts of Python, these would be addresses.
    if array.dtype.hasobject:
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def open_data(on: Any, tasks: tuple[str, ...]) -> HeldOut:
    """Checks held-out data, and makes batches of them.

    Args:
        on: The data, or a function that gives them.
        tasks: Task names.

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


def _of_arrays(on: Any, tasks: tuple[str, ...]) -> HeldOut:
    x, y, weights = keras.utils.unpack_x_y_sample_weight(tuple(on))
    x, *by_task = _selected(x, y, weights, tasks)
    # A list of numbers is an array of labels, too; as inputs it is one by input.
    parts = [{task: _array(one) for task, one in part.items()} for part in by_task]
    selected = (keras.tree.map_structure(_array, x), *parts)
    leaves = keras.tree.flatten(selected)
    lengths = {len(leaf) if leaf.shape else 0 for leaf in leaves}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "The arrays of the held-out data (`on`) should all have the same number of examples, "
            f"at least 1. Received: shapes {[leaf.shape for leaf in leaves]}."
        )
    if without := without_label(selected, list(tasks)):
        raise no_labels(without)
    with tf.device("CPU:0"):
        arrays = keras.tree.map_structure(
            tf.convert_to_tensor, keras.tree.lists_to_tuples(selected)
        )
    length = len(leaves[0])

    def batches(size: int, passed: int) -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensors(arrays).repeat()
        indices = _shuffled(length, min(size, length), passed)
        return tf.data.Dataset.zip((indices, rows)).map(
            lambda chosen, all_rows: tf.nest.map_structure(
                lambda array: tf.gather(array, chosen), all_rows
            )
        )

    return HeldOut(batches, has_all_labels=True)


def _shuffled(length: int, size: int, passed: int) -> tf.data.Dataset:
    """Batches of the indices, in another order in each pass, without a remainder.

    The order is a function of the number of the pass, whatever the global seed is. So a restart
    goes on with the batches that come next.
    """
    number = length // size

    def one_pass(index: tf.Tensor) -> tf.Tensor:
        order = tf.random.experimental.stateless_shuffle(tf.range(length), seed=[0, index])
        return tf.reshape(order[: number * size], [number, size])

    passes = tf.data.Dataset.counter(passed // number).map(one_pass)
    return passes.unbatch().skip(passed % number)


def _of_dataset(dataset: tf.data.Dataset, tasks: tuple[str, ...]) -> HeldOut:
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
    return HeldOut(lambda size, passed: same.repeat().skip(passed), has_all_labels=False)


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
    return array.astype(keras.config.floatx(), copy=False) if is_float else array


def without_label(batch: Any, tasks: list[str]) -> list[str]:
    """Those of the tasks that have no label in a batch."""
    _, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
    weights = weights or {}
    return [task for task in tasks if not _has_label(labels[task], weights.get(task))]


def _has_label(labels: Any, weights: Any) -> bool:
    labels = np.asarray(labels)
    known: Any = np.ones(labels.shape, bool)
    if np.issubdtype(labels.dtype, np.floating):
        known = ~np.isnan(labels)
    if weights is None:
        return bool(known.any())
    weights = np.asarray(weights)
    # One weight counts for all labels behind its axes.
    known = known.reshape([*known.shape, *[1] * (weights.ndim - known.ndim)])
    known = known.any(axis=tuple(range(weights.ndim, known.ndim)))
    return bool((known & (weights != 0)).any())


def no_labels(tasks: list[str]) -> ValueError:
    return ValueError(
        f"The held-out data (`on`) have no label of the tasks {tasks}: all are NaN or have the "
        "sample weight 0. Give them labels of these tasks, or leave the tasks out of the model."
    )


class HeldOutBatches:
    """Batches of held-out data, all of one size, without end.

    Arrays are shuffled anew in each pass, in an order that is always the same. A dataset is
    repeated as it is, without its batches of other sizes.

    Args:
        on: The data, or a function that gives them.
        tasks: Task names.
    """

    def __init__(self, on: Any, tasks: tuple[str, ...]) -> None:
        self._on, self._tasks = on, tasks
        self._strategy: Any = None
        self._data: HeldOut | None = None
        self._iterator: Any = None
        # The probe that the next batch of the iterator is for, and what size they were made for.
        self._next = self._length = 0

    @classmethod
    def of(cls, on: Any, tasks: tuple[str, ...]) -> "HeldOutBatches | None":
        """The batches of the data; none for no data."""
        return None if on is None else cls(on, tasks)

    def open(self, strategy: tf.distribute.Strategy) -> None:
        """Checks the data, and makes them ready.

        Args:
            strategy: Strategy whose replicas get the batches.

        Raises:
            ValueError: If the data are not there, or not what they should be.
        """
        self._data, self._strategy = open_data(self._on, self._tasks), strategy
        self._iterator = None

    def batch(self, probe: int, like: Any, size: int = 0) -> Any:
        """The batch for a probe, distributed over the replicas.

        Args:
            probe: Number of the probe; each has its batch.
            like: The training batch.
            size: Number of examples in the largest training batch before, that of a whole one.

        Raises:
            ValueError: If its inputs are not like those of the training batch.
        """
        is_first = self._iterator is None or probe != self._next or size > self._length
        if is_first:
            self._length = max(size, self._size(like))
            batches = self._opened().batches(self._length, probe)
            self._iterator = iter(self._strategy.experimental_distribute_dataset(batches))
        self._next = probe + 1
        batch = next(self._iterator, None)
        if batch is None:
            raise ValueError(
                "The held-out dataset (`on`) has come to an end, without a batch as large as one "
                "before: give batches of one size in every pass."
            )
        if is_first:
            self._check_inputs(like, batch)
        return batch

    def without_labels(self, tasks: list[str], most: int) -> list[str]:
        """Those of the tasks that have no label in so many batches."""
        if self._opened().has_all_labels:
            return []
        for batch in self._opened().batches(1, 0).take(most):
            tasks = without_label(batch, tasks)
            if not tasks:
                break
        return tasks

    def _opened(self) -> HeldOut:
        if self._data is None:
            raise RuntimeError("The held-out data were not opened.")
        return self._data

    def _size(self, batch: Any) -> int:
        """Number of examples of a batch that is distributed over the replicas of all workers."""
        first = keras.tree.flatten(_inputs(batch))[0]
        sizes = iter([len(one) for one in self._strategy.experimental_local_results(first)])
        # Those of other workers may have one example more or less.
        own = self._strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(next(sizes), "float32")
        )
        return int(self._strategy.reduce("SUM", own, axis=None))

    def _check_inputs(self, training: Any, held_out: Any) -> None:
        def shape(value: Any) -> tuple[int, ...]:
            return tuple(self._strategy.experimental_local_results(value)[0].shape)

        wanted, found = (
            keras.tree.map_structure(shape, _inputs(batch)) for batch in (training, held_out)
        )
        # Lengths may differ from batch to batch.
        if _ranks(wanted) != _ranks(found):
            raise ValueError(
                "The inputs of the held-out data (`on`) should be like those of the training, "
                f"which have the shapes {wanted} in a batch. Received: {found}."
            )


def _inputs(batch: Any) -> Any:
    x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
    return x


def _ranks(shapes: Any) -> Any:
    """Of the shapes in a structure."""
    if isinstance(shapes, Mapping):
        return {name: _ranks(one) for name, one in shapes.items()}
    is_shape = all(isinstance(one, int) for one in shapes)
    return len(shapes) if is_shape else [_ranks(one) for one in shapes]


class HeldOutLabels(keras.callbacks.Callback):  # type: ignore[misc]
    """Checks after the first epoch that every task has labels in the held-out data.

    Args:
        batches: The held-out data.
        statistics: Statistics of the probes on them.
    """

    def __init__(self, batches: HeldOutBatches, statistics: "_Statistics") -> None:
        super().__init__()
        self._batches, self._statistics = batches, statistics
        self._is_checked = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_checked:
            return
        self._is_checked = True
        numbers = zip(self.model.tasks, self._statistics.values_by_target(), strict=True)
        rare = [task for task, number in numbers if number == 0]
        # A rare label may be in other batches than those of a few probes.
        if rare and (without := self._batches.without_labels(rare, self._statistics.steps)):
            raise no_labels(without)


class _Statistics(Protocol):
    steps: int

    def values_by_target(self) -> npt.NDArray[np.float64]: ...
