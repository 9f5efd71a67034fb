"""Estimators of inter-task affinity: what `compile(affinity=...)` takes."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, map_tasks, stack_columns
from tag_keras.estimators.base import Probe, Step, _OfSteps, _where_positive


def first_order_affinity(
    losses: tf.Tensor,
    gradients: Gradients,
    step: Step,
    values: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Inter-task affinity to first order in the step: the Taylor expansion of the lookahead.

        Z[i, j] = -<g_j, values after the step for task i - values> / L_j

    For a step of plain gradient descent this is `learning_rate * <g_i, g_j> / L_j` (Fifty et al.
    2021, arXiv 2109.04617, section 3). It needs no forward pass.

    Args:
        losses: Float32 tensor (T,): the losses L_j.
        gradients: Gradients g_i of the T losses with respect to the P shared variables.
        step: Gives the values of the shared variables after a step with P gradients.
        values: P tensors that the steps are measured from: the current values, or those after a
            step with zero gradients.

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

    return _where_positive(losses, map_tasks(gains, gradients) / losses)


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
