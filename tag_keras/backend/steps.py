"""Training steps: counted over epochs and restarts, taken in turns, and compiled for `fit`."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.backend.layers import layers_in

# Makes at most so many steps with the next batches of an iterator. Returns the logs, and how many
# steps it made before the data came to an end.
Steps = Callable[[Any, int], tuple[Any, int]]


class StepCounter(keras.layers.Layer):  # type: ignore[misc]
    """Counts training steps. It is saved with the model.

    `steps` counts all steps and `steps_before_epoch` those before the running epoch. A restart
    should not repeat the first `steps_to_skip` steps of the running epoch.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reset_steps()
        self.built = True

    def reset_steps(self) -> None:
        """Starts again at no step."""
        self.steps = self.steps_before_epoch = self.steps_to_skip = 0
        # Whether a checkpoint was read.
        self.is_restored = False

    def end_epoch(self) -> None:
        """Begins a new epoch."""
        self.steps_before_epoch, self.steps_to_skip = self.steps, 0
        self.is_restored = False

    def end_interrupted_epoch(self) -> None:
        """Begins a new epoch, whether or not one is running."""
        self.end_epoch()

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["steps"] = np.array([self.steps, self.steps_before_epoch])

    def load_own_variables(self, store: Any) -> None:
        self.steps, self.steps_before_epoch = (int(number) for number in np.array(store["steps"]))
        self.is_restored = True


class EpochBounds(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a counter where epochs begin and end."""

    def __init__(self, counter: StepCounter) -> None:
        super().__init__()
        self._counter = counter
        # Whether the running epoch is the first one of this call of `fit`.
        self._is_first_epoch = True

    def on_train_begin(self, logs: Any = None) -> None:
        # An earlier call of `fit` may have been interrupted in the midst of an epoch.
        self._counter.end_interrupted_epoch()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        counter = self._counter
        if counter.is_restored and self._is_first_epoch:
            # BackupAndRestore has read the counter: the epoch goes on where the backup was made.
            counter.steps_to_skip = counter.steps - counter.steps_before_epoch
        elif counter.is_restored:
            # Another callback has read it between two epochs, and a new epoch comes next.
            counter.end_interrupted_epoch()
        counter.is_restored = self._is_first_epoch = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._counter.end_epoch()


class StepsInTurns:
    """A train function that chooses, for every step, between several kinds. A subclass chooses.

    Args:
        counter: Counts the steps, and knows those that a restart should not repeat.
        steps_per_execution: Number of steps that `fit` asks for at once.
        logs: Gives the logs of the epoch so far.
    """

    def __init__(
        self, counter: StepCounter, steps_per_execution: int, logs: Callable[[], Any]
    ) -> None:
        self._counter, self._at_once, self._logs = counter, steps_per_execution, logs

    def choose(self, number: int) -> tuple[Steps, int]:
        """The kind of the next steps, and how many of this kind to make, at most `number`."""
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
        """Makes at most `number` steps of one kind. Returns logs, steps asked for, steps made."""
        counter = self._counter
        if counter.steps_to_skip:
            # Keras begins the epoch anew after a restart in its midst.
            asked = min(number, counter.steps_to_skip)
            done = sum(1 for _ in zip(range(asked), iterator, strict=False))
            counter.steps_to_skip -= done
            return self._logs(), asked, done
        steps, asked = self.choose(number)
        logs, done = steps(iterator, asked)
        # Not the optimizer's iterations, which do not count a step that overflows.
        counter.steps += done
        return logs, asked, done


def compiled(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The train function that Keras makes from a step, with the options of `compile`."""
    function: Callable[[Any], Any] = model._make_function(step)
    return function


def build_for(model: keras.Model, batch: Any) -> None:
    """Creates the variables of a model, its optimizer and its metrics for batches like `batch`."""
    model._symbolic_build(data_batch=batch)


def traced_once(
    model: keras.Model, encoder: keras.layers.Layer, function: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """A train function that creates all variables before its first trace, where that is safe.

    Otherwise the first trace creates them, and TensorFlow traces the function again.

    Args:
        model: Model that the function trains.
        encoder: Its encoder. One that is not built may have layers for training only.
        function: Train function from an iterator to logs.
    """
    is_new = not tf.config.functions_run_eagerly()

    def train_function(iterator: Any) -> Any:
        nonlocal is_new
        if is_new and all(layer.built for layer in layers_in(encoder)):
            batch, iterator = peek(iterator)
            composite = (tf.SparseTensor, tf.SparseTensorSpec, tf.RaggedTensor, tf.RaggedTensorSpec)
            if not any(isinstance(one, composite) for one in keras.tree.flatten(batch)):
                # What cannot be built by itself, such as with a `train_step` that takes other
                # batches, the step builds, and it reports what is wrong.
                with contextlib.suppress(Exception):
                    build_for(model, batch)
        is_new = False
        return function(iterator)

    return train_function


def steps_of(model: keras.Model, step: Callable[[Any], Any]) -> Steps:
    """Steps of a compiled model: in a loop on the device if `steps_per_execution` exceeds 1."""
    if model.steps_per_execution > 1:
        return on_device(model, step)
    function = compiled(model, step)
    # At the end of the data the function raises `StopIteration`.
    return lambda iterator, number: (function(iterator), 1)


def on_device(model: keras.Model, step: Callable[[Any], Any]) -> Steps:
    """Steps in a loop on the device, which returns to Python after the last step."""

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
    """A batch, or the specs of its tensors, and an iterator that still gives this batch."""
    if not hasattr(iterator, "element_spec"):
        batch = next(iterator)
        return batch, iter([batch])

    def one_spec(spec: Any) -> Any:
        # With several replicas: the part of the first.
        (spec, *_) = getattr(spec, "_value_specs", (spec,))
        # A spec without a type stands for a sample weight that is None.
        return spec if getattr(spec, "dtype", None) else None

    return keras.tree.map_structure(one_spec, iterator.element_spec), iterator


def before_others(own: Sequence[keras.callbacks.Callback], callbacks: Any) -> Any:
    """The argument `callbacks` of `fit` with our `own` first, so checkpoints hold closed epochs."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks[:0] = own
        return callbacks
    return [*own, *keras.tree.flatten(callbacks or [])]
