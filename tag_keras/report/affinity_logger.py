"""The affinities of every epoch in `History`, in TensorBoard, or in any other logger."""

import io
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.affinity import Affinity
from tag_keras.results import Array
from tag_keras.utils.checks import check, check_bool, check_count


class AffinityLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the affinities of each epoch, while the model trains.

    The history that `fit` returns gets a list of floats for each pair of different tasks,
    `history.history["affinity/<source>-><target>"]`: the mean over the probes of each epoch, NaN if
    the epoch did not measure the pair. The logs of `fit`, its progress bar and `CSVLogger` stay as
    they are. Estimators without epochs, such as `SelectiveTaskGroupUpdates`, give their averages.

    With several workers, the first one writes and calls `log`.

    Args:
        log_dir: Folder for TensorBoard, which gets the same values as scalars, by epoch, and the
            heat map of all epochs so far as an image if Matplotlib is there. By default none.
        log: Function of a dict of floats by name, and the epoch, such as `mlflow.log_metrics` or
            `wandb.log`. The names are `"affinity/<source>_to_<target>"`, since MLflow takes no
            `>`; pairs that were not measured are left out. By default none.
        history: Whether the history of `fit` gets the affinities.
        max_tasks: With more tasks, TensorBoard gets the image only.

    Raises:
        ImportError: If `log_dir` is given and there is no TensorBoard.
        ValueError: If an argument is of another kind; and when the training begins, if the model
            measures no affinities.

    Example:

    ```python
    model.compile("adam", losses, affinity=tag_keras.LookaheadAffinity(every=10))
    model.fit(x, y, epochs=10, callbacks=[tag_keras.AffinityLogger("runs/logs")])
    # In MLflow, or in Weights & Biases:
    model.fit(x, y, epochs=10, callbacks=[tag_keras.AffinityLogger(log=mlflow.log_metrics)])
    model.fit(x, y, epochs=10, callbacks=[tag_keras.AffinityLogger(log=wandb.log)])
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        log: Callable[[dict[str, float], int], Any] | None = None,
        history: bool = True,
        max_tasks: int = 12,
    ) -> None:
        super().__init__()
        is_path = log_dir is None or isinstance(log_dir, str | os.PathLike)
        check(is_path, "`log_dir` should be a path, or None", log_dir=log_dir)
        wanted = "`log` should be a function of a dict and a step, or None"
        check(log is None or callable(log), wanted, log=log)
        check_bool("history", history)
        if log_dir is not None:
            _check_tensorboard()
        self._log_dir, self._log, self._history = log_dir, log, history
        self._max_tasks = check_count("max_tasks", max_tasks)
        self._writer: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        if not getattr(self.model, "measures_affinity", False):
            raise ValueError(
                "AffinityLogger has nothing to log, because the model measures no affinities. "
                "Compile it with `affinity=tag_keras.LookaheadAffinity(...)`."
            )
        if self._log_dir is not None and self._is_first_worker():
            self._writer = tf.summary.create_file_writer(os.fspath(self._log_dir))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        affinity = self._affinity()
        means = affinity.history[-1] if len(affinity.history) else affinity.mean
        if self._history and (history := getattr(self.model, "history", None)) is not None:
            for name, value in _by_pair(affinity, means, "->").items():
                history.history.setdefault(name, []).append(value)
        if self._log is not None and self._is_first_worker():
            named = _by_pair(affinity, means, "_to_")
            if known := {name: value for name, value in named.items() if np.isfinite(value)}:
                self._log(known, epoch)
        if self._writer is not None:
            self._write(affinity, means, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _affinity(self) -> Affinity:
        try:
            affinity: Affinity = self.model.get_affinity()
            return affinity
        except ValueError:
            # No probe so far, or none that counts, of which `fit` warns at its end.
            unknown = np.full((len(self.model.tasks),) * 2, np.nan)
            return Affinity(self.model.tasks, unknown, count=np.zeros_like(unknown))

    def _is_first_worker(self) -> bool:
        return bool(self.model.distribute_strategy.extended.should_checkpoint)

    def _write(self, affinity: Affinity, means: Array, epoch: int) -> None:
        with self._writer.as_default(step=epoch):
            if len(affinity.tasks) <= self._max_tasks:
                for name, value in _by_pair(affinity, means, "->").items():
                    if np.isfinite(value):
                        tf.summary.scalar(name, value)
            if affinity.count.any() and (png := _heat_map(affinity)) is not None:
                tf.summary.image("affinity", tf.image.decode_png(png)[None])
        self._writer.flush()


def _by_pair(affinity: Affinity, means: Array, arrow: str) -> dict[str, float]:
    """The means (T, T) of all pairs of different tasks, by name."""
    return {
        f"affinity/{source}{arrow}{target}": float(means[row, column])
        for row, source in enumerate(affinity.tasks)
        for column, target in enumerate(affinity.tasks)
        if row != column
    }


def _heat_map(affinity: Affinity) -> bytes | None:
    """The heat map as PNG; None without Matplotlib."""
    try:
        from tag_keras.report import plots
    except ImportError:
        return None
    buffer = io.BytesIO()
    plots.plot_affinity(affinity).figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _check_tensorboard() -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'TensorBoard is not installed. Install it with: pip install "tag_keras[tools]"'
        ) from error
