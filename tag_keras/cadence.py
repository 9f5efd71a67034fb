"""When probes are made: the function that `fit` calls for its steps, and what follows epochs."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.epochs import EpochBounds, StepCounter
from tag_keras.probe_statistics import ProbeStatistics

# Makes at most so many steps with the next batches of an iterator. Returns the logs, and how many
# it made before the data came to an end.
Steps = Callable[[Any, int], tuple[Any, int]]


class StepsInTurns:
    """A train function that chooses for every step between others. A subclass says which.

    Args:
        counter: Counts the steps, and tells those that a restart is not to do again.
        steps_per_execution: Number of steps that `fit` asks for at once.
        logs: Gives the logs of the epoch so far.
    """

    def __init__(
        self, counter: StepCounter, steps_per_execution: int, logs: Callable[[], Any]
    ) -> None:
        self._counter, self._at_once, self._logs = counter, steps_per_execution, logs

    def choose(self, number: int) -> tuple[Steps, int]:
        """What makes the next steps, and how many of at most `number` it is to make."""
        raise NotImplementedError

    def __call__(self, iterator: Any) -> Any:
        made, logs = 0, None
        while made < self._at_once:
            logs, asked, done = self._advance(iterator, self._at_once - made)
            made += done
            if done < asked:
                break
        if not made:
            raise StopIteration
        return logs

    def _advance(self, iterator: Any, number: int) -> tuple[Any, int, int]:
        """Makes at most so many steps, all of one kind.

        Returns:
            The logs, how many steps were to be made, and how many were.
        """
        counter = self._counter
        if counter.steps_to_skip:
            # After a restart in the midst of an epoch, Keras begins it anew.
            asked = min(number, counter.steps_to_skip)
            done = sum(1 for _ in zip(range(asked), iterator, strict=False))
            counter.steps_to_skip -= done
            return self._logs(), asked, done
        steps, asked = self.choose(number)
        logs, done = steps(iterator, asked)
        # The optimizer's iterations would not do as the counter: an overflow does not count there.
        counter.steps += done
        return logs, asked, done


class Cadence(StepsInTurns):
    """A train function that chooses for every step between two others, in Python.

    So the plain one holds no trace of the probe, and there is no `tf.cond` around all-reduces,
    which does not run under MirroredStrategy.

    Args:
        statistics: Statistics that the probes update; they count the steps.
        every: Number of batches from one probe to the next.
        steps_per_execution: Number of steps that `fit` asks for at once.
        plain: Makes steps.
        probing: Makes steps with a probe in each.
        logs: Gives the logs of the epoch so far.
    """

    def __init__(
        self,
        statistics: ProbeStatistics,
        every: int,
        steps_per_execution: int,
        plain: Steps,
        probing: Steps,
        logs: Callable[[], Any],
    ) -> None:
        super().__init__(statistics, steps_per_execution, logs)
        self._every, self._plain, self._probing = every, plain, probing

    def choose(self, number: int) -> tuple[Steps, int]:
        position = self._counter.steps % self._every
        if position == 0:
            return self._probing, 1
        return self._plain, min(number, self._every - position)


def one_at_a_time(function: Callable[[Any], Any]) -> Steps:
    """Steps by a function that makes one. At the end of the data it raises."""
    return lambda iterator, number: (function(iterator), 1)


def on_device(model: keras.Model, step: Callable[[Any], Any]) -> Steps:
    """Steps in a loop on the device, which returns to Python after the last one.

    Args:
        model: Compiled model.
        step: Makes a step with a batch.
    """

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def one(batch: Any) -> None:
        model.distribute_strategy.run(step, args=(batch,))

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def several(iterator: Any, number: tf.Tensor) -> tf.Tensor:
        def body(done: tf.Tensor, batch: Any) -> tuple[tf.Tensor, Any]:
            one(batch.get_value())
            following = tf.cond(done + 1 < number, iterator.get_next_as_optional, lambda: batch)
            return done + 1, following

        return tf.while_loop(
            lambda done, batch: tf.logical_and(done < number, batch.has_value()),
            body,
            [tf.constant(0), iterator.get_next_as_optional()],
        )[0]

    if not model.run_eagerly:
        one = tf.function(one, reduce_retracing=True, jit_compile=model.jit_compile)
        several = tf.function(several, reduce_retracing=True)

    def steps(iterator: Any, number: int) -> tuple[Any, int]:
        if isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            done = int(several(iterator, tf.constant(number)))
        else:
            done = 0
            for _, batch in zip(range(number), iterator, strict=False):
                one(batch)
                done += 1
        return model.get_metrics_result(), done

    return steps


def peek(iterator: Any) -> tuple[Any, Any]:
    """A batch, or what tells its shapes and types, and an iterator that still gives it."""
    if not hasattr(iterator, "element_spec"):
        batch = next(iterator)
        return batch, iter([batch])
    batch = keras.tree.map_structure(
        # What has no type stands for a sample weight that is None.
        lambda spec: spec if getattr(spec, "dtype", None) else None,
        iterator.element_spec,
    )
    return batch, iterator


class EpochEnds(EpochBounds):
    """Closes the epochs of the statistics, and reports at the end what was left out of them.

    Args:
        statistics: Statistics that the training updates.
        tasks: Task names.
        labels_seen: Gives the number of labels (T,) in the epoch so far.
    """

    def __init__(
        self,
        statistics: ProbeStatistics,
        tasks: tuple[str, ...],
        labels_seen: Callable[[], Sequence[float]],
    ) -> None:
        super().__init__(statistics)
        self._statistics = statistics
        self._tasks = tasks
        self._labels_seen = labels_seen
        # Whether the running epoch is made from its first step on; and what the first one that was
        # had of labels.
        self._is_whole = True
        self._labels: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._is_whole = not self._statistics.steps_to_skip

    def on_test_begin(self, logs: Any = None) -> None:
        # Validation at the end of the epoch resets what counts the labels.
        self._count_labels()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._count_labels()
        if without := [task for task, number in self._labels.items() if number == 0]:
            raise ValueError(
                f"The tasks {without} had no label in the whole first epoch: all are NaN or have "
                "the sample weight 0. Check the labels, or leave these tasks out of the model."
            )

    def on_train_end(self, logs: Any = None) -> None:
        skipped = self._statistics.affinity(self._tasks).skipped.sum(axis=0)
        if not skipped.any():
            return
        message = (
            "Some probe values were left out of the affinities, because a loss was not positive "
            "or not finite, or because a gradient was 0 or overflowed. Values left out by target: "
            f"{_by_task(self._tasks, skipped)}."
        )
        if (overflowed := self._statistics.overflowed()).any():
            message += f" Overflows by source: {_by_task(self._tasks, overflowed)}."
        warnings.warn(message, stacklevel=2)

    def _count_labels(self) -> None:
        if self._is_whole and not self._labels:
            self._labels = dict(zip(self._tasks, self._labels_seen(), strict=True))


def before_others(own: Sequence[keras.callbacks.Callback], callbacks: Any) -> Any:
    """The callbacks of `fit` with others first, so that a checkpoint of an epoch holds it closed.

    Args:
        own: The callbacks that are to come first.
        callbacks: What `fit` was given: `None`, one, a list, or a `keras.callbacks.CallbackList`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks[:0] = own
        return callbacks
    return [*own, *keras.tree.flatten(callbacks or [])]


def _by_task(tasks: Sequence[str], numbers: Any) -> dict[str, int]:
    return {task: int(one) for task, one in zip(tasks, numbers, strict=True) if one}
