"""Inter-task affinity to first order (Fifty et al. 2021, arXiv 2109.04617, section 3)."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, map_tasks, stack_columns
from tag_keras.estimators.base import Probe, Step, StepEstimator, nan_unless_positive


def first_order_affinity(
    losses: tf.Tensor, gradients: Gradients, step: Step, values: Sequence[tf.Tensor]
) -> tf.Tensor:
    """Affinity to first order: `Z[i, j] = -<g_j, values after the step for i - values> / L_j`.

    Args:
        losses: Float32 tensor (T,): the losses L_j.
        gradients: Gradients g_i of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        values: P tensors to compare with: the current values, or the values after a step with zero
            gradients.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    columns = stack_columns(gradients)

    def gains(row: Sequence[tf.Tensor]) -> tf.Tensor:
        moves = [after - before for after, before in zip(step(row), values, strict=True)]
        products = [
            tf.linalg.matvec(column, tf.reshape(move, [-1]))
            for column, move in zip(columns, moves, strict=True)
        ]
        return -tf.add_n([tf.cast(one, "float32") for one in products])

    return nan_unless_positive(losses, map_tasks(gains, gradients) / losses)


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class FirstOrderAffinity(StepEstimator):
    """Inter-task affinity to first order (Fifty et al. 2021, arXiv 2109.04617, section 3).

    This Taylor expansion of `LookaheadAffinity` is cheaper: it needs no forward passes.

        Z[i, j] = -<g_j, step for i> / L_j

    The step for i is the step that the optimizer would make on the shared variables from the
    gradient of L_i alone. With plain gradient descent, Z is `learning_rate * <g_i, g_j> / L_j`. The
    formula neglects how the losses curve along the step, so it exaggerates the gain of large steps.

    A probe makes one backward pass per task: about 6 plain training steps for nine tasks, where a
    lookahead takes 8. Take it where forward passes are dear, and steps small.

    Args:
        every: Probe one step of the optimizer in `every`, beginning with the first. If a step
            accumulates the gradients of several batches, the first batch is probed. By default,
            `overhead` decides.
        overhead: The share of the other steps' time that probes may take, without `every`, as
            measured at the first three probes. The probed steps then differ from run to run.
        update: `"optimizer"` takes the step of the compiled optimizer (momentum, adaptive rates,
            clipping, weight decay); `"sgd"` takes `-learning_rate * gradient`.
        baseline: Whether to subtract, for each target, the Z of a step with a zero gradient. The
            rest is due to the source's gradient alone, without the momentum of earlier steps.

    Raises:
        ValueError: If an option is not valid.

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
            lambda row: self.after_step(probe, row),
            self.after_zero_step(probe) or values,
        )
