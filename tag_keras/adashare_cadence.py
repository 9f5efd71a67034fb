"""The training steps of AdaShare: which phase each of them belongs to."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tag_keras.adashare_policy import AdaSharePolicy
from tag_keras.adashare_search import AdaShareSearch
from tag_keras.cadence import Steps, StepsInTurns


class SearchProgress(keras.layers.Layer):  # type: ignore[misc]
    """How many training steps a search has behind it; saved with the model.

    `steps` is all that the schedule depends on. `steps_before_epoch` are those before the running
    epoch, and `steps_to_skip` those of it that a restart is not to do again.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start()
        self.built = True

    def start(self) -> None:
        """Sets all back to no step."""
        self.steps = self.steps_before_epoch = self.steps_to_skip = 0
        # Whether a checkpoint was read.
        self.is_restored = False
        # What the policy was set to in this epoch: active blocks and temperature.
        self.policy_state: tuple[int, float] | None = None

    def close_epoch(self) -> None:
        """What comes next is a new epoch."""
        self.steps_before_epoch, self.steps_to_skip = self.steps, 0
        self.is_restored = False

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["steps"] = np.array([self.steps, self.steps_before_epoch])

    def load_own_variables(self, store: Any) -> None:
        self.steps, self.steps_before_epoch = (int(number) for number in np.array(store["steps"]))
        self.is_restored = True


class EpochStarts(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the progress of a search where epochs begin, also one that is resumed in its midst.

    Args:
        progress: The progress.
    """

    def __init__(self, progress: SearchProgress) -> None:
        super().__init__()
        self._progress = progress
        self._is_first_epoch = True

    def on_train_begin(self, logs: Any = None) -> None:
        # The epoch in which an earlier `fit` was interrupted.
        self._progress.close_epoch()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        progress = self._progress
        if progress.is_restored and self._is_first_epoch:
            # BackupAndRestore has read it: what the epoch has behind it is not done again.
            progress.steps_to_skip = progress.steps - progress.steps_before_epoch
        elif progress.is_restored:
            # Another callback has read it between two epochs, and the next one is a new one.
            progress.close_epoch()
        progress.is_restored = self._is_first_epoch = False
        # Another callback may have brought back weights of another phase.
        progress.policy_state = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._progress.close_epoch()


class Alternation(StepsInTurns):
    """A train function that chooses by the schedule between two others, in Python.

    Args:
        search: The schedule.
        progress: Counts the steps.
        policy: Policy whose temperature and active blocks are set.
        steps_per_execution: Number of steps that `fit` asks for at once.
        of_weights: Makes steps that train the weights.
        of_policy: Makes steps that train the policy.
        logs: Gives the logs of the epoch so far.
    """

    def __init__(
        self,
        search: AdaShareSearch,
        progress: SearchProgress,
        policy: AdaSharePolicy,
        steps_per_execution: int,
        of_weights: Steps,
        of_policy: Steps,
        logs: Callable[[], Any],
    ) -> None:
        super().__init__(progress, steps_per_execution, logs)
        self._search, self._progress, self._policy = search, progress, policy
        self._of_weights, self._of_policy = of_weights, of_policy

    def choose(self, number: int) -> tuple[Steps, int]:
        progress = self._progress
        phase = self._search.phase(progress.steps, self._policy.num_blocks)
        state = (phase.active, phase.temperature)
        # Only where they change: an assignment at every step would hold up a GPU.
        if state != progress.policy_state:
            self._policy.set_phase(*state)
            progress.policy_state = state
        steps = self._of_policy if phase.trains_policy else self._of_weights
        return steps, min(number, phase.left)
