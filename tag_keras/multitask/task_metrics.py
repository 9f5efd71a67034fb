"""Metrics by task over the labels present, as weighted metrics of Keras."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.missing_labels import present, with_rank, without_nan

# Keras gets every metric as a weighted metric. An unweighted metric has the weight 1 where there is
# a label, and 0 elsewhere. Each task has three outputs: for unweighted metrics, and with these
# prefixes for weighted metrics and for unweighted functions.
_WEIGHTED, _FUNCTION = "weighted\n", "function\n"


def by_output(
    metrics: Mapping[str, Any] | None, weighted_metrics: Mapping[str, Any] | None
) -> dict[str, list[Any]] | None:
    """Metrics by output, which Keras gets as its `weighted_metrics`; `None` if there are none."""
    lists: dict[str, list[Any]] = {}
    for prefix, by_task in (("", metrics or {}), (_WEIGHTED, weighted_metrics or {})):
        for task, given in by_task.items():
            for one in given if isinstance(given, list | tuple) else [given]:
                is_function = callable(one) and not isinstance(one, keras.metrics.Metric | type)
                if is_function and not prefix:
                    lists.setdefault(_FUNCTION + task, []).append(_FunctionMetric(one))
                elif one is not None:
                    lists.setdefault(prefix + task, []).append(one)
    return lists or None


def outputs(
    labels: Mapping[str, Any], predictions: Mapping[str, tf.Tensor], weights: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Turns labels, predictions and sample weights by task into dicts by output."""
    rows: dict[str, tuple[Any, Any, Any]] = {}
    for task in labels:
        label, prediction = tf.convert_to_tensor(labels[task]), predictions[task]
        if label.shape.rank == prediction.shape.rank == 1:
            # From two vectors a metric would compute one value, not one per example.
            label, prediction = label[:, None], prediction[:, None]
        known: Any = None
        if label.dtype.is_floating or weights[task] is not None:
            known = present(label, _one_by_example(prediction), [weights[task]])
            known = tf.cast(known, "float32")
        weight = known
        if weights[task] is not None:
            weight = known * with_rank(tf.cast(weights[task], "float32"), known.shape.rank)
        rows[task] = without_nan(label), prediction, known
        rows[_FUNCTION + task] = label, prediction, known
        rows[_WEIGHTED + task] = without_nan(label), prediction, weight
    return (
        {name: label for name, (label, _, _) in rows.items()},
        {name: prediction for name, (_, prediction, _) in rows.items()},
        {name: weight for name, (_, _, weight) in rows.items()},
    )


def logs(results: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """Renames logs as Keras does: to `<task>_<metric>`.

    If a metric is both weighted and unweighted, the weighted one is `<task>_weighted_<metric>`.
    """
    renamed: dict[str, Any] = {}
    for name, value in results.items():
        plain = name.removeprefix(_FUNCTION).removeprefix(_WEIGHTED)
        if plain in renamed:
            # The longest name that fits: one task may be "a" and another one "a_b".
            task = max((one for one in tasks if plain.startswith(f"{one}_")), key=len)
            plain = f"{task}_weighted_{plain.removeprefix(f'{task}_')}"
        renamed[plain] = value
    return renamed


class _FunctionMetric(keras.metrics.Mean):  # type: ignore[misc]
    """Mean of a function of labels and predictions over the labels present.

    A function that takes the mean itself has to handle missing labels itself, as a loss does; its
    values are averaged over the batches.
    """

    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        # The name that Keras gives to it.
        name = getattr(function, "__name__", type(function).__name__)
        super().__init__(name=getattr(function, "name", name.strip("<>")))
        self._function = function

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        values = tf.convert_to_tensor(self._function(without_nan(y_true), y_pred))
        if values.shape.rank == 0:
            values, sample_weight = self._function(y_true, y_pred), None
        return super().update_state(values, sample_weight)


def _one_by_example(predictions: tf.Tensor) -> tf.Tensor:
    """Predictions without their last axis: a tensor of the shape of a metric's values."""
    return predictions[..., 0] if predictions.shape.rank > 1 else predictions
