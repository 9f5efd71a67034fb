"""All loss weightings: what `compile(loss_weighting=...)` takes."""

from tag_keras.dynamic_weights import DynamicWeightAverage
from tag_keras.gradnorm import GradNorm
from tag_keras.uncertainty_weighting import UncertaintyWeighting
from tag_keras.weighting import EqualWeighting, LossWeighting

__all__ = [
    "DynamicWeightAverage",
    "EqualWeighting",
    "GradNorm",
    "LossWeighting",
    "UncertaintyWeighting",
]
