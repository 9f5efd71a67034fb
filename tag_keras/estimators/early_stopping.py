"""Early stopping on the losses of all tasks, which restores affinities with the weights."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy.typing as npt

from tag_keras.estimators.statistics import ProbeStatistics, saved_statistics


class EarlyStopping(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Stops when the sum of the tasks' validation losses has not fallen for some epochs.

    Unlike `keras.callbacks.EarlyStopping`, it monitors the plain sum of the tasks' validation
    losses, while `val_loss` weighs them. And with the weights of the best epoch it restores the
    affinities measured until then, as TAG does (Fifty et al. 2021, arXiv 2109.04617).

    `BackupAndRestore` does not save its state: a training that was killed and resumed looks for the
    best epoch among the epochs after the kill.

    Args:
        patience: Number of epochs without a better one after which the training stops.
        **kwargs: Further arguments of `keras.callbacks.EarlyStopping`; by default
            `restore_best_weights=True`.

    Raises:
        ValueError: At the end of an epoch, if the logs lack the validation loss of a task.

    Example:

    ```python
    model.fit(x, y, validation_split=0.2, callbacks=[tag_keras.EarlyStopping(patience=10)])
    ```
    """

    def __init__(self, patience: int = 0, **kwargs: Any) -> None:
        kwargs = {"restore_best_weights": True, **kwargs}
        super().__init__(monitor="val_loss", mode="min", patience=patience, **kwargs)
        # The probes until the best epoch, by layer of statistics: Keras restores weights only.
        self._probes: list[dict[str, npt.NDArray[Any]]] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.best_epoch == epoch:
            self._probes = [saved_statistics(statistics) for statistics in self._statistics()]

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        super().on_train_end(logs)
        if self.restore_best_weights and self.best_weights is not None:
            for statistics, probes in zip(self._statistics(), self._probes, strict=True):
                statistics.load_own_variables(probes)

    def get_monitor_value(self, logs: Mapping[str, float] | None) -> float | None:
        names = [f"val_{task}_loss" for task in self.model.tasks]
        if missing := [name for name in names if name not in (logs or {})]:
            raise ValueError(
                "Early stopping needs the validation losses of all tasks: give `fit` "
                f"`validation_data`. Missing: {missing}."
            )
        return sum(float((logs or {})[name]) for name in names)

    def _statistics(self) -> list[ProbeStatistics]:
        return [one for one in self.model.layers if isinstance(one, ProbeStatistics)]
