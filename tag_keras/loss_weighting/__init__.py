"""Loss weightings: how much each task counts in the joint loss. For `compile(loss_weighting=...)`.

The weights (T,) come from

- `EqualWeighting`: 1 for every task;
- `UncertaintyWeighting`: scalars that the optimizer trains together with the network;
- `DynamicWeightAverage`: the mean losses of the last two epochs;
- `GradNorm`: after every step, the norms of the tasks' gradients.

A subclass of `LossWeighting` implements one hook, `task_weights()`: the weights of the current
step. Weights that change also need `start` (creates variables), and one of `update` (called after
every step), `end_epoch`, or `is_trained`. `penalty` may add a term to the joint loss.
"""

from tag_keras.loss_weighting.base import EqualWeighting, LossWeighting
from tag_keras.loss_weighting.dynamic_average import DynamicWeightAverage
from tag_keras.loss_weighting.gradnorm import GradNorm
from tag_keras.loss_weighting.uncertainty import UncertaintyWeighting

__all__ = [
    "DynamicWeightAverage",
    "EqualWeighting",
    "GradNorm",
    "LossWeighting",
    "UncertaintyWeighting",
]
