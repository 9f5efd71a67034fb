"""Estimators of inter-task affinity: what `compile(affinity=...)` takes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tag_keras.checks import check_bool, check_choice
from tag_keras.gradients import select_variables
from tag_keras.held_out import PLACEHOLDER, check_data, describe_data
from tag_keras.probe import AffinityEstimator, Probe, check_estimator
from tag_keras.train_step import (
    cosine_affinity,
    first_order_affinity,
    lookahead_affinity,
    lookahead_step,
)

# Of probe.py, by the path that it is imported by.
__all__ = [
    "AffinityEstimator",
    "CosineAffinity",
    "FirstOrderAffinity",
    "LookaheadAffinity",
    "Probe",
    "check_estimator",
]


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


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True, eq=False)
class LookaheadAffinity(_OfSteps):
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

    A probe takes, for every source task i, the step that the optimizer would make on the shared
    variables from the gradient of L_i alone, and measures every target's loss after it, on the
    same batch and with the heads as they are:

        Z[i, j] = 1 - L_j(shared variables after the step for i) / L_j(shared variables)

    Positive means that a step for the source lowers the loss of the target. Nothing of a probe
    remains: weights, BatchNorm statistics, optimizer state and random seeds are as without it. (A
    layer that draws random numbers otherwise than by a `keras.random.SeedGenerator` draws others
    in each forward pass, which adds noise to its affinities.) Probes of batches of less than half
    the usual size are left out. With a model of mixed precision the losses are computed in
    float32, because a step changes them by less than float16 or bfloat16 resolve.

    With held-out data the gradients are those of the training batch, and all losses of Z those of a
    held-out batch, with dropout and BatchNorm as in training: it tells what generalises, not what
    fits. That costs one more forward pass.

    Args:
        every: Probe one step of the optimizer in `every`, the first one included. The paper's
            code uses 10; its notebook 1. Where gradients are accumulated over several batches,
            they make one step, and its first batch is probed.
        update: `"optimizer"` takes the step of the compiled optimizer (momentum, adaptive rates,
            clipping, weight decay); `"sgd"` takes `-learning_rate * gradient`, the paper's
            equation.
        baseline: Whether to subtract, for each target, the Z of a step with a zero gradient. What
            is left is due to the source's gradient, not to momentum that was there already.
        on: Held-out data to measure the losses on: `(x, y)` or `(x, y, sample_weight)`, arrays or
            dicts of arrays, a batched tf.data.Dataset, or a function that gives one of these; by
            default the training batch. Arrays are cut into batches of the size of the training
            batch, in an order of their own; a dataset is repeated as it is, without its batches of
            other sizes. Configurations and saved models do not hold the data: a loaded model has to
            be compiled again before it is trained. The settings of a run or a study hold a checksum
            of arrays, so that it does not go on with others; other datasets or functions they
            cannot tell.

    Raises:
        ValueError: If an option is not what it should be.

    Example:

    ```python
    model.compile("adam", loss, affinity=tag_keras.LookaheadAffinity(every=10))

    held_out = tag_keras.LookaheadAffinity(every=10, on=(x_validation, y_validation))
    ```
    """

    on: Any = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_data(self.on)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LookaheadAffinity) or type(other) is not type(self):
            return NotImplemented
        # By identity, because arrays would be compared entry by entry.
        same = self.on is other.on or (isinstance(self.on, str) and isinstance(other.on, str))
        return same and bool(super().__eq__(other))

    __hash__ = _OfSteps.__hash__

    def target_data(self) -> Any:
        return self.on

    def settings(self) -> dict[str, Any]:
        return {**self.get_config(), "on": None if self.on is None else describe_data(self.on)}

    def get_config(self) -> dict[str, Any]:
        placeholder = None if self.on is None else PLACEHOLDER
        return dataclasses.asdict(dataclasses.replace(self, on=placeholder))

    def measure(self, probe: Probe) -> tf.Tensor:
        return lookahead_affinity(
            probe.exact_losses(),
            probe.gradients,
            lambda row: self._step(probe, row),
            probe.loss_sums,
            self._zero_step(probe),
        )


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class FirstOrderAffinity(_OfSteps):
    """Inter-task affinity to first order: cheaper than `LookaheadAffinity`, and close to it.

    The loss after a step is not measured but taken from the gradients (Fifty et al. 2021, arXiv
    2109.04617, section 3):

        Z[i, j] = -<g_j, step for i> / L_j

    with the step that the optimizer would make on the shared variables from the gradient of L_i
    alone; for plain gradient descent, `learning_rate * <g_i, g_j> / L_j`. It leaves out how the
    losses curve along the step, and so says too much of large steps. There are no forward passes.

    Args:
        every: As in `LookaheadAffinity`.
        update: As in `LookaheadAffinity`.
        baseline: As in `LookaheadAffinity`.

    Raises:
        ValueError: If an option is not what it should be.

    Example:

    ```python
    model.compile("sgd", loss, affinity=tag_keras.FirstOrderAffinity(every=10))
    ```
    """

    def measure(self, probe: Probe) -> tf.Tensor:
        values = [tf.convert_to_tensor(variable) for variable in probe.variables]
        return first_order_affinity(
            probe.losses,
            probe.gradients,
            lambda row: self._step(probe, row),
            self._zero_step(probe) or values,
        )


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class CosineAffinity(AffinityEstimator):
    """Cosine similarity of the tasks' gradients (CS of Fifty et al. 2021, arXiv 2109.04617).

        Z[i, j] = <g_i, g_j> / (|g_i| |g_j|)

    It is symmetric, and tells whether two tasks pull the shared variables the same way, not how
    much that changes the losses. Where a gradient is 0, there is no value.

    Args:
        every: As in `LookaheadAffinity`.
        kernels_only: Whether to look only at shared variables with two or more axes, as the
            paper's code does, and not at biases and normalisations.

    Raises:
        ValueError: If an option is not what it should be.

    Example:

    ```python
    model.compile("adam", loss, affinity=tag_keras.CosineAffinity(every=10))
    ```
    """

    kernels_only: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("kernels_only", self.kernels_only)

    def measure(self, probe: Probe) -> tf.Tensor:
        chosen = [not self.kernels_only or len(variable.shape) > 1 for variable in probe.variables]
        if not any(chosen):
            raise ValueError(
                "`CosineAffinity` found no shared variable with two or more axes: measure with "
                "`CosineAffinity(kernels_only=False)`."
            )
        return cosine_affinity(select_variables(probe.gradients, chosen))
