"""What a user sees while networks are trained: one line for all of them, and no false alarms."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.utils.progress import Progress, rate


def is_quiet(fit: Mapping[str, Any]) -> bool:
    """Whether the arguments of `fit` ask for no lines at all."""
    return "verbose" in fit and fit["verbose"] in (0, "0")


def progress_of(
    fits: Sequence[Mapping[str, Any]], what: str = "Training networks", done: int = 0
) -> Progress:
    """The line of networks with these arguments of `fit`; the first `done` are there already."""
    return Progress(
        what,
        len(fits),
        "networks",
        sys.stdout,
        done,
        # Keras' bars rewrite lines of their own.
        rewrites=not any(fit.get("verbose") for fit in fits),
        quiet=done == len(fits) or all(map(is_quiet, fits)),
    )


class ShowSteps(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a line of progress the epoch and the steps per second of the network at work."""

    # Otherwise Keras waits for the logs of every step.
    async_safe = True

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._epoch = self._steps = self._steps_before = 0
        # Steps and time when the first step, which traces, was over.
        self._first: tuple[int, float] | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._steps_before = epoch, self._steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        self._steps = self._steps_before + batch + 1
        self._first = self._first or (self._steps, now)
        steps, seconds = self._steps - self._first[0], now - self._first[1]
        epochs, per_epoch = self.params["epochs"], self.params["steps"]
        words = f"epoch {self._epoch + 1}/{epochs}"
        if steps > 0 and seconds > 0:
            words += f", {rate(steps / seconds)} steps/s"
        # A dataset of unknown size shows it in its first epoch.
        share = (batch + 1) / per_epoch if per_epoch else 0.0
        self._progress.within(min(1.0, (self._epoch + share) / epochs), words)


def with_steps(callbacks: Any, progress: Progress | None) -> Any:
    """The callbacks of a network, and one that shows its steps."""
    # Keras uses a list of its own as it is.
    if progress is None or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    listed = [one for one in keras.tree.flatten(callbacks) if one is not None]
    return [*listed, ShowSteps(progress)]


@contextlib.contextmanager
def without_retracing_warnings() -> Iterator[None]:
    """Keeps TensorFlow from warning that the functions of networks are traced again and again.

    It counts the tracings of a function by its code, which Keras' models have in common: a network
    after the other, each traced once, looks to it like one that is traced at every step.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
