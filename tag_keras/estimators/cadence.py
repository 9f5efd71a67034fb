"""The choice of the steps to probe, and the callback that closes the epochs of the statistics."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tag_keras.backend.steps import EpochBounds, Steps, StepsInTurns
from tag_keras.estimators.base import AffinityEstimator
from tag_keras.estimators.statistics import ProbeStatistics

# No step that trains multiplies a loss by so much.
_MOST_BELIEVABLE = 1000.0
# So many probes show how long one takes. The first also makes its graph, so its time is left out.
_TIMED = 3


class ProbeSchedule:
    """The steps to probe: one in `every`, or as many as the `overhead` of an estimator allows.

    Without `every`, the first steps are blocks that begin with a probe and blocks without one, in
    turns. The least times of each kind give `every`. Then probe n is at step n * `every`, so that
    the first probes, too, are within the `overhead` of the steps so far.

    Args:
        estimator: Has `every` or `overhead`.
        statistics: Keep `every` over restarts. All are of the same steps.
        accumulated: Number of batches whose gradients a step of the optimizer accumulates.
        at_once: Number of batches that are trained on at once.
        agree: Gives the `every` of all workers from this one's.
    """

    def __init__(
        self,
        estimator: AffinityEstimator,
        statistics: Sequence[ProbeStatistics],
        accumulated: int = 1,
        at_once: int = 1,
        agree: Callable[[float], float] = float,
    ) -> None:
        self._overhead, self._statistics, self._agree = estimator.overhead, statistics, agree
        self._accumulated, self._given = accumulated, (estimator.every or 0) * accumulated
        self._block = math.ceil(at_once / accumulated) * accumulated
        self._start: int | None = None
        # By block: seconds of its steps.
        self._seconds = [0.0] * (2 * _TIMED)

    def next(self, step: int) -> tuple[bool, int]:
        """Whether a step is a probe, and how many steps are of this kind at least.

        Args:
            step: Number of the step, in batches, from 0 on.
        """
        if not self._every:
            block, inside = self._place(step)
            if block < len(self._seconds):
                probes = block >= 0 and block % 2 == 0 and inside == 0
                return probes, 1 if probes else self._block - inside
            self._decide()
        number, inside = divmod(step, self._every)
        is_probe = inside == 0 and (self._given > 0 or number >= _TIMED)
        return is_probe, 1 if is_probe else self._every - inside

    def number(self, step: int) -> int:
        """The number of the probe at a step that is one, from 0 on."""
        return step // self._every if self._every else self._place(step)[0] // 2

    def timed(self, steps: Steps, step: int) -> Steps:
        """The same steps, beginning with `step`; their time is taken while `every` is not known."""
        if self._every:
            return steps
        block, _ = self._place(step)

        def timed(iterator: Any, number: int) -> tuple[Any, int]:
            start = time.perf_counter()
            logs, done = steps(iterator, number)
            # Waits for the device.
            keras.tree.map_structure(keras.ops.convert_to_numpy, logs)
            if block >= 0:
                self._seconds[block] += time.perf_counter() - start
            return logs, done

        return timed

    @property
    def _every(self) -> int:
        return self._given or self._statistics[0].every

    def _place(self, step: int) -> tuple[int, int]:
        """The block of a step, and its place there. Block -1 is before the next whole one."""
        if self._start is None:
            self._start = math.ceil(step / self._block) * self._block
        return divmod(step - self._start, self._block)

    def _decide(self) -> None:
        plain = min(self._seconds[3::2])
        probe = max(min(self._seconds[2::2]) - plain, 0.0)
        every = self._agree(probe / (plain / self._block) / self._overhead)
        for statistics in self._statistics:
            statistics.every = max(math.ceil(every / self._accumulated), 1) * self._accumulated


class Cadence(StepsInTurns):
    """A train function that probes the steps of a schedule, by a choice in Python.

    So the plain step holds no trace of the probe, and no `tf.cond` surrounds all-reduces, which
    MirroredStrategy cannot run. `statistics` count the steps.
    """

    def __init__(
        self,
        statistics: ProbeStatistics,
        schedule: ProbeSchedule,
        steps_per_execution: int,
        plain: Steps,
        probing: Steps,
        logs: Callable[[], Any],
    ) -> None:
        super().__init__(statistics, steps_per_execution, logs)
        self._schedule, self._plain, self._probing = schedule, plain, probing

    def choose(self, number: int) -> tuple[Steps, int]:
        step = self._counter.steps
        is_probe, most = self._schedule.next(step)
        steps = self._probing if is_probe else self._plain
        return self._schedule.timed(steps, step), min(number, most)


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
