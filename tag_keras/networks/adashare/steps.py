"""The training steps of AdaShare: steps of the weights and steps of the policy, in turns."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.steps import StepCounter, Steps, StepsInTurns, build_for, peek, steps_of
from tag_keras.multitask.task_losses import of_one_replica
from tag_keras.multitask.task_model import TaskModel
from tag_keras.networks.adashare.options import AdaShareSearch


class SearchProgress(StepCounter):
    """Counts the training steps of a search, which alone determine its schedule."""

    # Active blocks and temperature that the policy was set to in this epoch.
    policy_state: tuple[int, float] | None = None

    def end_epoch(self) -> None:
        super().end_epoch()
        # Another callback may bring back weights of another phase.
        self.policy_state = None


class SearchSteps(StepsInTurns):
    """The train function of a search: the schedule chooses which of two steps comes next."""

    def __init__(
        self,
        model: TaskModel,
        search: AdaShareSearch,
        progress: SearchProgress,
        policy_optimizer: keras.optimizers.Optimizer,
    ) -> None:
        super().__init__(progress, model.steps_per_execution, model.get_metrics_result)
        self._model, self._search, self._progress = model, search, progress
        self._weight_steps = steps_of(model, model.train_step)
        self._policy_steps = steps_of(model, PolicyStep(model, search, policy_optimizer))
        self._is_built = False

    def __call__(self, iterator: Any) -> Any:
        if not self._is_built:
            # All variables are created first: otherwise the first step would be traced twice.
            batch, iterator = peek(iterator)
            build_for(self._model, batch)
            self._is_built = True
        return super().__call__(iterator)

    def choose(self, number: int) -> tuple[Steps, int]:
        progress, policy = self._progress, self._model.encoder.policy
        phase = self._search.phase(progress.steps, policy.num_blocks)
        state = (phase.active, phase.temperature)
        # Only when they change: an assignment at every step would hold up a GPU.
        if state != progress.policy_state:
            policy.set_phase(*state)
            progress.policy_state = state
        steps = self._policy_steps if phase.trains_policy else self._weight_steps
        return steps, min(number, phase.left)


class PolicyStep:
    """Trains the policy with a batch, and leaves the network as it is.

    The losses are the training losses: with sampled decisions, Dropout, and the batch's statistics
    in BatchNorm. Moving statistics, such as BatchNorm's, stay as they are.

    Args:
        model: Compiled model with an `AdaShareEncoder`.
        search: Losses of the policy.
        optimizer: Optimizer of the policy, built.
    """

    def __init__(
        self, model: TaskModel, search: AdaShareSearch, optimizer: keras.optimizers.Optimizer
    ) -> None:
        self._model, self._search, self._optimizer = model, search, optimizer

    def __call__(self, data: Any) -> dict[str, Any]:
        model, optimizer = self._model, self._optimizer
        policy, task_losses = model.encoder.policy, model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            # What the layers assign stays in the scope.
            with keras.StatelessScope(collect_losses=True) as scope:
                y_pred = model(x, training=True)
                own_losses = model.own_losses()
            losses, labels = task_losses(y, y_pred, sample_weight)
            joint = tf.add_n([task_losses.joint(losses), *own_losses])
            logits = tf.convert_to_tensor(policy.logits)
            policy_loss = self._search.policy_loss(logits, tf.convert_to_tensor(policy.active))
            scaled = optimizer.scale_loss(joint + of_one_replica(policy_loss))
        optimizer.apply([tape.gradient(scaled, policy.logits)], [policy.logits])
        # Only the random numbers move on: the next step draws another policy and drops other units.
        for variable in [policy.draws, *_seeds(model)]:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        task_losses.track(losses, labels)
        return model.logs_after(x, y, y_pred, sample_weight, joint)


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """States of the random number generators; Keras does not count them as weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
