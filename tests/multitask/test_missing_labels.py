"""Which labels are missing, and losses without them, against numpy over the labels present."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.multitask.missing_labels import present, with_rank, without_nan
from tag_keras.multitask.task_losses import TaskLosses

NAN = float("nan")


def loss_of(loss, labels, predictions, weights=None):
    """Loss of one task, the gradient of its predictions, and the number of labels."""
    predictions = tf.constant(predictions)
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        (value,), number = TaskLosses(("a",), loss)(labels, {"a": predictions}, weights)
    return float(value), tape.gradient(value, predictions).numpy(), float(number[0])


def draw(shape, seed=0):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.normal(size=(2, *shape)).astype("float32")
    return labels, predictions, rng.uniform(0.1, 2, size=shape[0]).astype("float32")


# Which labels are missing.


def test_without_nan_leaves_all_other_labels_as_they_are():
    labels = tf.constant([1.0, NAN, -np.inf, 0.0])
    np.testing.assert_array_equal(without_nan(labels), [1.0, 0.0, -np.inf, 0.0])
    classes = tf.constant([1, 2])
    assert without_nan(classes) is classes


def test_a_value_with_a_nan_among_its_labels_is_missing():
    labels = tf.constant([[1.0, 2.0], [NAN, 2.0], [NAN, NAN], [3.0, 4.0]])
    np.testing.assert_array_equal(present(labels, tf.zeros(4)), [True, False, False, True])
    by_label = [[True, True], [False, True], [False, False], [True, True]]
    np.testing.assert_array_equal(present(labels, tf.zeros((4, 2))), by_label)


def test_conditions_may_lack_the_last_axes_and_none_is_no_condition():
    labels, values = tf.constant([[1.0, NAN], [1.0, 1.0], [1.0, 1.0]]), tf.zeros((3, 2))
    weights, mask = (
        tf.constant([1.0, 0.5, 0.0]),
        tf.constant([[True, True], [True, False], [True, True]]),
    )
    expected = [[True, False], [True, False], [False, False]]
    np.testing.assert_array_equal(present(labels, values, [weights, None, mask]), expected)


def test_labels_of_integers_are_there_unless_a_condition_says_otherwise():
    labels = tf.constant([0, 1, 2])
    np.testing.assert_array_equal(present(labels, tf.zeros(3)), [True] * 3)
    known = present(labels, tf.zeros(3), [tf.constant([0.0, 1.0, 1.0])])
    np.testing.assert_array_equal(known, [False, True, True])


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [((3,), 1, (3,)), ((3,), 3, (3, 1, 1)), ((3, 1), 1, (3,)), ((3, 2), 3, (3, 2, 1))],
)
def test_with_rank(shape, rank, expected):
    assert with_rank(tf.zeros(shape), rank).shape == expected


# Losses without them.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_one_label_by_example(shape, weighted):
    labels, predictions, weights = draw(shape)
    labels[[1, 4]] = NAN
    weights = weights if weighted else np.ones(7, "float32")
    weights[2] = 0 if weighted else 1
    known = ~np.isnan(labels).reshape(7) & (weights > 0)
    errors = np.where(known, labels.reshape(7) - predictions.reshape(7), 0)
    value, gradient, number = loss_of(
        "mse", labels, predictions, {"a": weights} if weighted else None
    )
    assert number == known.sum() == (4 if weighted else 5)
    assert value == pytest.approx(np.sum(weights * errors**2) / number, rel=1e-6)
    # d/dp of w (p - y)^2 / n.
    expected = -2 * weights * errors / number
    np.testing.assert_allclose(gradient.reshape(7), expected, rtol=1e-5, atol=1e-7)


MEANS = {
    "mse": lambda y, p: (y - p) ** 2,
    "mae": lambda y, p: np.abs(y - p),
    "huber": lambda y, p: np.where(np.abs(y - p) > 1, np.abs(y - p) - 0.5, (y - p) ** 2 / 2),
    "log_cosh": lambda y, p: np.log(np.cosh(y - p)),
    "poisson": lambda y, p: p - y * np.log(p),
    "binary_crossentropy": lambda y, p: -y * np.log(p) - (1 - y) * np.log(1 - p),
}


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "sum_over_batch_size"])
@pytest.mark.parametrize("loss", MEANS)
def test_one_element_of_a_vector_may_be_missing(loss, reduction):
    rng = np.random.default_rng(0)
    labels, predictions = rng.uniform(0.1, 0.9, (2, 6, 3)).astype("float32")
    weights = rng.uniform(0.1, 2, 6).astype("float32")
    labels[1, 2] = labels[4] = labels[0, 0] = NAN
    weights[5] = 0
    known = ~np.isnan(labels) & (weights > 0)[:, None]
    values = (weights[:, None] * MEANS[loss](labels, predictions))[known].sum()
    divisor = {
        "sum": 3,  # Keras sums the means over 3 elements.
        "mean_with_sample_weight": (weights[:, None] * known).sum(),
        "sum_over_batch_size": known.sum(),
    }[reduction]
    function = keras.losses.get(loss)
    objects = [keras.losses.MeanSquaredError, keras.losses.MeanAbsoluteError, keras.losses.Huber]
    objects += [keras.losses.LogCosh, keras.losses.Poisson, keras.losses.BinaryCrossentropy]
    (kind,) = [one for one in objects if one().fn is function]
    value, gradient, number = loss_of(kind(reduction=reduction), labels, predictions, weights)
    assert number == known.sum() == 10
    assert value == pytest.approx(values / divisor, rel=1e-5)
    np.testing.assert_array_equal(gradient != 0, known)
    if reduction == "sum_over_batch_size":
        assert value == pytest.approx(loss_of(loss, labels, predictions, weights)[0], rel=1e-6)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "cosine_similarity", "kl_divergence"])
def test_a_loss_over_classes_needs_all_elements_of_a_vector(loss):
    rng = np.random.default_rng(0)
    labels, predictions = rng.dirichlet(np.ones(3), (2, 6)).astype("float32")
    expected, *_ = loss_of(loss, labels[2:], predictions[2:])
    labels[0, 1] = labels[1] = NAN
    value, gradient, number = loss_of(loss, labels, predictions)
    assert number == 4
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal((gradient != 0).any(axis=1), np.arange(6) > 1)


@pytest.mark.parametrize("axis", [1, -2, 2])
@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.BinaryCrossentropy,
        keras.losses.CategoricalCrossentropy,
        keras.losses.CosineSimilarity,
    ],
)
def test_a_loss_along_another_axis_equals_that_of_keras(loss, axis):
    rng = np.random.default_rng(0)
    labels, predictions = rng.uniform(0.1, 0.9, (2, 5, 4, 3)).astype("float32")
    labels[1, 2, 0] = labels[3] = NAN
    value, _, number = loss_of(loss(axis=axis), labels, predictions)
    # One value for each place along the other axis, over the places along this one.
    known = np.isfinite(labels).all(axis=axis)
    places = [np.moveaxis(one, axis, -1)[known] for one in (labels, predictions)]
    assert number == known.sum()
    assert value == pytest.approx(float(loss()(*places)), rel=1e-5)


@pytest.mark.parametrize("axis", [0, -2])
def test_the_axis_of_the_examples_is_refused(axis):
    labels, predictions, _ = draw((5, 4))
    loss = keras.losses.BinaryCrossentropy(axis=axis)
    with pytest.raises(ValueError, match=r"^`axis` of 'binary_crossentropy' should be an axis of"):
        loss_of(loss, labels, predictions)


@pytest.mark.parametrize("label_shape", [(4, 5, 6), (4, 5, 6, 1)])
@pytest.mark.parametrize("weighting", ["none", "by example", "by pixel"])
@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_pixels(label_shape, weighting, loss):
    labels, predictions, by_example = draw((4, 5, 6, 1))
    labels[0, 1, 2], labels[2, :, 3], labels[3] = NAN, NAN, NAN
    by_example[1] = 0
    by_pixel = np.random.default_rng(1).uniform(0.1, 2, size=(4, 5, 6)).astype("float32")
    by_pixel[2, 4, 0] = 0
    weights = {"none": None, "by example": by_example, "by pixel": by_pixel}[weighting]
    full = np.broadcast_to(
        1.0
        if weights is None
        else weights.reshape(4, *weights.shape[1:], *[1] * (3 - weights.ndim)),
        (4, 5, 6),
    )
    known = ~np.isnan(labels[..., 0]) & (full > 0)
    errors = np.where(known, np.abs(labels - predictions)[..., 0], 0)
    if loss == "huber":
        errors = np.where(errors > 1, errors - 0.5, errors**2 / 2)
    value, gradient, number = loss_of(
        loss, labels.reshape(label_shape), predictions, None if weights is None else {"a": weights}
    )
    assert number == known.sum() > 20
    assert value == pytest.approx(np.sum(full * errors) / number, rel=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[..., 0] != 0, known)


def test_one_channel_of_a_pixel_may_be_missing():
    labels, predictions, _ = draw((2, 3, 4, 3))
    labels[0, 1, 1, 2] = labels[1, 0] = NAN
    known = ~np.isnan(labels)
    value, gradient, number = loss_of("mae", labels, predictions)
    assert number == known.sum() == 59
    assert value == pytest.approx(np.abs(labels - predictions)[known].mean(), rel=1e-6)
    np.testing.assert_array_equal(gradient != 0, known)


def test_one_label_may_stand_for_several_predictions():
    labels, predictions, _ = draw((4, 3))
    value, *_ = loss_of("mae", labels[:, :1], predictions)
    assert value == pytest.approx(np.abs(labels[:, :1] - predictions).mean(), rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
@pytest.mark.parametrize(
    "kind", ["MeanSquaredError", "KLDivergence", "CosineSimilarity", "CategoricalHinge", "Huber"]
)
def test_labels_that_lack_the_last_axis_of_a_map_or_series(kind, reduction):
    labels, predictions = np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 5)).astype("float32")
    loss = getattr(keras.losses, kind)(reduction=reduction)
    value, *_ = loss_of(loss, labels, predictions[..., None])
    assert value == pytest.approx(float(loss(labels, predictions[..., None])), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "labels", "predictions"),
    [
        ("mse", (4, 3), (4, 1)),
        ("huber", (4,), (4, 3)),
        ("cosine_similarity", (4, 3), (4, 1)),
        ("mae", (4, 2, 3), (4, 1, 3)),
        (keras.losses.BinaryCrossentropy(), (4, 3), (4,)),
    ],
)
def test_labels_of_another_shape_than_the_predictions_are_named(loss, labels, predictions):
    shapes = re.escape(f"labels {labels}, predictions {predictions}")
    with pytest.raises(
        ValueError, match=f"The labels and the predictions of the task 'a'.*{shapes}"
    ):
        loss_of(loss, np.ones(labels, "float32"), np.ones(predictions, "float32"))


def test_class_labels_with_weights():
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(0, 3, 8), rng.uniform(0.1, 2, size=8).astype("float32")
    probabilities = rng.dirichlet(np.ones(3), 8).astype("float32")
    weights[[0, 5]] = 0
    # What a data set may hold where there is no label.
    labels[0] = 0
    value, gradient, number = loss_of(
        "sparse_categorical_crossentropy", labels, probabilities, {"a": weights}
    )
    entropies = -np.log(probabilities[np.arange(8), labels])
    assert number == 6
    assert value == pytest.approx(np.sum(weights * entropies) / 6, rel=1e-5)
    assert np.isfinite(gradient).all()
    assert not gradient[[0, 5]].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_the_class_that_keras_ignores_is_missing_too(weighted):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=(4, 6))
    labels[0, 2] = labels[1] = labels[3, 4] = -1
    logits = rng.normal(size=(4, 6, 3)).astype("float32")
    weights = np.array([1.0, 0.5, 2.0, 0.0], "float32") if weighted else np.ones(4, "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    value, gradient, number = loss_of(loss, labels, logits, {"a": weights} if weighted else None)
    known = (labels != -1) & (weights[:, None] > 0)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shares, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    assert number == known.sum() == (11 if weighted else 16)
    expected = np.sum(np.where(known, -np.log(chosen) * weights[:, None], 0)) / number
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal((gradient != 0).all(axis=-1), known)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "sum_over_batch_size"])
def test_reductions(reduction, weighted):
    labels, predictions, weights = draw((6, 1))
    labels[3], weights[0] = NAN, 0
    weights = weights if weighted else np.ones(6, "float32")
    known = (np.arange(6) != 3) & (weights > 0)
    total = np.sum((weights * (labels - predictions)[:, 0] ** 2)[known])
    divisor = {
        "sum": 1,
        "mean_with_sample_weight": weights[known].sum(),
        "sum_over_batch_size": known.sum(),
    }[reduction]
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    value, gradient, number = loss_of(
        loss, labels, predictions, {"a": weights} if weighted else None
    )
    assert number == known.sum()
    assert value == pytest.approx(total / divisor, rel=1e-6)
    np.testing.assert_array_equal(gradient[:, 0] != 0, known)


@keras.saving.register_keras_serializable(package="test_missing_labels")
class SquaredError(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


def squared_error(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


@pytest.mark.parametrize("loss", [squared_error, SquaredError()], ids=["function", "object"])
def test_losses_of_a_user_equal_those_of_keras(loss):
    labels, predictions, weights = draw((6, 3))
    labels[1], weights[5] = NAN, 0
    for one in (None, {"a": weights}):
        values = [loss_of(each, labels, predictions, one) for each in (loss, "mse")]
        (value, gradient, number), (expected, by_keras, elements) = values
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, by_keras, rtol=1e-6)
        assert 3 * number == elements == (15 if one is None else 12)


@pytest.mark.parametrize("loss", [squared_error, SquaredError()], ids=["function", "object"])
def test_for_a_loss_of_a_user_a_vector_with_one_nan_is_missing_as_a_whole(loss):
    labels, predictions, _ = draw((6, 3))
    expected, *_ = loss_of("mse", labels[1:], predictions[1:])
    labels[0, 2] = NAN
    value, _, number = loss_of(loss, labels, predictions)
    assert number == 5
    assert value == pytest.approx(expected, rel=1e-6)


def test_a_function_that_gives_a_scalar_sees_the_missing_labels_itself():
    seen = []

    def mean_over_the_known(y_true, y_pred):
        seen.append(np.isnan(y_true).sum())
        known = ~tf.math.is_nan(y_true)
        errors = tf.where(known, y_true, 0.0) - tf.where(known, y_pred, 0.0)
        return tf.reduce_sum(errors**2) / tf.reduce_sum(tf.cast(known, "float32"))

    labels, predictions, _ = draw((6, 1))
    labels[2] = NAN
    known = np.arange(6) != 2
    value, gradient, number = loss_of(mean_over_the_known, labels, predictions)
    assert seen[-1] == 1
    # It counts for all examples: what it did with them is not known.
    assert number == 6
    assert value == pytest.approx(np.mean((labels - predictions)[known] ** 2), rel=1e-6)
    np.testing.assert_array_equal(gradient[:, 0] != 0, known)


class RunningScale(keras.losses.Loss):
    """Takes the mean over the batch itself, or not, and counts its calls in a variable."""

    def __init__(self, is_scalar):
        super().__init__()
        self.calls, self.is_scalar = keras.Variable(0.0, trainable=False), is_scalar

    def call(self, y_true, y_pred):
        self.calls.assign_add(1.0)
        errors = (y_true - y_pred)[:, 0] ** 2
        return keras.ops.mean(errors) if self.is_scalar else errors


@pytest.mark.slow
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("is_scalar", [False, True])
def test_the_state_of_a_loss_moves_once_in_a_step(is_scalar, eager):
    labels, predictions, _ = draw((6, 1))
    loss = RunningScale(is_scalar)
    losses = TaskLosses(("a",), loss)
    step = losses if eager else tf.function(losses)
    for _ in range(3):
        (value,), _ = step(tf.constant(labels), {"a": tf.constant(predictions)})
    assert float(value) == pytest.approx(np.mean((labels - predictions) ** 2), rel=1e-6)
    assert float(loss.calls) == 3


@pytest.mark.parametrize("missing", ["nan", "weight"])
@pytest.mark.parametrize(
    "loss", ["mse", "huber", squared_error, keras.losses.MeanSquaredError(reduction="sum")]
)
def test_a_task_without_a_label_has_neither_loss_nor_gradient(loss, missing):
    labels, predictions, _ = draw((5, 2))
    weights = None
    if missing == "nan":
        labels[...] = NAN
    else:
        weights = {"a": np.zeros(5, "float32")}
    value, gradient, number = loss_of(loss, labels, predictions, weights)
    assert value == number == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_tasks_have_missing_labels_of_their_own():
    labels, predictions, weights = draw((6, 1))
    of_b = labels.copy()
    of_b[0] = NAN
    losses = TaskLosses(("a", "b"), "mse")
    by_task = {"a": labels, "b": of_b}, {"a": predictions, "b": predictions}
    errors = (labels - predictions)[:, 0] ** 2
    (first, second), numbers = losses(*by_task)
    np.testing.assert_array_equal(numbers, [6, 5])
    np.testing.assert_allclose([first, second], [errors.mean(), errors[1:].mean()], rtol=1e-6)
    # One weight for all tasks, and one for one task.
    weights[3] = 0
    (first, second), numbers = losses(*by_task, weights)
    np.testing.assert_array_equal(numbers, [5, 4])
    sums = [(weights * errors).sum() / 5, (weights * errors)[1:].sum() / 4]
    np.testing.assert_allclose([first, second], sums, rtol=1e-6)
    (first, second), numbers = losses(*by_task, {"a": weights})
    np.testing.assert_array_equal(numbers, [5, 5])
    np.testing.assert_allclose([first, second], [sums[0], errors[1:].mean()], rtol=1e-6)


def test_the_loss_of_a_task_without_any_label_is_not_a_number():
    # A loss of 0 would pass for the best.
    losses = TaskLosses(("a", "b"), "mse")
    labels = {"a": tf.constant([[1.0]]), "b": tf.constant([[np.nan]])}
    losses.track(*losses(labels, {"a": tf.constant([[3.0]]), "b": tf.constant([[3.0]])}))
    results = [float(tracker.result()) for tracker in losses.trackers]
    assert results[0] == 4.0
    assert np.isnan(results[1])
