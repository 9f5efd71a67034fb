"""Loss weightings: how much each task counts in the joint loss. For `compile(loss_weighting=...)`.

The weights (T,) come from

- `EqualWeighting`: 1 for every task;
- `UncertaintyWeighting`: scalars that the optimizer trains together with the network;
- `DynamicWeightAverage`: the mean losses of the last two epochs;
- `GradNorm`: after every step, the norms of the tasks' gradients;
- `RLW`: chance;
- `IMTLL`: scalars that the optimizer trains together with the network;
- `GLS`, `DBMTL`, `STCH`: the losses of the batch, so that it trains on their geometric mean, their
  logarithms or a smooth maximum;
- `FAMO`: how much each loss has fallen in the steps before.

A subclass of `LossWeighting` implements one hook, `task_weights()`: the weights of the current
step; or `batch_weights(losses, has_labels)`, which depend on the losses of the batch. Weights that
change also need `start` (creates variables), and one of `update` (called after every step),
`after_step` (with the losses after the step), `end_epoch`, or `is_trained`. `penalty` may add a
term to the joint loss.
"""

from tag_keras.loss_weighting.base import EqualWeighting, LossWeighting
from tag_keras.loss_weighting.dynamic_average import DynamicWeightAverage
from tag_keras.loss_weighting.famo import FAMO
from tag_keras.loss_weighting.geometric import GLS
from tag_keras.loss_weighting.gradnorm import GradNorm
from tag_keras.loss_weighting.impartial import IMTLL
from tag_keras.loss_weighting.logarithmic import DBMTL
from tag_keras.loss_weighting.random_weights import RLW
from tag_keras.loss_weighting.smooth_tchebycheff import STCH
from tag_keras.loss_weighting.uncertainty import UncertaintyWeighting

__all__ = [
    "DBMTL",
    "FAMO",
    "GLS",
    "IMTLL",
    "RLW",
    "STCH",
    "DynamicWeightAverage",
    "EqualWeighting",
    "GradNorm",
    "LossWeighting",
    "UncertaintyWeighting",
]
