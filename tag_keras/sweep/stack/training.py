"""Trains and evaluates a stack of networks over epochs, with callbacks for each network."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tag_keras.backend.epochs import Epochs
from tag_keras.sweep.stack.checkpoint import Checkpoint
from tag_keras.sweep.stack.network_stack import NetworkStack
from tag_keras.sweep.stack.probes import StackedProbes
from tag_keras.sweep.stack.refusals import NotStackedError

# What the callbacks that a stack may have remember of the epochs before.
_OF_CALLBACKS = (
    *("best", "best_epoch", "best_weights", "cooldown_counter", "stopped_epoch", "wait"),
    *("_probes", "_is_checked"),
)


def train_stack(
    stack: NetworkStack,
    streams: Sequence[Epochs],
    callbacks: Sequence[Sequence[keras.callbacks.Callback]],
    validation: Epochs | None,
    fit: Mapping[str, Any],
    on_step: Callable[[int, int], None],
    probes: StackedProbes | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Trains all networks, each as `fit` would train it alone.

    Args:
        stack: Networks at their start.
        streams: Streams of batches; all networks of a stream see the same batches.
        callbacks: By network, its own callbacks. They may ask for logs, weights, learning rate.
        validation: Batches to evaluate on after epochs; `None` for no evaluation.
        fit: Other arguments of `fit`.
        on_step: Called after each step with the indices of epoch and step.
        probes: Affinities that the networks measure, if they do.
        checkpoint: Where to go on from, and to write to at the ends of epochs.
    """
    views = [_View(stack, index) for index in range(stack.size)]
    needs_logs, train_on = any(callbacks), stack.train_on
    if probes is not None:
        train_on = probes.train_on
        callbacks = [[*probes.callbacks(i), *own] for i, own in enumerate(callbacks)]
        for view, statistics in zip(views, probes.statistics, strict=True):
            view.layers = [statistics]
    pairs = [(view, one) for view, own in zip(views, callbacks, strict=True) for one in own]
    if any(isinstance(one, keras.callbacks.EarlyStopping) for _, one in pairs):
        # At the first stop, the steps would have to be traced a second time.
        stack.let_stop()
    first, last = fit.get("initial_epoch", 0), fit.get("epochs", 1)
    for view, callback in pairs:
        callback.set_params({"epochs": last, "verbose": 0})
        callback.set_model(view)
        callback.on_train_begin()
    training = _Training(stack, views, callbacks, probes)
    saved = None if checkpoint is None else checkpoint.load()
    if saved is not None:
        training.set_state(saved)
        for _ in range(first, saved["epoch"]):
            # The batches of the epochs before: the order of the next follows from theirs.
            for _ in _epoch(streams):
                pass
        first = saved["epoch"]
    for epoch in range(first, last):
        pairs = [(view, one) for view, one in pairs if not view.has_stopped]
        stack.reset_metrics()
        for _, callback in pairs:
            callback.on_epoch_begin(epoch)
        for step, batches in enumerate(_epoch(streams)):
            train_on(batches)
            on_step(epoch, step)
        stack.tell_missing_labels()
        logs = stack.logs() if needs_logs else [{}] * stack.size
        if needs_logs and validation is not None and _is_due(epoch, fit.get("validation_freq", 1)):
            for _, callback in pairs:
                callback.on_test_begin()
            evaluate_stack(stack, validation)
            for own, of_validation in zip(logs, stack.logs(), strict=True):
                own.update({f"val_{name}": value for name, value in of_validation.items()})
        for view, callback in pairs:
            callback.on_epoch_end(epoch, logs[view.index])
        for view in views:
            view.stop_if_asked()
        if all(view.has_stopped for view in views):
            break
        if checkpoint is not None and checkpoint.is_due() and epoch + 1 < last:
            checkpoint.save({"epoch": epoch + 1, **training.state()})
    for of_network in callbacks:
        for callback in of_network:
            callback.on_train_end()


def evaluate_stack(stack: NetworkStack, data: Epochs) -> None:
    """Evaluates all networks; `stack.logs()` then gives the results."""
    stack.reset_metrics()
    data.reset()
    for batch in data.batches():
        stack.test_on(batch, data.spec)


def _epoch(streams: Sequence[Epochs]) -> Iterator[Sequence[Any]]:
    """The batches of the next epoch, one of each stream at a time."""
    for batches in itertools.zip_longest(*(one.batches() for one in streams)):
        if any(batch is None for batch in batches):
            raise NotStackedError("the numbers of batches differ between the seeds")
        yield batches


def _is_due(epoch: int, frequency: Any) -> bool:
    """Whether `fit` evaluates after an epoch: every so many, or after those in a list."""
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


class _Training:
    """What the next epochs depend on: the stack, and what callbacks and probes remember."""

    def __init__(
        self,
        stack: NetworkStack,
        views: Sequence["_View"],
        callbacks: Sequence[Sequence[keras.callbacks.Callback]],
        probes: StackedProbes | None,
    ) -> None:
        self._stack, self._views, self._probes = stack, views, probes
        self._callbacks = [one for own in callbacks for one in own]

    def state(self) -> dict[str, Any]:
        of_callbacks = [
            {name: vars(one)[name] for name in _OF_CALLBACKS if name in vars(one)}
            for one in self._callbacks
        ]
        probes = None if self._probes is None else self._probes.state()
        return {"stack": self._stack.state(), "callbacks": of_callbacks, "probes": probes}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._stack.set_state(state["stack"])
        for view, has_stopped in zip(self._views, state["stack"]["stopped"], strict=True):
            view.stop_training = view.has_stopped = has_stopped
        for callback, own in zip(self._callbacks, state["callbacks"], strict=True):
            vars(callback).update(own)
        if self._probes is not None:
            self._probes.set_state(state["probes"])


class _View:
    """A network of a stack, as its callbacks see it."""

    def __init__(self, stack: NetworkStack, index: int) -> None:
        self._stack, self.index = stack, index
        self.tasks = stack.starts[index].tasks
        self.metrics = stack.model.metrics
        # The statistics of probes, if there are any.
        self.layers: list[keras.layers.Layer] = []
        self.optimizer = _OptimizerView(stack, index)
        self.stop_training = self.has_stopped = False

    def get_weights(self) -> list[np.ndarray]:
        """The values of the network's weights and states."""
        return self._stack.row(self.index)

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets what `get_weights` gave."""
        self._stack.set_row(self.index, values)

    def stop_if_asked(self) -> None:
        """Ends the training of the network if a callback has asked for it."""
        if self.stop_training and not self.has_stopped:
            self._stack.stop(self.index)
            self.has_stopped = True


class _OptimizerView:
    """The optimizer of a network of a stack."""

    def __init__(self, stack: NetworkStack, index: int) -> None:
        self._stack, self._index = stack, index

    @property
    def learning_rate(self) -> Any:
        return self._stack.learning_rate(self._index)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._stack.set_learning_rate(self._index, value)
