"""Early stopping on what all tasks lose, which takes affinities back with the weights."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tag_keras.estimators.statistics import ProbeStatistics

_Saved = dict[str, npt.NDArray[Any]]


class EarlyStopping(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """Stops when the tasks' validation losses together have not fallen for some epochs.

    This is `keras.callbacks.EarlyStopping` with two differences. It looks at the plain sum of the
    validation losses of the tasks, which `val_loss` is not where losses are weighted. And with the
    weights of the best epoch come the affinities that were measured until then: the probes after it
    are dropped, as TAG does (Fifty et al. 2021, arXiv 2109.04617).

    Keras keeps no account of it in the files of `BackupAndRestore`: a training that goes on after
    it was killed looks for the best epoch among those after the kill.

    Args:
        patience: Number of epochs since the best one.
        **kwargs: Further arguments of `keras.callbacks.EarlyStopping`. The weights of the best
            epoch are restored, unless `restore_best_weights=False`.

    Raises:
        ValueError: At the end of an epoch, if there is no validation loss of a task.

    Example:

    ```python
    model.fit(x, y, validation_split=0.2, callbacks=[tag_keras.EarlyStopping(patience=10)])
    ```
    """

    def __init__(self, patience: int = 0, **kwargs: Any) -> None:
        kwargs = {"restore_best_weights": True, **kwargs}
        super().__init__(monitor="val_loss", mode="min", patience=patience, **kwargs)
        # The probes until the best epoch, by statistics: they are not all among the weights.
        self._probes: list[_Saved] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.best_epoch == epoch:
            self._probes = [_saved(statistics) for statistics in self._statistics()]

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


def _saved(statistics: ProbeStatistics) -> _Saved:
    """A copy of what a checkpoint has of it."""
    store: dict[str, Any] = {}
    statistics.save_own_variables(store)
    return {name: np.array(value) for name, value in store.items()}
