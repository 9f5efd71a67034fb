"""Feeding probes with held-out batches, and checking that these have labels of all tasks."""

from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.held_out import HeldOut, no_labels, open_data, without_label


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
