"""`keras.Model.fit` under `tf.distribute.MultiWorkerMirroredStrategy` with several workers."""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

# What TensorFlow writes into the errors of the workers that wait for one that has failed.
_LOST = re.compile(r"Collective ops is aborted by: |(?=Collective has timed out)")


class MultiWorkerModel(keras.Model):  # type: ignore[misc]
    """A Keras model that also trains, evaluates and predicts on several workers.

    Keras 3 fails there (keras-team/keras#20585) at two places, which are stepped round. The first
    one is of use to all replicas, those of one worker, too; for the rest, without several
    workers, every method is that of `keras.Model`. Neither detour depends on Keras being at fault:
    each gives the right result with a Keras that is mended, too, so there is nothing to switch off.

    Every worker runs the same program. Backups of `keras.callbacks.BackupAndRestore` are written by
    the first worker and read by all, hence `backup_dir` is to be a folder that all workers share.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras takes a batch from the iterator and averages it over the replicas, to learn shapes
        # and types. That fails for a structure of tensors with several workers, and everywhere for
        # parts that differ in size. It also takes a batch instead of an iterator, and the part of
        # one replica has the same shapes and types.
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            iterator, data_batch = None, _first_batch(iterator, self.distribute_strategy)
        super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Any) -> Any:
        if not has_several_workers(self.distribute_strategy):
            return super()._make_function(step_function)

        # Keras averages every log over the workers and, in the same breath, over its axis 0, which
        # a scalar does not have. So all logs go as one row, shape (1, N), which has one to spare;
        # and the workers talk to each other once per step instead of once per log.
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
        if has_several_workers(self.distribute_strategy):
            callbacks = _for_several_workers(callbacks, self)
        with self._explained():
            return super().fit(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self._explained():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self._explained():
            return super().predict(*args, **kwargs)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says in one sentence what it means when the workers lose one of them."""
        try:
            yield
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
        # The devices are this worker's, the replicas those of all workers.
        and len(strategy.extended.worker_devices) < strategy.num_replicas_in_sync
    )


class _Meeting(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets no worker go on before all are there, and tells them the training steps of all.

    Args:
        trained: The model.
    """

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
    """Checks that all workers start from the same training step.

    Where one resumes and another does not, they would make different numbers of steps and wait for
    each other for ever.
    """

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
    """The callbacks of `fit`, such that all workers resume from one backup that one has written.

    Two workers that write the same file destroy it; of two that write a file each, one may have
    written one epoch more when the job is killed.
    """
    is_list = isinstance(callbacks, keras.callbacks.CallbackList)
    single = callbacks.callbacks if is_list else keras.tree.flatten(callbacks or [])
    # A backup that was damaged is replaced by the one before it when it is read. So the others read
    # it when the first has.
    if model.distribute_strategy.extended.should_checkpoint:
        single.append(_Meeting(model))
    else:
        single.insert(0, _Meeting(model))
        for callback in single:
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                # Keras takes `False` for 0 and would write at every step.
                callback.save_freq = sys.maxsize
                callback.delete_checkpoint = False
    single.append(_SameStart(model))
    return callbacks if is_list else single


def _first_batch(epoch_iterator: Any, strategy: tf.distribute.Strategy) -> Any:
    """The first batch of an epoch, of the first replica of this worker."""
    *_, iterator = next(iter(epoch_iterator))
    return keras.tree.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], next(iterator)
    )


def _as_row(logs: Any) -> tf.Tensor:
    values = [tf.cast(log, "float32") for log in keras.tree.flatten(logs)]
    return tf.concat([tf.reshape(value, (1, -1)) for value in values], axis=1)


def _from_row(row: tf.Tensor, specs: Any) -> Any:
    """Undoes `_as_row`, also where the row has lost its axis of length 1."""
    shapes = [spec.shape for spec in keras.tree.flatten(specs)]
    parts = tf.split(tf.reshape(row, (-1,)), [shape.num_elements() for shape in shapes])
    logs = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
    return keras.tree.pack_sequence_as(specs, logs)
