"""Running statistics of the probes, kept in weights."""

import warnings
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tag_keras.affinity import Affinity

_WEIGHTS = ("mean", "squares", "count", "skipped")


class ProbeStatistics(keras.layers.Layer):  # type: ignore[misc]
    """Mean, variance and counts per pair of tasks, of the running epoch and of those before it.

    The running epoch is in weights, which the compiled step updates by Welford's recurrence; an
    epoch that has ended is a row of a float64 array. Both are in checkpoints, as is `steps`, the
    number of training steps made since `start`. There are no weights until `start`.

    A probe of less than half of the largest batch so far is left out: the rest of a data set at the
    end of an epoch may be one example, whose affinities would outweigh all others.

    Args:
        num_tasks: Number T of tasks.
    """

    def __init__(self, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self._pairs = (num_tasks, num_tasks)
        self._ended = np.zeros((0, len(_WEIGHTS), *self._pairs))
        self.steps = 0
        self.built = True

    def start(self) -> None:
        """Creates the weights or, where they are there, sets all back to no probe."""
        self.steps = 0
        self._ended = self._ended[:0]
        for weight in self.weights:
            weight.assign(tf.zeros_like(weight))
        if not self.weights:
            for name in (*_WEIGHTS, "largest_batch"):
                # Replicas hold equal values; "mean" keeps them so when they are restored.
                self.add_weight(
                    shape=self._pairs if name in _WEIGHTS else (),
                    initializer="zeros",
                    trainable=False,
                    aggregation="mean",
                    name=name,
                )

    def update(self, values: tf.Tensor, batch_size: tf.Tensor) -> None:
        """Adds the values (T, T) of one probe; NaN stands for a value that is to be skipped."""
        mean, squares, count, skipped, largest_batch = self.weights
        batch_size = tf.cast(batch_size, "float32")
        whole = batch_size >= largest_batch / 2
        largest_batch.assign(tf.maximum(largest_batch, batch_size))
        # Squares of larger values would not fit into float32. The comparison is false for NaN.
        usable = (tf.abs(values) < 1e15) & whole
        one = tf.cast(usable, "float32")
        difference = tf.where(usable, values - mean, 0.0)
        new_count = count + one
        new_mean = mean + difference / tf.maximum(new_count, 1.0)
        squares.assign(squares + difference * tf.where(usable, values - new_mean, 0.0))
        mean.assign(new_mean)
        count.assign(new_count)
        skipped.assign(skipped + tf.where(whole, 1.0 - one, 0.0))

    def end_epoch(self) -> None:
        """Closes the running epoch, also one without probes."""
        self._ended = np.concatenate([self._ended, self._running()])
        for weight in self.weights[: len(_WEIGHTS)]:
            weight.assign(tf.zeros_like(weight))

    def is_running(self) -> bool:
        """Whether there were probes since the last epoch ended."""
        return bool(self._running()[:, 2:].any())

    def affinity(self, tasks: tuple[str, ...]) -> Affinity:
        """Affinities over all epochs; one that is still running counts as an epoch, too."""
        epochs = np.concatenate([self._ended, self._running()[: self.is_running()]])
        means, squares, counts, skipped = epochs.transpose(1, 0, 2, 3)
        count = counts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (means * counts).sum(axis=0) / count
            # The variance of a union from those of its parts (Chan, Golub and LeVeque 1983).
            total = (squares + counts * (means - mean) ** 2).sum(axis=0)
            error = np.where(count > 1, np.sqrt(total / (count - 1) / count), np.nan)
        history = np.where(counts > 0, means, np.nan)
        return Affinity(tasks, mean, error, count, history, skipped.sum(axis=0))

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.weights:
            store["ended"] = self._ended
            store["steps"] = np.array(self.steps)

    def load_own_variables(self, store: Any) -> None:
        if "ended" not in store:
            return
        self.start()
        self._ended = np.array(store["ended"], np.float64)
        self.steps = int(np.array(store["steps"]))
        for index, weight in enumerate(self.weights):
            weight.assign(store[str(index)])

    def _running(self) -> npt.NDArray[np.float64]:
        statistics = self.weights[: len(_WEIGHTS)]
        return np.array([weight.numpy() for weight in statistics], np.float64)[None]


class EpochEnds(keras.callbacks.Callback):  # type: ignore[misc]
    """Closes the epochs of the statistics, and reports at the end what was left out of them.

    Args:
        statistics: Statistics that the training updates.
        tasks: Task names.
    """

    def __init__(self, statistics: ProbeStatistics, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self._statistics = statistics
        self._tasks = tasks

    def on_train_begin(self, logs: Any = None) -> None:
        # The epoch in which an earlier `fit` was interrupted.
        if self._statistics.is_running():
            self._statistics.end_epoch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._statistics.end_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        skipped = self._statistics.affinity(self._tasks).skipped.sum(axis=0)
        if skipped.any():
            targets = {
                task: int(number)
                for task, number in zip(self._tasks, skipped, strict=True)
                if number
            }
            warnings.warn(
                "Some probe values were left out of the affinities, because a loss was not "
                "positive or not finite, or because a gradient overflowed. Values left out by "
                f"target: {targets}.",
                stacklevel=2,
            )
