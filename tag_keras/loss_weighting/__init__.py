"""Weights of the tasks in the joint loss: what `compile(loss_weighting=...)` takes.

A weighting has one hook, `update`: from the losses of a batch to the weights (T,) of the next one.
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
