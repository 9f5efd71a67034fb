"""Metrics by task, over the labels that are present."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tag_keras.multitask.missing_labels import present, with_rank, without_nan

# To Keras all metrics are weighted ones, at three outputs by task: those that are not weighted by
# `sample_weight` are weighted by 1 where there is a label and by 0 where there is none. These are
# what the outputs of the weighted metrics, and of functions among the others, are called.
_WEIGHTED, _FUNCTION = "weighted\n", "function\n"


def by_output(
    metrics: Mapping[str, Any] | None, weighted_metrics: Mapping[str, Any] | None
) -> dict[str, list[Any]] | None:
    """What Keras gets as its weighted metrics; `None` for none."""
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
    """Labels, predictions and weights by output, from those by task."""
    rows: dict[str, tuple[Any, Any, Any]] = {}
    for task in labels:
        label, prediction = tf.convert_to_tensor(labels[task]), predictions[task]
        if label.shape.rank == prediction.shape.rank == 1:
            # Of two vectors, a metric would give one value, not one by example.
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
    first, second, third = ({name: row[i] for name, row in rows.items()} for i in range(3))
    return first, second, third


def logs(results: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The logs with the names that Keras gives: `<task>_<metric>`, and `<task>_weighted_<metric>`
    for a metric that is asked for in both ways."""
    renamed: dict[str, Any] = {}
    for name, value in results.items():
        plain = name.removeprefix(_FUNCTION).removeprefix(_WEIGHTED)
        if plain in renamed:
            # The longest, because a task may be named "a" and another one "a_b".
            task = max((one for one in tasks if plain.startswith(f"{one}_")), key=len)
            plain = f"{task}_weighted_{plain.removeprefix(f'{task}_')}"
        renamed[plain] = value
    return renamed


class _FunctionMetric(keras.metrics.Mean):  # type: ignore[misc]
    """Mean of what a function gives for labels and predictions, over the labels present.

    A function that takes the mean by itself has to deal with missing labels by itself, as a loss
    has, and is averaged over the batches.
    """

    def __init__(self, function: Callable[..., tf.Tensor]) -> None:
        # As Keras calls it.
        name = getattr(function, "__name__", type(function).__name__)
        super().__init__(name=getattr(function, "name", name.strip("<>")))
        self._function = function

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        values = tf.convert_to_tensor(self._function(without_nan(y_true), y_pred))
        if values.shape.rank == 0:
            values, sample_weight = self._function(y_true, y_pred), None
        return super().update_state(values, sample_weight)


def _one_by_example(predictions: tf.Tensor) -> tf.Tensor:
    """A tensor with one value where metrics give one: the last axis of predictions left out."""
    return predictions[..., 0] if predictions.shape.rank > 1 else predictions
