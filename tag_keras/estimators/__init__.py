"""Measure: how much a training step for one task helps or harms every other task.

An estimator has one hook, `measure(probe)`: from the losses and gradients of one batch to the
affinities (T, T), [source, target]. `lookahead` tries the steps (TAG), `first_order` multiplies
gradients instead, `cosine` looks at their angles. `cadence` says when to probe, `statistics` sums
the probes up, `held_out` feeds them with data that the training does not see.
"""

from tag_keras.estimators.base import AffinityEstimator, Probe, check_estimator
from tag_keras.estimators.cosine import CosineAffinity
from tag_keras.estimators.early_stopping import EarlyStopping
from tag_keras.estimators.first_order import FirstOrderAffinity
from tag_keras.estimators.lookahead import LookaheadAffinity

__all__ = [
    "AffinityEstimator",
    "CosineAffinity",
    "EarlyStopping",
    "FirstOrderAffinity",
    "LookaheadAffinity",
    "Probe",
    "check_estimator",
]
