"""The networks of a stack, each built beside the model for all tasks."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tag_keras.backend.layers import build_from_seed, names_kept
from tag_keras.backend.optimizers import rate_variable
from tag_keras.estimators.statistics import ProbeStatistics, saved_statistics
from tag_keras.model import MultiTaskModel
from tag_keras.sweep.fingerprint import Fingerprint, of_model
from tag_keras.sweep.job import Job, build_function
from tag_keras.sweep.network import are_valid, check_loadable
from tag_keras.sweep.own_weights import changed_by_training, check_apart
from tag_keras.sweep.stack.matching import match, slots
from tag_keras.sweep.stack.refusals import NotStackedError, check_model
from tag_keras.sweep.stack.starts import Draws
from tag_keras.sweep.stack.values import Start

# Building a model with more weights is a small part of its training, and keeping it for other seeds
# takes memory.
MANY_WEIGHTS = 10**6


class Part:
    """A network for some tasks: its own model, beside the model for all tasks.

    Args:
        whole: The model for all tasks.
        model: The network.
        seed: The seed that it was just built from.
        described: Its fingerprint.
    """

    def __init__(
        self, whole: MultiTaskModel, model: MultiTaskModel, seed: int, described: Fingerprint
    ) -> None:
        self.model, self.described = model, described
        self._whole, self.seed = whole, seed
        self.draws = Draws(model, seed)
        self.pairs = match(whole, model)
        self._first = {id(own): keras.ops.convert_to_numpy(own) for _, own in self.pairs}

    def start(self, seed: int, stream: int) -> Start:
        """What the network begins with from a seed, if it sees the batches of a stream."""
        weights = dict(zip(self.model.tasks, self.model.task_losses.weights, strict=True))
        values = {id(one): self._value(own, seed) for one, own in self.pairs}
        if (rate := rate_variable(self._whole.optimizer)) is not None:
            own_rate = rate_variable(self.model.optimizer)
            values[id(rate)] = keras.ops.convert_to_numpy(own_rate)
        return Start(self.model.tasks, stream, weights, values)

    def losses(self, batch: Any) -> dict[str, float]:
        """The losses of the network as it was built, on a batch."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        predictions = self.model(x, training=False)
        losses, labels = self.model.task_losses(y, predictions, sample_weight)
        return {
            task: float(loss) if number else float("nan")
            for task, loss, number in zip(self.model.tasks, losses, labels.numpy(), strict=True)
        }

    def _value(self, variable: keras.Variable, seed: int) -> Any:
        value = None if seed == self.seed else self.draws.value(variable, seed)
        return self._first[id(variable)] if value is None else value

    def check_common(self, values: Mapping[int, Any]) -> None:
        """Raises a `NotStackedError` if a training has changed what all networks have in common."""
        for one, own in self.pairs:
            if one is own and not np.array_equal(values[id(one)], self._first[id(own)]):
                # Alone, it ends with an error that says what to do.
                raise NotStackedError(f"the training changes {own.path}, which they have in common")

    def is_finite(self, values: Mapping[int, Any]) -> bool:
        """Whether all weights that a training has made can predict."""
        return all(are_valid(values[id(one)], own.trainable) for one, own in self.pairs)

    def end(self, values: Mapping[int, Any], statistics: ProbeStatistics | None = None) -> None:
        """Sets what a training has made of the network, and what it has measured, if it has."""
        for one, own in self.pairs:
            own.assign(values[id(one)])
        self.model.optimizer.build(self.model.trainable_variables)
        for one, own in slots(self._whole, self.model, self.pairs):
            own.assign(values[id(one)])
        if statistics is not None:
            self.model.probe_step().statistics.load_own_variables(saved_statistics(statistics))


class Parts:
    """Builds the model for all tasks, and the networks that are parts of it.

    A network is built once for its tasks, if what it begins with from other seeds is known.

    Args:
        job: One of the jobs, which differ in their networks.
        tasks: All tasks.
        seed: A seed of a job.
        other_seed: The seed of another job; `None` if all have the same.
        inputs: Symbolic inputs.
    """

    def __init__(
        self, job: Job, tasks: tuple[str, ...], seed: int, other_seed: int | None, inputs: Any
    ) -> None:
        self._job, self._inputs = job, inputs
        self.whole, self.described = self._build(tasks, seed)
        draws = Draws(self.whole, seed)
        self._redraws = False
        if other_seed is not None and self.whole.count_params() <= MANY_WEIGHTS:
            other, _ = self._build(tasks, other_seed)
            is_told = draws.tell(other, match(self.whole, other), other_seed)
            self._redraws = is_told and _numbers_of(self.whole) == _numbers_of(other)
        self._known: dict[tuple[str, ...], Part] = {}
        # What networks have in common, the model for all tasks has, too.
        self._changed = changed_by_training(self.whole)

    def part(self, tasks: tuple[str, ...], seed: int) -> Part:
        """The network for some tasks from a seed."""
        known = self._known.get(tasks)
        if known is not None and self._redraws and known.draws.are_whole:
            return known
        model, described = self._build(tasks, seed)
        try:
            check_apart(changed_by_training(model), self._changed)
        except ValueError as error:
            # Alone, it says the same before any training.
            raise NotStackedError(str(error)) from error
        self._known[tasks] = Part(self.whole, model, seed, described)
        if self._job.saves:
            check_loadable(model)
        return self._known[tasks]

    def _build(self, tasks: tuple[str, ...], seed: int) -> tuple[MultiTaskModel, Fingerprint]:
        """Builds a network from its seed, with the names that it has alone; and describes it."""
        with names_kept():
            model = build_from_seed(lambda: build_function(self._job)(tasks), seed)
            check_model(model)
            # Before it has variables, as alone.
            described = of_model(model)
            model(self._inputs)
        return model, described


def _numbers_of(model: MultiTaskModel) -> list[float]:
    """Learning rate and loss weights, which may be random, too."""
    rate = rate_variable(model.optimizer)
    rates = [] if rate is None else [float(rate)]
    return [*rates, *map(float, model.task_losses.weights)]
