"""Metrics over the labels present, against metrics of Keras over those labels alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

NAN = float("nan")
M = keras.metrics


def evaluate(metrics, y, p, weights=None, weighted=(), batch=4):
    """Logs of a model whose predictions are `p`, in batches."""
    inputs = keras.Input(p.shape[1:])
    heads = {"a": keras.layers.Identity(), "b": keras.layers.Identity()}
    model = tag_keras.MultiTaskModel(keras.Model(inputs, inputs), heads)
    loss = {"a": lambda y, p: tf.reduce_mean(p), "b": lambda y, p: tf.reduce_mean(p)}
    model.compile(
        "sgd",
        loss,
        metrics={"a": metrics},
        weighted_metrics={"a": list(weighted)},
        run_eagerly=True,
    )
    labels = {"a": y, "b": y}
    weights = None if weights is None else {"a": weights, "b": weights}
    return model.evaluate(p, labels, batch, sample_weight=weights, verbose=0, return_dict=True)


def value_of(*args, **kwargs):
    """The value of the only metric."""
    logs = evaluate(*args, **kwargs)
    (value,) = (value for name, value in logs.items() if name[:2] == "a_" and name != "a_loss")
    return value


def draw(shape, seed=0):
    rng = np.random.default_rng(seed)
    chances = rng.uniform(0.05, 0.95, shape).astype("float32")
    labels = (rng.uniform(size=shape) < 0.5).astype("float32")
    weights = rng.uniform(0.2, 2, shape[0]).astype("float32")
    return labels, chances, weights


@pytest.mark.parametrize(
    "metric", [M.CategoricalCrossentropy, M.CosineSimilarity], ids=lambda one: one.__name__
)
def test_a_metric_along_another_axis(metric):
    y, p, _ = draw((8, 4, 3))
    y[2, :, 1] = y[5, 0, 2] = y[6] = NAN
    expected = metric(axis=-1)
    # A value for each of the 3 places along the last axis.
    known = np.isfinite(y).all(axis=1)
    expected.update_state(*(np.moveaxis(one, 1, -1)[known] for one in (y, p)))
    assert value_of([metric(axis=1)], y, p) == pytest.approx(float(expected.result()), rel=1e-5)


# Metrics of single elements: of a vector only those without a label are left out.
BY_ELEMENT = [
    M.AUC,
    M.BinaryAccuracy,
    M.BinaryCrossentropy,
    M.FalseNegatives,
    M.MeanAbsoluteError,
    M.MeanSquaredError,
    M.Poisson,
    M.Precision,
    lambda: M.PrecisionAtRecall(0.5),
    M.Recall,
    M.RootMeanSquaredError,
    lambda: M.SensitivityAtSpecificity(0.5),
    M.TruePositives,
]


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("make", BY_ELEMENT)
def test_one_element_of_a_vector_may_be_missing(make, is_weighted):
    y, p, weights = draw((10, 3))
    y[1, 2] = y[4] = y[0, 0] = NAN
    known = ~np.isnan(y)
    # The elements present as examples of one element.
    oracle = make()
    each = np.broadcast_to(weights[:, None], y.shape)[known] if is_weighted else None
    oracle.update_state(y[known][:, None], p[known][:, None], each)
    metrics = [[], [make()]] if is_weighted else [[make()], []]
    given = weights if is_weighted else None
    assert value_of(metrics[0], y, p, given, metrics[1]) == pytest.approx(
        float(oracle.result()), rel=1e-5
    )


def test_a_mean_by_label_and_a_mean_of_all_labels():
    y, p, _ = draw((40, 3))
    y[np.random.default_rng(1).uniform(size=y.shape) < 0.3] = NAN
    macro = M.AUC(name="macro", multi_label=True, num_labels=3)
    logs = evaluate([macro, M.AUC(name="micro")], y, p, batch=16)
    by_label = []
    for column in range(3):
        known, one = ~np.isnan(y[:, column]), M.AUC()
        one.update_state(y[known, column], p[known, column])
        by_label.append(float(one.result()))
    every, known = M.AUC(), ~np.isnan(y)
    every.update_state(y[known], p[known])
    assert logs["a_macro"] == pytest.approx(np.mean(by_label), rel=1e-5)
    assert logs["a_micro"] == pytest.approx(float(every.result()), rel=1e-5)
    assert abs(logs["a_macro"] - logs["a_micro"]) > 1e-3


def test_a_metric_of_one_class_has_the_missing_labels_of_this_class():
    y, p, weights = draw((10, 3))
    y[1, 2] = y[4, 0] = y[6, 1] = NAN
    known, oracle = ~np.isnan(y[:, 1]), M.Precision()
    oracle.update_state(y[known, 1], p[known, 1], weights[known])
    value = value_of([], y, p, weights, [M.Precision(class_id=1)])
    assert value == pytest.approx(float(oracle.result()), rel=1e-5)


def test_a_metric_that_counts_in_integers():
    y, p, _ = draw((10, 3))
    y[1, 2] = y[4] = NAN
    known, oracle = ~np.isnan(y), M.BinaryIoU()
    oracle.update_state(y[known], p[known])
    assert value_of([M.BinaryIoU()], y, p) == pytest.approx(float(oracle.result()), rel=1e-6)


@pytest.mark.parametrize("make", [M.F1Score, M.R2Score, M.CategoricalAccuracy, M.CosineSimilarity])
def test_another_metric_leaves_out_the_whole_vector(make):
    y, p, _ = draw((10, 3))
    oracle = make()
    oracle.update_state(y[2:], p[2:])
    y[0, 1], y[1] = NAN, NAN
    np.testing.assert_allclose(value_of([make()], y, p), oracle.result(), rtol=1e-5)


# Functions of labels and predictions, with values of any rank.


def last_step(y, p):
    return tf.reduce_mean(tf.abs(y[:, -1] - p[:, -1]), axis=-1)


def by_step(y, p):
    return tf.reduce_max(tf.abs(y - p), axis=-1)


def overlap(y, p):
    """Dice of each mask (N, 5, 2)."""
    return 2 * tf.reduce_sum(y * p, [1, 2]) / tf.reduce_sum(y + p, [1, 2])


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("function", [last_step, by_step, overlap])
def test_a_function_gives_a_value_for_an_example_or_for_a_part_of_it(function, is_weighted):
    y, p, weights = draw((6, 5, 2))
    expected = np.array(function(y, p))
    each = weights.reshape(6, *[1] * (expected.ndim - 1)) if is_weighted else np.ones(6)
    each = np.broadcast_to(each.reshape(6, *[1] * (expected.ndim - 1)), expected.shape)
    given, kinds = (weights, ([], [function])) if is_weighted else (None, ([function], []))
    logs = evaluate(kinds[0], y, p, given, kinds[1])
    name = f"a_{function.__name__}"
    assert logs[name] == pytest.approx((expected * each).sum() / each.sum(), rel=1e-5)
    # A NaN makes the values missing that it is a label of.
    y[2, 1, 0] = NAN
    known = np.ones(expected.shape, bool)
    known[(2, 1) if expected.ndim == 2 else 2] = False
    logs = evaluate(kinds[0], y, p, given, kinds[1])
    assert logs[name] == pytest.approx((expected * each)[known].sum() / each[known].sum(), rel=1e-5)


@pytest.mark.slow
def test_names_are_those_of_keras():
    y, p, weights = draw((8, 1))
    given = ["mae", "mae", last_step, M.MeanSquaredError(), lambda y, p: tf.abs(y - p)]
    given[2] = by_step
    weighted = ["mae", "mae", M.MeanSquaredError(), "mse"]
    inputs = keras.Input((1,))
    plain = keras.Model(
        inputs, {"a": keras.layers.Identity()(inputs), "b": keras.layers.Identity()(inputs)}
    )
    plain.compile("sgd", "mse", metrics={"a": given}, weighted_metrics={"a": weighted})
    both = {"a": y, "b": y}, {"a": weights, "b": weights}
    expected = plain.evaluate(p, both[0], 4, sample_weight=both[1], verbose=0, return_dict=True)
    logs = evaluate(given, y, p, weights, weighted)
    assert {*logs} == {*expected}
    for name in {*logs} - {"loss", "a_loss", "b_loss"}:
        assert logs[name] == pytest.approx(expected[name], rel=1e-5), name
