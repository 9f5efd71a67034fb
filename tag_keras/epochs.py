"""Where epochs begin and end, also one that is interrupted and resumed in its midst."""

from typing import Any

import keras
import numpy as np


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
