"""`keras.Model.fit` under `tf.distribute.MultiWorkerMirroredStrategy` with several workers."""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.replicas import check_strategy
from tag_keras.backend.steps import before_others
from tag_keras.backend.traces import release_graphs

# TensorFlow writes this into the error of a worker that waits for one that has failed.
_LOST = re.compile(r"Collective ops is aborted by: |(?=Collective has timed out)")


class MultiWorkerModel(keras.Model):  # type: ignore[misc]
    """A Keras model that also trains, evaluates and predicts on several workers.

    Keras 3 fails there (keras-team/keras#20585) in two places. This class takes a detour round
    each, which gives the right result with a mended Keras, too. The first detour also serves
    several replicas of one worker.

    Every worker runs the same program. The first worker writes the backups of
    `keras.callbacks.BackupAndRestore` and all read them, so all workers share `backup_dir`.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # To learn shapes and types, Keras averages a batch over the replicas. That fails for a
        # structure of tensors with several workers, and everywhere for parts of different sizes.
        # But Keras accepts a batch, and the part of one replica has the same shapes and types.
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            iterator, data_batch = None, _first_batch(iterator, self.distribute_strategy)
        super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Any) -> Any:
        if not has_several_workers(self.distribute_strategy):
            return super()._make_function(step_function)

        # Keras averages every log over the workers and also over its axis 0, which a scalar lacks.
        # So all logs go as one row of shape (1, N). The workers then also communicate once per step
        # instead of once per log.
        specs: Any = None

        def step(data: Any) -> tf.Tensor:
            nonlocal specs
            logs = step_function(data)
            specs = keras.tree.map_structure(tf.TensorSpec.from_tensor, logs)
            return _as_row(logs)

        function = super()._make_function(step)
        return lambda iterator: _from_row(function(iterator), specs)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        check_strategy(self)
        self.check_data("fit", x, y, kwargs)
        callbacks = before_others(self.own_callbacks(), callbacks)
        if has_several_workers(self.distribute_strategy):
            callbacks = _for_several_workers(callbacks, self)
        with self._explained():
            history = super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)
        release_graphs()
        return history

    def check_data(self, method: str, x: Any, y: Any, options: Mapping[str, Any]) -> None:
        """Hook that may refuse what `fit` or `evaluate` gets, before any work."""

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """The model's own callbacks, which run before those that `fit` gets."""
        return []

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.check_data("evaluate", x, y, kwargs)
        with self._explained():
            logs = super().evaluate(x, y, *args, **kwargs)
        release_graphs()
        return logs

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self._explained():
            return super().predict(*args, **kwargs)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Explains the errors of names that are no strings, and those when a worker is lost."""
        try:
            yield
        except TypeError as error:
            # Keras sorts the names in a dict of inputs, labels or weights.
            if "not supported between instances of" not in str(error):
                raise
            raise ValueError(
                "The names in a dict should be strings, such as the tasks of the labels. Some "
                f"cannot be compared with each other: {error}."
            ) from error
        except tf.errors.OpError as error:
            found = list(_LOST.finditer(error.message))
            if not found or not has_several_workers(self.distribute_strategy):
                raise
            reason = error.message[found[-1].end() :]
            reason = " ".join(re.split(r"The error could be|\[\[", reason)[0].split())
            raise RuntimeError(
                "Another worker has failed or cannot be reached, so that this one stopped. Start "
                "all workers again: with keras.callbacks.BackupAndRestore they go on after the "
                f"last epoch that was backed up. TensorFlow's reason: {reason}"
            ) from error


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is one of several workers that train one model together."""
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        # This counts the devices of this worker, and the replicas of all workers.
        and len(strategy.extended.worker_devices) < strategy.num_replicas_in_sync
    )


class _Meeting(keras.callbacks.Callback):  # type: ignore[misc]
    """Makes every worker wait for all others, and tells each the training steps of all."""

    def __init__(self, trained: keras.Model) -> None:
        super().__init__()
        self._trained = trained
        self.steps: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        strategy = self._trained.distribute_strategy
        step = int(self._trained.optimizer.iterations.numpy())
        own = strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant([step], "int64")
        )
        self.steps = strategy.gather(own, axis=0).numpy().tolist()


class _SameStart(_Meeting):
    """Checks that all workers start from the same step: else they wait for each other for ever."""

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if len(set(self.steps)) > 1:
            raise ValueError(
                "All workers should start from the same training step. `backup_dir` of "
                "BackupAndRestore is written by the first worker and read by all: name a folder "
                "that they share, or copy the first worker's to the others. "
                f"Received: training steps {self.steps}, by replica."
            )


def _for_several_workers(callbacks: Any, model: keras.Model) -> Any:
    """The callbacks of `fit`, changed so that one worker writes the backup and all resume from it.

    Two workers that write one file destroy it. With two files, one might be an epoch ahead when the
    job is killed.
    """
    is_list = isinstance(callbacks, keras.callbacks.CallbackList)
    single = callbacks.callbacks if is_list else keras.tree.flatten(callbacks or [])
    # Whoever reads a damaged backup replaces it by the one before: the first worker, while the
    # others wait.
    if model.distribute_strategy.extended.should_checkpoint:
        single.append(_Meeting(model))
    else:
        single.insert(0, _Meeting(model))
        for callback in single:
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                # Not `False`: Keras would take it for 0 and write at every step.
                callback.save_freq = sys.maxsize
                callback.delete_checkpoint = False
    single.append(_SameStart(model))
    return callbacks if is_list else single


def _first_batch(epoch_iterator: Any, strategy: tf.distribute.Strategy) -> Any:
    """The first batch of an epoch: the part of this worker's first replica."""
    *_, iterator = next(iter(epoch_iterator))
    return keras.tree.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], next(iterator)
    )


def _as_row(logs: Any) -> tf.Tensor:
    values = [tf.cast(log, "float32") for log in keras.tree.flatten(logs)]
    return tf.concat([tf.reshape(value, (1, -1)) for value in values], axis=1)


def _from_row(row: tf.Tensor, specs: Any) -> Any:
    """The logs from the row of `_as_row`, which Keras may give without its axis of length 1."""
    shapes = [spec.shape for spec in keras.tree.flatten(specs)]
    parts = tf.split(tf.reshape(row, (-1,)), [shape.num_elements() for shape in shapes])
    logs = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    return keras.tree.pack_sequence_as(specs, logs)
