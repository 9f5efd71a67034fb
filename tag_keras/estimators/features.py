"""Inter-task affinity to first order in the features that the encoder gives to all heads."""

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from tag_keras.backend.optimizers import inner_optimizer
from tag_keras.backend.replicas import sum_over_replicas
from tag_keras.estimators.base import AffinityEstimator, Probe, nan_unless_positive


def feature_affinity(
    losses: tf.Tensor, gradients: tf.Tensor, learning_rate: tf.Tensor, batch_size: tf.Tensor
) -> tf.Tensor:
    """Affinity to first order in the features: `Z[i, j] = eta B <dL_i/dh, dL_j/dh> / L_j`.

    Args:
        losses: Float32 tensor (T,): the losses L_j on the whole batch.
        gradients: Float32 tensor (T, N): gradients of the T losses with respect to the features h
            of this replica's examples.
        learning_rate: Scalar eta.
        batch_size: Float32 scalar B: number of examples in the whole batch.

    Returns:
        Float32 tensor (T, T), [source, target]. NaN where a loss is not positive or not finite.
    """
    # Those of single examples do not become small with the batch, so their squares do not vanish.
    of_examples = batch_size * gradients
    (products,) = sum_over_replicas([tf.matmul(of_examples, of_examples, transpose_b=True)])
    rate = tf.cast(learning_rate, "float32")
    return nan_unless_positive(losses, rate * products / batch_size / losses)


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class FeatureAffinity(AffinityEstimator):
    """Inter-task affinity to first order in the shared features, without the encoder.

    The features h are the one tensor that the encoder gives to all heads. For every source task i,
    each of the B examples of a batch takes a step of its features against the gradient of its own
    loss. To first order, this lowers the loss of the target j by the share

        Z[i, j] = learning_rate * B * <dL_i/dh, dL_j/dh> / L_j

    The product is over all entries of the features of the batch, and the losses L are means over
    the B examples. This is what `FirstOrderAffinity(update="sgd")` measures if the features of each
    example were the variables. It ignores the Jacobian of the encoder, so it neither sees that a
    step of the encoder moves the features of all examples together, nor the momentum of the
    optimizer. Gradients with respect to the shared features stand for those with respect to the
    encoder as in MGDA-UB (Sener and Koltun 2018, arXiv 1810.04650).

    A probe makes a backward pass through each head alone and none through the encoder. Its values
    are not those of a lookahead, and on another scale: compare them with each other only.

    A label that is missing counts as a gradient of 0: two tasks without a common example have the
    affinity 0.

    The encoder gives one tensor. Of a Functional model that gives a dict by task, as with
    `from_functional`, it is the last tensor that all tasks are computed from; other models, such as
    MTAN or MMoE, have none, and `compile` raises an error.

    Args:
        every: Probe one step of the optimizer in `every`, beginning with the first. If a step
            accumulates the gradients of several batches, the first batch is probed. By default,
            `overhead` decides.
        overhead: The share of the other steps' time that probes may take, without `every`, as
            measured at the first three probes. The probed steps then differ from run to run.

    Raises:
        ValueError: If an option is not valid.

    Example:

    ```python
    model.compile("adam", loss, affinity=tag_keras.FeatureAffinity(every=1))
    ```
    """

    on_features: ClassVar[bool] = True

    def measure(self, probe: Probe) -> tf.Tensor:
        rate = tf.convert_to_tensor(inner_optimizer(probe.optimizer).learning_rate)
        return feature_affinity(probe.losses, probe.feature_gradients, rate, probe.batch_size)
