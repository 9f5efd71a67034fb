"""What an estimator of inter-task affinity is, and what a probe gives it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients
from tag_keras.backend.optimizers import lookahead_step
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.utils.checks import check, check_bool, check_choice, check_count, implements


@dataclasses.dataclass(frozen=True)
class Probe:
    """One batch at the current values of the model, as the estimators see it.

    Args:
        losses: Float32 tensor (T,): the losses of the tasks on the whole batch; on the held-out
            batch, if the estimator has `target_data`.
        gradients: Gradients of the losses on the training batch with respect to the shared
            variables.
        variables: The P shared variables.
        optimizer: The compiled optimizer.
        loss_sums: Gives for values of the shared variables a float32 tensor (2, T): sums and
            divisors of the losses of this replica's part of the batch that `losses` are of.
        low_precision: Whether `losses` was computed in less than float32, which is what
            `loss_sums` computes in.
    """

    losses: tf.Tensor
    gradients: Gradients
    variables: Sequence[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    loss_sums: Callable[[Sequence[tf.Tensor]], tf.Tensor]
    low_precision: bool = False

    def exact_losses(self) -> tf.Tensor:
        """`losses`, computed in float32."""
        if not self.low_precision:
            return self.losses
        values = [tf.convert_to_tensor(variable) for variable in self.variables]
        ((sums, divisors),) = [
            tf.unstack(one) for one in sum_over_replicas([self.loss_sums(values)])
        ]
        return tf.math.divide_no_nan(sums, divisors)


@dataclasses.dataclass(frozen=True)
class AffinityEstimator:
    """What all estimators have in common. A subclass implements `measure`.

    Args:
        every: Probe one step of the optimizer in `every`, the first one included. The paper's
            code uses 10; its notebook 1. Where gradients are accumulated over several batches,
            they make one step, and its first batch is probed.

    Raises:
        ValueError: If an option is not what it should be.
    """

    every: int = 10

    def __post_init__(self) -> None:
        # Python's integer, because the configuration is written as JSON.
        object.__setattr__(self, "every", check_count("every", self.every))

    def measure(self, probe: Probe) -> tf.Tensor:
        """Affinities on one batch: float32 tensor (T, T), [source, target], NaN for no value."""
        raise NotImplementedError

    def target_data(self) -> Any:
        """Held-out data whose losses a probe is to look at; `None` for those of its own batch."""
        return None

    def settings(self) -> dict[str, Any]:
        """What tells this measuring from another one in the folder of a run."""
        return self.get_config()

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AffinityEstimator":
        return cls(**config)


def check_estimator(affinity: Any) -> None:
    """Checks that something is an estimator.

    Raises:
        ValueError: If it is none.
    """
    check(
        implements(affinity, AffinityEstimator, "measure"),
        "`affinity` should be an estimator, such as `tag_keras.LookaheadAffinity(every=10)`",
        affinity=affinity,
    )


@dataclasses.dataclass(frozen=True)
class _OfSteps(AffinityEstimator):
    """Estimators that look at the step that the optimizer would make for one task."""

    update: Literal["optimizer", "sgd"] = "optimizer"
    baseline: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("update", self.update, ("optimizer", "sgd"))
        check_bool("baseline", self.baseline)

    def _step(self, probe: Probe, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return lookahead_step(probe.optimizer, gradients, probe.variables, self.update)

    def _zero_step(self, probe: Probe) -> list[tf.Tensor] | None:
        """The step with zero gradients, if it is to be subtracted."""
        if not self.baseline:
            return None
        return self._step(probe, [tf.zeros_like(variable) for variable in probe.variables])


Step = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


def _where_positive(losses: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    # Relative to a loss that is not positive, a gain says nothing.
    usable = (losses > 0) & tf.math.is_finite(losses) & tf.math.is_finite(values)
    return tf.where(usable, values, float("nan"))
