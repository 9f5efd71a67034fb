"""The interface of the estimators of inter-task affinity, and the probe that they measure on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients
from tag_keras.backend.optimizers import lookahead_step
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.utils.checks import (
    check,
    check_bool,
    check_choice,
    check_count,
    check_number,
    implements,
)

# Values of the P shared variables after a step of the optimizer with P gradients.
Step = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Probe:
    """One batch at the current values of the model, as the estimators see it.

    Args:
        losses: Float32 tensor (T,): losses on the whole training batch, or on the whole held-out
            batch if the estimator has `target_data`.
        gradients: Gradients of the T losses on the training batch with respect to the P shared
            variables.
        variables: The P shared variables.
        optimizer: The compiled optimizer.
        loss_sums: Function from P values of the shared variables to a float32 tensor (2, T): sums
            and divisors of the losses, on this replica's part of the batch of `losses`.
        low_precision: Whether `losses`, unlike `loss_sums`, was computed in less than float32.
        feature_gradients: Float32 tensor (T, N): gradients of the T losses with respect to the N
            entries of the features of this replica's examples. Only for an estimator with
            `on_features`, which then has no `gradients`.
        batch_size: Float32 scalar: number of examples in the whole training batch.
    """

    losses: tf.Tensor
    gradients: Gradients
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    loss_sums: Callable[[Sequence[tf.Tensor]], tf.Tensor]
    low_precision: bool = False
    feature_gradients: tf.Tensor | None = None
    batch_size: tf.Tensor | None = None

    def exact_losses(self) -> tf.Tensor:
        """Losses (T,), computed in float32."""
        if not self.low_precision:
            return self.losses
        values = [tf.convert_to_tensor(variable) for variable in self.variables]
        (sums,) = sum_over_replicas([self.loss_sums(values)])
        return tf.math.divide_no_nan(sums[0], sums[1])


@dataclasses.dataclass(frozen=True)
class AffinityEstimator:
    """Base class of all estimators of inter-task affinity. A subclass implements `measure`.

    Args:
        every: Probe one step of the optimizer in `every`, beginning with the first. If a step
            accumulates the gradients of several batches, the first batch is probed. By default,
            `overhead` decides.
        overhead: The share of the other steps' time that probes may take, without `every`. The
            times of the first three probes, and of the steps between them, tell how many steps to
            leave between two probes. Times differ from run to run, and so do the probed steps: give
            `every` where a run should be repeated to the last digit.

    Raises:
        ValueError: If an option is not valid.
    """

    every: int | None = None
    overhead: float = dataclasses.field(default=0.1, kw_only=True)

    # Whether it takes gradients with respect to the features in place of the shared variables.
    on_features: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # As Python's numbers, because the configuration is written as JSON.
        if self.every is not None:
            object.__setattr__(self, "every", check_count("every", self.every))
        overhead = check_number("overhead", self.overhead, "a number above 0", lambda one: one > 0)
        object.__setattr__(self, "overhead", overhead)

    def measure(self, probe: Probe) -> tf.Tensor:
        """Affinities on one batch.

        Args:
            probe: What an estimator may ask of the batch: losses, gradients, lookaheads.

        Returns:
            Float32 tensor (T, T), [source, target]; NaN for no value.
        """
        raise NotImplementedError

    def target_data(self) -> Any:
        """Held-out data to measure the losses on; `None` for the training batch."""
        return None

    def settings(self) -> dict[str, Any]:
        """Settings that the folder of a run records, to tell this estimator from another."""
        without = set() if self.every is None else {"overhead"}
        return {name: one for name, one in self.get_config().items() if name not in without}

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AffinityEstimator":
        return cls(**config)


def check_estimator(affinity: Any) -> None:
    """Raises a `ValueError` unless the argument `affinity` is an estimator."""
    check(
        implements(affinity, AffinityEstimator, "measure"),
        "`affinity` should be an estimator, such as `tag_keras.LookaheadAffinity()`",
        affinity=affinity,
    )


@dataclasses.dataclass(frozen=True)
class StepEstimator(AffinityEstimator):
    """Base class of the estimators that take the step of the optimizer for each task alone."""

    update: Literal["optimizer", "sgd"] = "optimizer"
    baseline: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("update", self.update, ("optimizer", "sgd"))
        check_bool("baseline", self.baseline)

    def after_step(self, probe: Probe, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Values of the P shared variables after a step with P gradients."""
        return lookahead_step(probe.optimizer, gradients, probe.variables, self.update)

    def after_zero_step(self, probe: Probe) -> list[tf.Tensor] | None:
        """Values after a step with zero gradients; `None` without `baseline`."""
        if not self.baseline:
            return None
        return self.after_step(probe, [tf.zeros_like(variable) for variable in probe.variables])


def nan_unless_positive(losses: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Affinities (T, T) with NaN wherever the target's loss (T,) is not positive or not finite.

    A gain relative to such a loss says nothing.
    """
    usable = (losses > 0) & tf.math.is_finite(losses) & tf.math.is_finite(values)
    return tf.where(usable, values, float("nan"))
