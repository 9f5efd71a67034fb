"""The training step of AdaShare that trains the policy, and the optimizer that it takes."""

from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.task_losses import of_one_replica
from tag_keras.multitask.task_model import TaskModel
from tag_keras.networks.adashare.encoder import AdaShareEncoder
from tag_keras.networks.adashare.options import AdaShareSearch


class PolicyStep:
    """Trains the policy with a batch, and leaves the network as it is.

    The losses are those of training: with samples of the policy, with Dropout, and with the
    batch's statistics in BatchNorm. But moving statistics, of BatchNorm for instance, do not move.

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
        encoder: AdaShareEncoder = model.encoder
        policy, task_losses = encoder.policy, model.task_losses
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            # What the layers assign stays in the scope.
            with keras.StatelessScope(collect_losses=True) as scope:
                y_pred = model(x, training=True)
                own_losses = model.own_losses()
            losses, labels = task_losses(y, y_pred, sample_weight)
            joint = tf.add_n([task_losses.joint(losses), *own_losses])
            logits = tf.convert_to_tensor(policy.logits)
            more = self._search.policy_loss(logits, tf.convert_to_tensor(policy.active))
            scaled = optimizer.scale_loss(joint + of_one_replica(more))
        optimizer.apply([tape.gradient(scaled, policy.logits)], [policy.logits])
        # But for what the next step is to draw: other policies, and other units in Dropout.
        for variable in [policy.draws, *_seeds(model)]:
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        task_losses.track(losses, labels)
        return model.logs_after(x, y, y_pred, sample_weight, joint)


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """States of the generators of random numbers, which Keras does not count as weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def policy_optimizer_of(policy_optimizer: Any, optimizer: Any) -> keras.optimizers.Optimizer:
    """The optimizer of the policy: Adam with the authors' learning rate, or the one given.

    Raises:
        ValueError: If it is the optimizer of the weights.
    """
    if policy_optimizer is None:
        return keras.optimizers.Adam(0.01)
    if policy_optimizer is optimizer and isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            "`policy_optimizer` should be another optimizer than `optimizer`, because each keeps a "
            f"state of its own. Received: {optimizer!r} for both."
        )
    return keras.optimizers.get(policy_optimizer)
