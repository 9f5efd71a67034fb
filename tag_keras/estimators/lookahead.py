"""Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, map_tasks
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.estimators.base import Probe, Step, StepEstimator, nan_unless_positive
from tag_keras.estimators.held_out import PLACEHOLDER, check_data, describe_data


def lookahead_affinity(
    losses: tf.Tensor,
    gradients: Gradients,
    step: Step,
    loss_sums: Callable[[list[tf.Tensor]], tf.Tensor],
    zero_step: Sequence[tf.Tensor] | None = None,
) -> tf.Tensor:
    """Affinity by lookahead: `Z[i, j] = 1 - L_j(values after the step for task i) / L_j`.

    Args:
        losses: Float32 tensor (T,): the losses L_j at the current values.
        gradients: Gradients of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        loss_sums: Function from P values of the shared variables to a float32 tensor (2, T): sums
            and divisors of the losses on this replica.
        zero_step: Values after a step with zero gradients, whose Z is subtracted from every row;
            `None` to subtract nothing.

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
    return nan_unless_positive(losses, values)


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True, eq=False)
class LookaheadAffinity(StepEstimator):
    """Inter-task affinity by lookahead (TAG; Fifty et al. 2021, arXiv 2109.04617, eq. 1).

    For every source task i, a probe takes the step that the optimizer would make on the shared
    variables from the gradient of L_i alone. It measures every target's loss after the step, on the
    same batch and with unchanged heads:

        Z[i, j] = 1 - L_j(shared variables after the step for i) / L_j(shared variables)

    A positive Z means that a step for the source lowers the loss of the target. Batches of less
    than half the usual size are not measured. With mixed precision the losses are computed in
    float32, as lower precision does not resolve how a step changes them.

    A probe leaves no trace: weights, moving statistics, the state of layers, losses and optimizer,
    and random generators are as without it. It does not see state of Python, nor a `tf.Variable`
    where a layer or a loss only runs eagerly. `tf.random.uniform` and its kind, without a
    generator, draw new numbers in each lookahead, which adds noise to Z, and other numbers in a
    training that measures than in one that does not.

    With held-out data, the steps come from the training batch and all losses of Z from a held-out
    batch, with dropout and BatchNorm as in training. Z then tells what generalises and not what
    fits. This costs one more forward pass.

    A probe makes one backward pass and one forward pass per task: about 8 plain training steps for
    nine tasks. Take it by default. To rank sources with Adam, `update="sgd"` needs fewer probes,
    because Adam's step is mostly momentum.

    Args:
        every: Probe one step of the optimizer in `every`, beginning with the first. The paper's
            code uses 10, its notebook 1. If a step accumulates the gradients of several batches,
            the first batch is probed. By default, `overhead` decides.
        overhead: The share of the other steps' time that probes may take, without `every`, as
            measured at the first three probes. The probed steps then differ from run to run.
        update: `"optimizer"` takes the step of the compiled optimizer (momentum, adaptive rates,
            clipping, weight decay); `"sgd"` takes `-learning_rate * gradient`, the paper's
            equation.
        baseline: Whether to subtract, for each target, the Z of a step with a zero gradient. The
            rest is due to the source's gradient alone, without the momentum of earlier steps.
        on: Held-out data to measure the losses on: `(x, y)` or `(x, y, sample_weight)`, as arrays
            or dicts of arrays, a batched tf.data.Dataset, or a function that gives one of these; by
            default the training batch. Arrays are shuffled and cut into batches of the training's
            size. A dataset is repeated as it is, without its batches of other sizes.
            Configurations and saved models do not hold the data: compile a loaded model again
            before you train it. A run or a study keeps a checksum of arrays, and does not go on
            with others; it cannot tell one dataset or function from another.

    Raises:
        ValueError: If an option is not valid.

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
        # Data are compared by identity, because arrays would be compared entry by entry.
        same = self.on is other.on or (isinstance(self.on, str) and isinstance(other.on, str))
        return same and bool(super().__eq__(other))

    __hash__ = StepEstimator.__hash__

    def target_data(self) -> Any:
        return self.on

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "on": None if self.on is None else describe_data(self.on)}

    def get_config(self) -> dict[str, Any]:
        placeholder = None if self.on is None else PLACEHOLDER
        return dataclasses.asdict(dataclasses.replace(self, on=placeholder))

    def measure(self, probe: Probe) -> tf.Tensor:
        return lookahead_affinity(
            probe.exact_losses(),
            probe.gradients,
            lambda row: self.after_step(probe, row),
            probe.loss_sums,
            self.after_zero_step(probe),
        )
