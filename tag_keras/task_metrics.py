"""Metrics by task, over the labels that are present."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tag_keras.missing_labels import present, with_rank, without_nan

# To Keras all metrics are weighted ones, at two outputs by task: those that are not weighted by
# `sample_weight` are weighted by 1 where there is a label and by 0 where there is none. This is
# what the second output is called.
_WEIGHTED = "weighted\n"


def by_output(
    metrics: Mapping[str, Any] | None, weighted_metrics: Mapping[str, Any] | None
) -> dict[str, list[Any]] | None:
    """What Keras gets as its weighted metrics; `None` for none."""
    lists = {**_as_lists(metrics, ""), **_as_lists(weighted_metrics, _WEIGHTED)}
    return lists or None


def outputs(
    labels: Mapping[str, Any], predictions: Mapping[str, tf.Tensor], weights: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Labels, predictions and weights by output, from those by task."""
    results: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    for task in labels:
        label, weight = tf.convert_to_tensor(labels[task]), weights[task]
        known: Any = None
        if label.dtype.is_floating or weight is not None:
            known = present(label, _one_by_example(predictions[task]), [weight])
            known = tf.cast(known, "float32")
        if weight is not None:
            weight = known * with_rank(tf.cast(weight, "float32"), known.shape.rank)
        for name, factor in (
            (task, known),
            (_WEIGHTED + task, known if weight is None else weight),
        ):
            values = (without_nan(label), predictions[task], factor)
            for result, value in zip(results, values, strict=True):
                result[name] = value
    return results


def logs(results: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any]:
    """The logs with the names that Keras gives: `<task>_<metric>`, and `<task>_weighted_<metric>`
    for a metric that is asked for in both ways."""
    renamed: dict[str, Any] = {}
    for name, value in results.items():
        plain = name.removeprefix(_WEIGHTED)
        if plain in renamed:
            # The longest, because a task may be named "a" and another one "a_b".
            task = max((one for one in tasks if plain.startswith(f"{one}_")), key=len)
            plain = f"{task}_weighted_{plain.removeprefix(f'{task}_')}"
        renamed[plain] = value
    return renamed


def _as_lists(metrics: Mapping[str, Any] | None, prefix: str) -> dict[str, list[Any]]:
    return {
        prefix + task: list(given) if isinstance(given, list | tuple) else [given]
        for task, given in (metrics or {}).items()
    }


def _one_by_example(predictions: tf.Tensor) -> tf.Tensor:
    """A tensor with one value where metrics give one: the last axis of predictions left out."""
    return predictions[..., 0] if predictions.shape.rank > 1 else predictions
