"""Metrics by task over the labels present."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tag_keras.backend.layers import averaged_function
from tag_keras.multitask.missing_labels import (
    by_shapes,
    is_mean_of_elements,
    is_of_keras,
    labelled_values,
    mask_of,
    of_same_rank,
    present,
    reduced_axes,
    with_rank,
    without_nan,
)
from tag_keras.utils.text import unused

# Each task has two outputs, one for `metrics`, and with this prefix one for `weighted_metrics`. All
# metrics are weighted metrics for Keras.
_WEIGHTED = "weighted\n"
# These take a weight for every element of a prediction.
_BY_ELEMENT = (
    keras.metrics.AUC,
    keras.metrics.BinaryIoU,
    keras.metrics.FalseNegatives,
    keras.metrics.FalsePositives,
    keras.metrics.Precision,
    keras.metrics.PrecisionAtRecall,
    keras.metrics.Recall,
    keras.metrics.RecallAtPrecision,
    keras.metrics.RootMeanSquaredError,
    keras.metrics.SensitivityAtSpecificity,
    keras.metrics.SpecificityAtSensitivity,
    keras.metrics.TrueNegatives,
    keras.metrics.TruePositives,
)


def by_output(
    metrics: Mapping[str, Any] | None, weighted_metrics: Mapping[str, Any] | None
) -> dict[str, list[Any]] | None:
    """Metrics by output, which Keras gets as its `weighted_metrics`; `None` if there are none.

    They have the names that Keras gives to the metrics of one output: a second `mae` is `mae_1`,
    and a weighted metric is `weighted_mae` if an unweighted one is `mae`.
    """
    lists: dict[str, list[Any]] = {}
    names: dict[str, list[str]] = {}
    for prefix, by_task in (("", metrics or {}), (_WEIGHTED, weighted_metrics or {})):
        for task, given in by_task.items():
            for one in given if isinstance(given, list | tuple) else [given]:
                if one is None:
                    continue
                metric = _MetricOfLabels(one, is_weighted=bool(prefix))
                taken = names.setdefault(task, [])
                metric.name = _new_name(metric.name, taken, is_weighted=bool(prefix))
                taken.append(metric.name)
                lists.setdefault(prefix + task, []).append(metric)
    return lists or None


def outputs(
    labels: Mapping[str, Any], predictions: Mapping[str, tf.Tensor], weights: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Turns labels, predictions and sample weights by task into dicts by output."""

    def twice(by_task: Mapping[str, Any]) -> dict[str, Any]:
        return {prefix + task: by_task[task] for task in labels for prefix in ("", _WEIGHTED)}

    return twice(labels), twice(predictions), twice(weights)


def logs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Renames logs as Keras does: to `<task>_<metric>`."""
    return {name.removeprefix(_WEIGHTED): value for name, value in results.items()}


class _MetricOfLabels(keras.metrics.Metric):  # type: ignore[misc]
    """Passes the labels present to a metric. Without any, its result is NaN: 0 might be the best.

    Args:
        metric: A metric of Keras, its name or class, or a function of labels and predictions.
        is_weighted: Whether sample weights weigh the labels. A label with the weight 0 is missing
            also if they do not.
    """

    def __init__(self, metric: Any, is_weighted: bool) -> None:
        name = metric if isinstance(metric, str) else None
        is_accuracy = name is not None and name.lower() in ("accuracy", "acc")
        metric = _accuracy if is_accuracy else keras.metrics.get(metric)
        if not isinstance(metric, keras.metrics.Metric):
            name = name or _name_by_keras(metric)
            metric = keras.metrics.MeanMetricWrapper(metric, name=name)
        super().__init__(name=name or metric.name)
        self._metric, self._is_weighted = metric, is_weighted
        self._labels = self.add_variable((), "zeros", name="labels")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels = tf.convert_to_tensor(y_true)
        if labels.shape.rank == y_pred.shape.rank == 1:
            # From two vectors a metric would compute one value, not one per example.
            labels, y_pred = labels[:, None], y_pred[:, None]
        if (averaged := averaged_function(self._metric)) is not None:
            self._average(*averaged, labels, y_pred, sample_weight)
        else:
            self._update(labels, y_pred, sample_weight)

    def _average(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        labels: tf.Tensor,
        predictions: tf.Tensor,
        sample_weight: Any,
    ) -> None:
        """Adds the values of a function to the mean."""
        conditions = [sample_weight, mask_of(predictions)]
        if is_of_keras(function):
            labels, predictions = of_same_rank(labels, predictions, function)
        if is_mean_of_elements(function, options, labels, predictions):
            labels, predictions = labels[..., None], predictions[..., None]
        call = functools.partial(function, **options)
        axes = reduced_axes(function, options, labels, predictions)
        values, known = labelled_values(call, labels, predictions, conditions, axes=axes)
        weights = None
        if values.shape.rank > 0:
            weights = self._weights(known, sample_weight)
        else:
            # A mean that the function takes itself. The metric is the mean over the batches.
            self._labels.assign_add(1.0)
        keras.metrics.Mean.update_state(self._metric, values, weights)

    def _update(self, labels: tf.Tensor, predictions: tf.Tensor, sample_weight: Any) -> None:
        """Updates a metric that gets labels and predictions, not values."""
        shape_of = predictions[..., 0] if predictions.shape.rank > 1 else predictions
        if isinstance(self._metric, _BY_ELEMENT):
            labels, predictions = of_same_rank(labels, predictions)
            if labels.shape.rank == predictions.shape.rank:
                shape_of = predictions
        known = present(labels, shape_of, [sample_weight])
        weights = self._weights(known, sample_weight)
        if shape_of is predictions and getattr(self._metric, "class_id", None) is not None:
            weights = weights[..., self._metric.class_id]
        if isinstance(self._metric, keras.metrics.IoU) and not self._is_weighted:
            # It counts in integers, and warns of other weights.
            weights = tf.cast(weights, self._metric.dtype)
        # Without missing labels a metric may do what it likes, also refuse weights.
        has_all = not labels.dtype.is_floating and sample_weight is None
        options = {} if has_all else {"sample_weight": weights}
        self._metric.update_state(without_nan(labels), predictions, **options)

    def _weights(self, known: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """Weights of values: 0 without a label."""
        self._labels.assign_add(tf.reduce_sum(tf.cast(known, self._labels.dtype)))
        weights = tf.cast(known, "float32")
        if sample_weight is None or not self._is_weighted:
            return weights
        return weights * with_rank(tf.cast(sample_weight, "float32"), known.shape.rank)

    def reset_state(self) -> None:
        self._labels.assign(0.0)
        self._metric.reset_state()

    def result(self) -> Any:
        def or_nan(result: Any) -> Any:
            result = tf.convert_to_tensor(result)
            if not result.dtype.is_floating:
                return result
            return tf.where(self._labels > 0, result, tf.constant(float("nan"), result.dtype))

        return keras.tree.map_structure(or_nan, self._metric.result())


def _name_by_keras(function: Callable[..., Any]) -> str:
    """The name that Keras gives to a function as a metric."""
    if name := getattr(function, "name", None):
        return str(name)
    name = re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


def _new_name(name: str, taken: list[str], is_weighted: bool) -> str:
    """The name that Keras gives to a metric whose name may be taken."""
    return unused(f"weighted_{name}" if name in taken and is_weighted else name, taken)


def _accuracy(labels: tf.Tensor, predictions: tf.Tensor) -> tf.Tensor:
    return by_shapes(
        labels,
        predictions,
        keras.metrics.binary_accuracy,
        keras.metrics.sparse_categorical_accuracy,
        keras.metrics.categorical_accuracy,
    )
