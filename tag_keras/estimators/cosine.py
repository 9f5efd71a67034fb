"""Cosine similarity of the tasks' gradients (CS; Fifty et al. 2021, arXiv 2109.04617)."""

import dataclasses

import keras
import tensorflow as tf

from tag_keras.backend.gradients import Gradients, select_variables, stack_columns
from tag_keras.estimators.base import AffinityEstimator, Probe
from tag_keras.utils.checks import check_bool


def cosine_affinity(gradients: Gradients) -> tf.Tensor:
    """Cosine similarity of each two gradients: `Z[i, j] = <g_i, g_j> / (|g_i| |g_j|)`.

    Args:
        gradients: Gradients g_i of the T losses with respect to P variables.

    Returns:
        Float32 tensor (T, T), symmetric, in [-1, 1]. NaN where a gradient is 0.
    """
    columns = [tf.cast(column, "float32") for column in stack_columns(gradients)]
    # Each gradient is divided by its largest entry, so that squares of small ones do not vanish.
    largest = tf.reduce_max([tf.reduce_max(tf.abs(column), axis=1) for column in columns], axis=0)
    scaled = [tf.math.divide_no_nan(column, largest[:, None]) for column in columns]
    gram = tf.add_n([tf.matmul(column, column, transpose_b=True) for column in scaled])
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    products = norms[:, None] * norms[None, :]
    cosines = tf.clip_by_value(tf.math.divide_no_nan(gram, products), -1.0, 1.0)
    return tf.where(products > 0, cosines, float("nan"))


@keras.saving.register_keras_serializable(package="tag_keras")
@dataclasses.dataclass(frozen=True)
class CosineAffinity(AffinityEstimator):
    """Cosine similarity of the tasks' gradients (CS of Fifty et al. 2021, arXiv 2109.04617).

        Z[i, j] = <g_i, g_j> / (|g_i| |g_j|)

    It is symmetric, and tells whether two tasks pull the shared variables the same way, but not how
    much that changes the losses. There is no value where a gradient is 0.

    A probe costs what one of `FirstOrderAffinity` does. Take it as a yardstick from the literature:
    as it has no unit of loss, it does not say how much two tasks help each other.

    Args:
        every: Probe one step of the optimizer in `every`, beginning with the first. If a step
            accumulates the gradients of several batches, the first batch is probed. By default,
            `overhead` decides.
        overhead: The share of the other steps' time that probes may take, without `every`, as
            measured at the first three probes. The probed steps then differ from run to run.
        kernels_only: Whether to leave out variables with fewer than two axes (biases,
            normalisations), as the paper's code does.

    Raises:
        ValueError: If an option is not valid.

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
