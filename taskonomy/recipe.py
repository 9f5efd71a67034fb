"""How Standley et al. 2020 (arXiv 1905.07553) train on Taskonomy, and TAG after them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import scipy.special

from tag_keras.estimators.early_stopping import EarlyStopping
from tag_keras.utils.checks import check, check_count
from taskonomy.published import EPOCHS

__all__ = ["EPOCHS", "PlateauRule", "callbacks", "no_progress", "paired_t_test", "steps_per_epoch"]


def steps_per_epoch(num_batches: int) -> int:
    """Number of steps of an epoch: a fifth of the batches if there are over 10000, else all.

    The next epoch goes on with the batches that follow, so repeat the data set:
    `model.fit(data.repeat(), steps_per_epoch=steps_per_epoch(len(data)))`.
    """
    return num_batches // 5 if num_batches > 10_000 else num_batches


class PlateauRule(keras.callbacks.Callback):  # type: ignore[misc]
    """Halves the learning rate when the loss makes no progress, and stops when it is small.

    This is the rule of tstandley/taskgrouping, train_taskonomy.py, which TAG has, too. From the
    third epoch on, the rule looks at the losses after every step, once the steps since the last
    change fill more than a window. It takes the losses of the older and of the newer three eighths
    of the last window, sorts each, leaves out a twentieth at both ends, and compares the two by a
    t-test of pairs. It halves the learning rate if the newer losses are not smaller (t < 0), or if
    there is hardly any difference at all (p > 0.99), and then doubles the window, up to
    `max_window`. Training stops before an epoch that would begin with less than
    `min_learning_rate`.

    Windows are numbers of images, as in the papers. The loss is the plain sum over the tasks, also
    if a method weights them.

    Args:
        batch_size: Number of images in a step.
        window: Number of images in the first window.
        max_window: Number of images in the largest window.
        min_learning_rate: Smallest learning rate to begin an epoch with.
        first_epoch: Number of epochs before the rule begins.

    Raises:
        ValueError: If a number is out of range. When the training begins: if an execution makes
            several steps, or if the learning rate is a schedule.

    Example:

    ```python
    model = network.build_model("sdntk")
    train = data.batches("train", 96, shuffle=True)
    model.fit(
        train.repeat(),
        steps_per_epoch=recipe.steps_per_epoch(len(train)),
        epochs=recipe.EPOCHS,
        callbacks=[recipe.PlateauRule(batch_size=96)],
    )
    ```
    """

    def __init__(
        self,
        batch_size: int,
        window: int = 500_000,
        max_window: int = 2_000_000,
        min_learning_rate: float = 3e-5,
        first_epoch: int = 2,
    ) -> None:
        super().__init__()
        self.batch_size = check_count("batch_size", batch_size)
        self.window = check_count("window", window)
        self.max_window = check_count("max_window", max_window)
        check(
            window // batch_size >= 8,
            "`window` should have at least 8 batches, of which eighths can be taken",
            window=window,
            batch_size=batch_size,
        )
        check(
            min_learning_rate >= 0,
            "`min_learning_rate` should be at least 0",
            min_learning_rate=min_learning_rate,
        )
        check(first_epoch >= 0, "`first_epoch` should be at least 0", first_epoch=first_epoch)
        self.min_learning_rate = min_learning_rate
        self.first_epoch = first_epoch
        self._forget()

    def on_train_begin(self, logs: Any = None) -> None:
        check(
            self.model.steps_per_execution == 1,
            "The rule needs the loss of every step: compile with `steps_per_execution=1`",
            steps_per_execution=self.model.steps_per_execution,
        )
        self._forget()
        self._start = self._learning_rate()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._totals = self._labels = np.zeros(len(self.model.tasks))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The logs have means over the labels of the epoch so far, NaN if there is no label.
        means = [(logs or {})[f"{task}_loss"] for task in self.model.tasks]
        labels = np.array(self.model.task_losses.labels_seen())
        totals = np.where(labels > 0, means * labels, 0.0)
        losses = (totals - self._totals) / np.maximum(labels - self._labels, 1)
        self._totals, self._labels = totals, labels
        loss = float(losses.sum())
        if self.sees(loss):
            rate = self._start * 0.5**self.num_halvings
            self.model.optimizer.learning_rate = rate

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._learning_rate() < self.min_learning_rate:
            self.model.stop_training = True

    def sees(self, loss: float) -> bool:
        """Takes the loss of one step into account, and tells whether to halve the learning rate."""
        self.losses.append(float(loss))
        if self._epoch < self.first_epoch:
            return False
        steps = self._window // self.batch_size
        if len(self.losses) - self._last <= steps:
            return False
        older = self.losses[-steps : -math.ceil(steps * 5 / 8)]
        newer = self.losses[-math.ceil(steps * 3 / 8) :]
        if not no_progress(older, newer):
            return False
        self.num_halvings += 1
        self._last = len(self.losses)
        self._window = min(self.max_window, 2 * self._window)
        return True

    def _forget(self) -> None:
        self.losses: list[float] = []
        self.num_halvings = 0
        self._epoch = 0
        # Number of losses at the last change of the rate, and of images in the window since then.
        self._last = 0
        self._window = self.window
        self._start = 0.0
        self._totals = self._labels = np.zeros(0)

    def _learning_rate(self) -> float:
        rate = self.model.optimizer.learning_rate
        schedule = getattr(self.model.optimizer, "_learning_rate", None)
        check(
            not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule),
            "The learning rate should be a number, for the rule to set",
            learning_rate=schedule,
        )
        return float(keras.ops.convert_to_numpy(rate))

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a used callback should not hold a copy of its model.
        return {**self.__dict__, "_model": None}


def callbacks(batch_size: int) -> list[keras.callbacks.Callback]:
    """The plateau rule, and at the end the weights of the epoch with the least validation loss.

    Args:
        batch_size: Number of images in a step.
    """
    return [PlateauRule(batch_size), EarlyStopping(patience=EPOCHS)]


def no_progress(older: Sequence[float], newer: Sequence[float]) -> bool:
    """Whether the newer losses are not smaller than the older ones, by a t-test of sorted pairs."""
    a, b = (_without_outliers(losses) for losses in (older, newer))
    number = min(len(a), len(b))
    t, p = paired_t_test(a[:number], b[:number])
    return bool(t < 0 or p > 0.99)


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Student's t-test of n pairs: t of the differences a - b, and the two-sided p.

    Pairs with a NaN are left out. If all differences are equal, t is infinite, or both are NaN if
    the differences are 0; with less than two pairs, both are NaN.
    """
    differences = np.subtract(a, b, dtype=np.float64)
    differences = differences[~np.isnan(differences)]
    number = len(differences)
    if number < 2:
        return math.nan, math.nan
    error = differences.std(ddof=1) / math.sqrt(number)
    mean = float(differences.mean())
    if error == 0:
        return (math.copysign(math.inf, mean), 0.0) if mean else (math.nan, math.nan)
    t = mean / float(error)
    return t, 2 * float(scipy.special.stdtr(number - 1, -abs(t)))


def _without_outliers(losses: Sequence[float]) -> list[float]:
    ordered = sorted(losses)
    return ordered[int(len(ordered) * 0.05) : int(len(ordered) * 0.95)]
