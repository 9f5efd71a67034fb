"""Measure: how much a training step for one task helps or harms every other task.

An estimator has one hook, `measure(probe)`: from the losses and gradients of one batch it gives
affinities (T, T), [source, target]. `lookahead` tries the steps (TAG), `first_order` multiplies
gradients instead, `cosine` compares their directions. `features` multiplies the gradients with
respect to the features, which cost next to nothing.

`cadence` chooses the steps to probe, `held_out` gives probes data that training does not see,
`statistics` averages the probes, and `early_stopping` restores the averages with the weights.
"""

from tag_keras.estimators.base import AffinityEstimator, Probe, check_estimator
from tag_keras.estimators.cosine import CosineAffinity
from tag_keras.estimators.early_stopping import EarlyStopping
from tag_keras.estimators.features import FeatureAffinity
from tag_keras.estimators.first_order import FirstOrderAffinity
from tag_keras.estimators.lookahead import LookaheadAffinity

__all__ = [
    "AffinityEstimator",
    "CosineAffinity",
    "EarlyStopping",
    "FeatureAffinity",
    "FirstOrderAffinity",
    "LookaheadAffinity",
    "Probe",
    "check_estimator",
]
