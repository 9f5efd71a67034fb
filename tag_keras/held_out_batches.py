"""Feeding probes with held-out batches, and checking that these have labels of all tasks."""

from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.held_out import Batches, has_label, no_labels, open_data


class HeldOutBatches:
    """Batches of held-out data, all of one size, without end.

    Arrays are shuffled anew in each pass, in an order of their own that is always the same. A
    dataset is repeated as it is, without its batches of other sizes.

    Args:
        on: The data, or a function that gives them.
        tasks: Task names.
    """

    def __init__(self, on: Any, tasks: tuple[str, ...]) -> None:
        self._on, self._tasks = on, tasks
        self._strategy: Any = None
        self._batches: Batches | None = None
        self._iterator: Any = None
        # The probe that the next batch of the iterator is for.
        self._next = 0

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
        self._batches, self._strategy = open_data(self._on, self._tasks), strategy
        self._iterator = None

    def batch(self, probe: int, like: Any, size: int = 0) -> Any:
        """The batch for a probe, distributed over the replicas.

        Args:
            probe: Number of the probe; each has its batch.
            like: The training batch.
            size: Number of examples in a whole training batch, if it is more than `like` has.

        Raises:
            ValueError: If its inputs are not like those of the training batch.
        """
        if self._iterator is None or probe != self._next:
            self._iterator = self._iterate(max(size, self._size(like)), probe)
        self._next = probe + 1
        batch = next(self._iterator)
        self._check_inputs(like, batch)
        return batch

    def without_labels(self, tasks: list[str], most: int) -> list[str]:
        """Those of the tasks that have no label in so many batches."""
        for batch in (self._batches or _closed)(1, 0).take(most):
            _, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
            tasks = [task for task in tasks if not has_label(y[task], (weights or {}).get(task))]
            if not tasks:
                break
        return tasks

    def _iterate(self, size: int, skipped: int) -> Any:
        batches = (self._batches or _closed)(size, skipped)
        return iter(self._strategy.experimental_distribute_dataset(batches))

    def _local(self, batch: Any) -> list[Any]:
        """The inputs of a batch, by replica of this worker."""
        x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
        replicas = [self._strategy.experimental_local_results(one) for one in keras.tree.flatten(x)]
        return list(zip(*replicas, strict=True))

    def _size(self, batch: Any) -> int:
        local = self._local(batch)
        number = sum(leaves[0].shape[0] for leaves in local)
        return int(number * self._strategy.num_replicas_in_sync // len(local))

    def _check_inputs(self, training: Any, held_out: Any) -> None:
        wanted, found = (
            [tuple(leaf.shape) for leaf in self._local(batch)[0]] for batch in (training, held_out)
        )
        if [len(shape) for shape in wanted] != [len(shape) for shape in found]:
            raise ValueError(
                "The inputs of the held-out data (`on`) should be like those of the training: "
                f"shapes {wanted} of a batch. Received: {found}. Batch a dataset with `batch`."
            )


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
        numbers = self._statistics.values_by_target()
        if self._is_checked or not numbers.any():
            return
        self._is_checked = True
        tasks = list(self.model.tasks)
        rare = [task for task, number in zip(tasks, numbers, strict=True) if number == 0]
        # A rare label may be in other batches than those of a few probes.
        if rare and (without := self._batches.without_labels(rare, self._statistics.steps)):
            raise no_labels(without)


class _Statistics(Protocol):
    steps: int

    def values_by_target(self) -> npt.NDArray[np.float64]: ...


def _closed(size: int, skipped: int) -> tf.data.Dataset:
    raise RuntimeError("The held-out data were not opened.")
