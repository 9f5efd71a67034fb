"""The choice of the steps to probe, and the callback that closes the epochs of the statistics."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tag_keras.backend.steps import EpochBounds, Steps, StepsInTurns
from tag_keras.estimators.statistics import ProbeStatistics

# No step that trains multiplies a loss by so much.
_MOST_BELIEVABLE = 1000.0


class Cadence(StepsInTurns):
    """A train function that probes one step in `every`, by a choice in Python.

    So the plain step holds no trace of the probe, and no `tf.cond` surrounds all-reduces, which
    MirroredStrategy cannot run. `every` counts batches, and `statistics` count the steps.
    """

    def __init__(
        self,
        statistics: ProbeStatistics,
        every: int,
        steps_per_execution: int,
        plain: Steps,
        probing: Steps,
        logs: Callable[[], Any],
    ) -> None:
        super().__init__(statistics, steps_per_execution, logs)
        self._every, self._plain, self._probing = every, plain, probing

    def choose(self, number: int) -> tuple[Steps, int]:
        position = self._counter.steps % self._every
        if position == 0:
            return self._probing, 1
        return self._plain, min(number, self._every - position)


class EpochEnds(EpochBounds):
    """Closes the epochs of the statistics, and warns at the end of values that were left out.

    After the first whole epoch it raises a `ValueError` if a task had no label in it: `labels_seen`
    gives the number of labels of each task (T,) in the epoch so far.
    """

    def __init__(
        self,
        statistics: ProbeStatistics,
        tasks: tuple[str, ...],
        labels_seen: Callable[[], Sequence[float]],
    ) -> None:
        super().__init__(statistics)
        self._statistics, self._tasks, self._labels_seen = statistics, tasks, labels_seen
        # Whether the running epoch began with its first step, and not where a restart goes on.
        self._is_whole = True
        # Number of labels by task in the first whole epoch.
        self._labels: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._is_whole = not self._statistics.steps_to_skip

    def on_test_begin(self, logs: Any = None) -> None:
        # Validation at the end of the epoch resets the counters of labels.
        self._count_labels()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._count_labels()
        if without := [task for task, number in self._labels.items() if number == 0]:
            raise ValueError(
                f"The tasks {without} had no label in the whole first epoch: all are NaN or have "
                "the sample weight 0. Check the labels, or leave these tasks out of the model."
            )

    def on_train_end(self, logs: Any = None) -> None:
        affinity = self._statistics.affinity(self._tasks)
        beyond = np.abs(affinity.mean) > _MOST_BELIEVABLE
        if beyond.any():
            warnings.warn(
                "Affinities are beyond all reason, so groups chosen by them may mean nothing: "
                f"{affinity.describe_pairs(beyond)}. The step for one task makes the loss of "
                "another explode. Lower the learning rate, or clip the gradients, as by "
                "`clipnorm=1.0` of the optimizer.",
                stacklevel=2,
            )
        skipped = affinity.skipped.sum(axis=0)
        if not skipped.any():
            return
        message = (
            "Some probe values were left out of the affinities, because a loss was not positive "
            "or not finite, because a step made it more than 1e15 times as large, or because a "
            "gradient was 0 or overflowed. Values left out by target: "
            f"{_by_task(self._tasks, skipped)}."
        )
        if (overflowed := self._statistics.overflowed()).any():
            message += f" Overflows by source: {_by_task(self._tasks, overflowed)}."
        warnings.warn(message, stacklevel=2)

    def _count_labels(self) -> None:
        if self._is_whole and not self._labels:
            self._labels = dict(zip(self._tasks, self._labels_seen(), strict=True))


def _by_task(tasks: Sequence[str], numbers: Any) -> dict[str, int]:
    return {task: int(one) for task, one in zip(tasks, numbers, strict=True) if one}
