"""Where epochs begin and end, also one that is interrupted and resumed in its midst."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class StepCounter(keras.layers.Layer):  # type: ignore[misc]
    """Counts training steps; saved with the model.

    `steps` are all of them, `steps_before_epoch` those before the running epoch, and
    `steps_to_skip` those of it that a restart is not to do again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reset_steps()
        self.built = True

    def reset_steps(self) -> None:
        """Sets all back to no step."""
        self.steps = self.steps_before_epoch = self.steps_to_skip = 0
        # Whether a checkpoint was read.
        self.is_restored = False

    def end_epoch(self) -> None:
        """What comes next is a new epoch."""
        self.steps_before_epoch, self.steps_to_skip = self.steps, 0
        self.is_restored = False

    def end_interrupted_epoch(self) -> None:
        """The same, where it is not known whether an epoch is running."""
        self.end_epoch()

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["steps"] = np.array([self.steps, self.steps_before_epoch])

    def load_own_variables(self, store: Any) -> None:
        self.steps, self.steps_before_epoch = (int(number) for number in np.array(store["steps"]))
        self.is_restored = True


class EpochBounds(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a counter where epochs begin and end.

    Args:
        counter: Counts the steps of the training.
    """

    def __init__(self, counter: StepCounter) -> None:
        super().__init__()
        self._counter = counter
        # Whether the running epoch is the first one of this `fit`.
        self._is_first_epoch = True

    def on_train_begin(self, logs: Any = None) -> None:
        # The epoch in which an earlier `fit` was interrupted.
        self._counter.end_interrupted_epoch()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        counter = self._counter
        if counter.is_restored and self._is_first_epoch:
            # BackupAndRestore has read it: what the epoch has behind it is not done again.
            counter.steps_to_skip = counter.steps - counter.steps_before_epoch
        elif counter.is_restored:
            # Another callback has read it between two epochs, and the next one is a new one.
            counter.end_interrupted_epoch()
        counter.is_restored = self._is_first_epoch = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._counter.end_epoch()


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


def compiled(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A train function as Keras makes it of a step, with all that `compile` asks for."""
    function: Callable[[Any], Any] = model._make_function(step)
    return function


def build_for(model: keras.Model, batch: Any) -> None:
    """Creates the variables of a model and its optimizer, metrics included, for such batches."""
    model._symbolic_build(data_batch=batch)


def steps_of(model: keras.Model, step: Callable[[Any], Any]) -> Steps:
    """Steps of a compiled model, as many at once on the device as `steps_per_execution` says."""
    if model.steps_per_execution > 1:
        return on_device(model, step)
    return one_at_a_time(compiled(model, step))


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
