"""Predicts what each group of tasks would lose, out of one joint network: no group is trained."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tag_keras.decision.group_losses import MOST_TASKS
from tag_keras.decision.prediction import LossExpansion, predict_losses
from tag_keras.loss_weighting.base import weights_batches
from tag_keras.loss_weighting.random_weights import RLW
from tag_keras.model import MultiTaskModel
from tag_keras.selection.network_table import NetworkTable
from tag_keras.utils.checks import check, check_count, check_number, check_whole
from tag_keras.utils.labelled_data import check_data

_BATCH_SIZE = 500


def predict_group_losses(
    model: MultiTaskModel,
    train: Any,
    validation: Any,
    ridge: float = 0.1,
    dimension: int = 200,
    seed: int = 0,
) -> NetworkTable:
    """Predicts the validation losses of every group of tasks, by a linearised joint network.

    Around the trained joint network, the outputs are taken to be linear in the weights, and the
    losses quadratic in the outputs (Gauss-Newton). Then the network of any group is one step away:
    the one that minimises the sum of its training losses and a ridge penalty, in a random subspace
    of the weights. All 2**T - 1 groups take one pass over the data for each direction of the
    subspace. (Linearised networks and random projections as in TRAK, Park et al. 2023, arXiv
    2303.14186; predicting groups by them is this package's own.)

    On `benchmarks.truth`, predicted losses rank groups about as well as training each group once,
    and much better than affinities do. They do not tell how large a gain is, and tell single tasks
    worse than groups: measure these. Take several joint networks that differ in their seeds, and
    let `select_predicted_groups` say whether groups pay.

    Args:
        model: Compiled and trained model of all tasks, up to 15, whose layers and losses can be
            differentiated twice.
        train: Training data: `(x, y)` or `(x, y, sample_weight)`, or a finite dataset of batches. A
            random part of a few thousand examples is enough.
        validation: Validation data, likewise.
        ridge: Strength of the penalty, relative to the mean curvature of the joint training loss.
            Small values let groups move farther from the joint network.
        dimension: Number of random directions. The time grows with it.
        seed: Seed of the directions.

    Returns:
        A table of the predicted loss of each task in each group.

    Raises:
        ValueError: If an argument is wrong, the model is not compiled or not built, or there are
            no data.

    Example:

    ```python
    tables = [tag_keras.predict_group_losses(one, (x, y), (x_val, y_val)) for one in joint_models]
    grouping = tag_keras.select_predicted_groups(tables, num_groups=3)
    ```
    """
    check(
        isinstance(model, MultiTaskModel) and model.built and model.compiled,
        "`model` should be a MultiTaskModel that is compiled and trained",
        model=model,
    )
    check(
        not (weights_batches(model.loss_weighting) or isinstance(model.loss_weighting, RLW)),
        "`model` should have weights of its losses that do not depend on the batch or on chance",
        loss_weighting=model.loss_weighting,
    )
    number = len(model.tasks)
    check(number <= MOST_TASKS, f"`model` should have up to {MOST_TASKS} tasks", num_tasks=number)
    check_number("ridge", ridge, "a positive number", lambda value: value > 0)
    check_count("dimension", dimension)
    check_whole("seed", seed)
    for name, data in {"`train`": train, "`validation`": validation}.items():
        check_data(name, data, model.tasks)
    expand = _Expansion(model, dimension, seed)
    expanded, held_out = expand(train), expand(validation)
    weights = np.array([float(tf.convert_to_tensor(one)) for one in model.task_losses.factors()])
    weighted = LossExpansion(
        weights * expanded.losses,
        weights[:, None] * expanded.gradients,
        weights[:, None, None] * expanded.curvatures,
    )
    return predict_losses(model.tasks, weighted, held_out, ridge)


class _Expansion:
    """Expands the losses of a model along random directions of its weights."""

    def __init__(self, model: MultiTaskModel, dimension: int, seed: int) -> None:
        self._model, self._dimension, self._seed = model, dimension, seed
        self._variables = [variable.value for variable in model.trainable_variables]
        self._derivatives = tf.function(self._derivatives_of_batch, autograph=False)

    def __call__(self, data: Any) -> LossExpansion:
        number, size = len(self._model.tasks), self._dimension
        sums, divisors = np.zeros((2, number))
        gradients, curvatures = np.zeros((number, size)), np.zeros((number, size, size))
        for batch in _batches(data):
            found = [self._derivatives(batch, direction) for direction in self._directions()]
            sums += np.array(found[0][0], np.float64)
            divisors += np.array(found[0][1], np.float64)
            for task in range(number):
                slope = np.array(found[0][2][task], np.float64).ravel()
                # Changes of outputs and of slopes along the directions, arrays (d, n).
                outputs, slopes = (
                    np.array([np.ravel(one[part][task]) for one in found], np.float64)
                    for part in (3, 4)
                )
                gradients[task] += outputs @ slope
                curvatures[task] += outputs @ slopes.T
        check(bool((divisors > 0).all()), "data should have labels of every task", labels=divisors)
        curvatures = (curvatures + curvatures.swapaxes(1, 2)) / 2
        return LossExpansion(
            sums / divisors,
            gradients / divisors[:, None],
            curvatures / divisors[:, None, None],
        )

    def _directions(self) -> Iterator[list[tf.Tensor]]:
        for index in range(self._dimension):
            random = np.random.default_rng([self._seed, index])
            yield [
                tf.constant(random.standard_normal(one.shape), one.dtype) for one in self._variables
            ]

    def _derivatives_of_batch(self, batch: Any, direction: list[tf.Tensor]) -> tuple[Any, ...]:
        """Sums of losses and their divisors; slopes by output, and how these and outputs change."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.autodiff.ForwardAccumulator(self._variables, direction) as forward:
            outputs = self._model(x, training=False)
            predictions = [outputs[task] for task in self._model.tasks]
            with tf.GradientTape() as tape:
                tape.watch(predictions)
                found = self._model.task_losses.sums(y, outputs, sample_weight)
                total = tf.add_n([tf.cast(one, "float32") for one in found.sums])
            slopes = tape.gradient(total, predictions)
        changes = [
            [forward.jvp(one, tf.UnconnectedGradients.ZERO) for one in part]
            for part in (predictions, slopes)
        ]
        return tf.stack(found.sums), found.divisors, slopes, *changes


def _batches(data: Any) -> Any:
    if hasattr(data, "element_spec"):
        return data
    return tf.data.Dataset.from_tensor_slices(tuple(data)).batch(_BATCH_SIZE)
