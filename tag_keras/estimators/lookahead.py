"""Estimators of inter-task affinity: what `compile(affinity=...)` takes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, map_tasks
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.estimators.base import Probe, Step, _OfSteps, _where_positive
from tag_keras.estimators.held_out import PLACEHOLDER, check_data, describe_data


def lookahead_affinity(
    losses: tf.Tensor,
    gradients: Gradients,
    step: Step,
    loss_sums: Callable[[list[tf.Tensor]], tf.Tensor],
    zero_step: Sequence[tf.Tensor] | None = None,
) -> tf.Tensor:
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

        Z[i, j] = 1 - L_j(values after the step for task i) / L_j

    Args:
        losses: Float32 tensor (T,): the losses L_j at the current values.
        gradients: Gradients of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        loss_sums: Gives for values of the shared variables a float32 tensor (2, T): sums and
            divisors of the losses. Those of all replicas are added up before they are divided,
            because the ratio is one of losses of the whole batch.
        zero_step: The values after a step with zero gradients, if the Z of that step is to be
            subtracted from every row.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    sums = map_tasks(lambda row: loss_sums(step(row)), gradients)
    if zero_step is not None:
        sums = tf.concat([sums, loss_sums(list(zero_step))[None]], axis=0)
    (sums,) = sum_over_replicas([sums])
    values = 1.0 - tf.math.divide_no_nan(sums[:, 0], sums[:, 1]) / losses
    if zero_step is not None:
        values = values[:-1] - values[-1]
    return _where_positive(losses, values)


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
