"""Affinities that the networks of a stack measure, each with statistics of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tag_keras.estimators.cadence import EpochEnds, ProbeSchedule
from tag_keras.estimators.held_out import HeldOutBatches, HeldOutLabels
from tag_keras.estimators.statistics import ProbeStatistics, saved_statistics
from tag_keras.sweep.stack.network_stack import NetworkStack


class StackedProbes:
    """Makes the steps of a stack whose networks measure affinities.

    `statistics` of each network hold the epochs that have ended; the running epoch is in the stack.

    Args:
        stack: Networks of the same tasks, at their start.

    Raises:
        ValueError: If the held-out data of the estimator cannot be used.
    """

    def __init__(self, stack: NetworkStack) -> None:
        self._stack, model = stack, stack.model
        self.tasks = model.tasks
        step = model.probe_step()
        self._weights = step.statistics.weights
        self.statistics = [ProbeStatistics(len(model.tasks)) for _ in range(stack.size)]
        for statistics in self.statistics:
            statistics.start()
        self._schedule = ProbeSchedule(step.estimator, self.statistics)
        self._held_out: HeldOutBatches | None = None
        if (data := step.estimator.target_data()) is not None:
            self._held_out = HeldOutBatches(data, model.tasks)
            self._held_out.open(model.distribute_strategy)
        self.steps = 0

    def train_on(self, batches: Sequence[Any]) -> None:
        """Makes a step with a batch of each stream, and probes if the schedule says so."""
        is_probe, _ = self._schedule.next(self.steps)
        steps = self._probe_on if is_probe else self._plain_on
        self._schedule.timed(steps, self.steps)(batches, 1)
        self.steps += 1

    def _plain_on(self, batches: Sequence[Any], number: int) -> tuple[Any, int]:
        self._stack.train_on(batches)
        return self._stack.changing, number

    def _probe_on(self, batches: Sequence[Any], number: int) -> tuple[Any, int]:
        if self._held_out is None:
            self._stack.probe_on(batches)
        else:
            probe = self._schedule.number(self.steps)
            # A network that has stopped knows no later batch.
            sizes = [self._stack.get(self._weights[-1:], i)[0] for i in range(self._stack.size)]
            self._stack.probe_on(batches, self._held_out.batch(probe, batches[0], int(max(sizes))))
        return self._stack.changing, number

    def callbacks(self, index: int) -> list[keras.callbacks.Callback]:
        """What a network calls at the ends of epochs, before other callbacks."""
        found: list[keras.callbacks.Callback] = [_EpochsOfNetwork(self, index)]
        if self._held_out is not None:
            found.append(HeldOutLabels(self._held_out, self.statistics[index]))
        return found

    def state(self) -> dict[str, Any]:
        """The epochs that have ended; for `set_state`. The running one is in the stack."""
        statistics = [saved_statistics(one) for one in self.statistics]
        return {"steps": self.steps, "statistics": statistics}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.steps = state["steps"]
        for own, saved in zip(self.statistics, state["statistics"], strict=True):
            own.load_own_variables(saved)

    def load(self, index: int) -> None:
        """Takes the statistics of the running epoch out of the stack."""
        own = self.statistics[index]
        for weight, value in zip(own.weights, self._stack.get(self._weights, index), strict=True):
            weight.assign(value)

    def store(self, index: int) -> None:
        """Puts the statistics of the running epoch into the stack."""
        self._stack.set(self._weights, index, self.statistics[index].get_weights())

    def labels_seen(self, index: int) -> list[float]:
        """Number of labels of each task that a network has seen since the metrics were reset."""
        trackers = self._stack.model.task_losses.trackers
        return [float(one) for one in self._stack.get([one.count for one in trackers], index)]


class _EpochsOfNetwork(EpochEnds):
    """Closes the epochs of a network of a stack."""

    def __init__(self, probes: StackedProbes, index: int) -> None:
        self._stacked, self._index = probes, index
        super().__init__(probes.statistics[index], probes.tasks, lambda: probes.labels_seen(index))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._stacked.load(self._index)
        # The callback is not called any more once the network has stopped.
        self._statistics.steps = self._stacked.steps
        super().on_epoch_end(epoch, logs)
        self._stacked.store(self._index)
