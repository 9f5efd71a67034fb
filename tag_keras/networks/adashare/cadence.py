"""The training steps of AdaShare: which phase each of them belongs to."""

from collections.abc import Callable
from typing import Any

from tag_keras.backend.steps import EpochBounds, StepCounter, Steps, StepsInTurns
from tag_keras.networks.adashare.options import AdaShareSearch
from tag_keras.networks.adashare.policy import AdaSharePolicy


class SearchProgress(StepCounter):
    """How many training steps a search has behind it, all that its schedule depends on."""

    # What the policy was set to in this epoch: active blocks and temperature.
    policy_state: tuple[int, float] | None = None


class SearchEpochs(EpochBounds):
    """Tells the progress of a search where epochs begin and end.

    Args:
        progress: The progress.
    """

    def __init__(self, progress: SearchProgress) -> None:
        super().__init__(progress)
        self._progress = progress

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        # Another callback may have brought back weights of another phase.
        self._progress.policy_state = None


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
