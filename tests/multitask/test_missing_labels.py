"""Which labels are missing, and losses without them, against numpy over the labels present."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
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


# Missing labels in `fit`.

TASKS = ("b", "a", "c")


def make_model(tasks=TASKS):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "tanh")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model(np.zeros((1, 5)))
    return model


def make_data(size, share=0.4):
    """Inputs, labels that are NaN where they are missing, and where they are there, by task."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5)).astype("float32")
    known = {task: rng.uniform(size=size) > share for task in TASKS}
    labels = {task: x[:, i] + rng.normal(size=size) for i, task in enumerate(TASKS)}
    return x, {t: np.where(known[t], labels[t], NAN).astype("float32") for t in TASKS}, known


def compiled(model, affinity=None, rate=0.1, **kwargs):
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, "mse", affinity=affinity, run_eagerly=True, **kwargs)
    return model


def test_nan_labels_measure_and_train_as_weights_of_zero_do():
    x, y, known = make_data(48)
    filled = {task: np.where(known[task], y[task], 7.0).astype("float32") for task in TASKS}
    weights = {task: known[task].astype("float32") for task in TASKS}
    results = []
    for labels, sample_weight in ((y, None), (filled, weights), (y, weights)):
        options = tag_keras.LookaheadAffinity(every=1)
        model = compiled(make_model(), options, metrics=["mae"])
        history = model.fit(
            x, labels, 24, verbose=0, sample_weight=sample_weight, shuffle=False
        ).history
        results.append((model.get_affinity().replicates, history, model.get_weights()))
    for replicates, history, values in results[1:]:
        np.testing.assert_allclose(replicates, results[0][0], atol=1e-6)
        assert set(history) == set(results[0][1])
        for name, logged in history.items():
            assert logged == pytest.approx(results[0][1][name], rel=1e-5), name
        for value, expected in zip(values, results[0][2], strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-6)
    assert np.isfinite(results[0][0]).all() and len(results[0][0]) == 2


def losses_by_hand(model, x, y, known):
    """Mean squared errors over the examples of each task that have a label."""
    features = model.encoder(x)
    losses = []
    for task in TASKS:
        errors = model.heads[task](tf.boolean_mask(features, known[task]))[:, 0]
        losses.append(tf.reduce_mean((errors - y[task][known[task]]) ** 2))
    return losses


def test_a_batch_with_missing_labels_worked_out_by_hand():
    x, y, known = make_data(24)
    numbers = {int(one.sum()) for one in known.values()}
    assert len(numbers) == 3 and max(numbers) < 24
    oracle = make_model()
    shared, everything = oracle.encoder.trainable_variables, oracle.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        before = losses_by_hand(oracle, x, y, known)
        total = tf.add_n(before)
    start = [variable.numpy() for variable in shared]
    rows = []
    for loss in before:
        for variable, gradient in zip(shared, tape.gradient(loss, shared), strict=True):
            variable.assign_sub(0.1 * gradient)
        rows.append(losses_by_hand(oracle, x, y, known))
        for variable, value in zip(shared, start, strict=True):
            variable.assign(value)
    expected = 1 - np.array(rows, "float64") / np.array(before, "float64")
    for variable, gradient in zip(everything, tape.gradient(total, everything), strict=True):
        variable.assign_sub(0.1 * gradient)

    model = compiled(make_model(), tag_keras.LookaheadAffinity(every=1))
    logs = model.fit(x, y, 24, verbose=0).history
    np.testing.assert_allclose(model.get_affinity().mean, expected, atol=1e-5)
    for variable, wanted in zip(model.trainable_variables, everything, strict=True):
        np.testing.assert_allclose(variable, wanted, atol=1e-6)
    for task, loss in zip(TASKS, before, strict=True):
        assert logs[f"{task}_loss"] == pytest.approx([float(loss)], rel=1e-5)


def test_a_batch_with_labels_of_one_task_trains_as_one_task_on_its_examples():
    x, y, known = make_data(16)
    labels = {task: y[task] if task == "a" else np.full(16, NAN, "float32") for task in TASKS}
    model = compiled(make_model(), tag_keras.LookaheadAffinity(every=1))
    alone = compiled(make_model(("a",)), tag_keras.LookaheadAffinity(every=1))
    alone.encoder.set_weights(model.encoder.get_weights())
    alone.heads["a"].set_weights(model.heads["a"].get_weights())
    heads = [model.heads[task].get_weights() for task in ("b", "c")]
    model.train_on_batch(x, labels)
    alone.train_on_batch(x[known["a"]], {"a": y["a"][known["a"]]})
    pairs = [(model.encoder, alone.encoder), (model.heads["a"], alone.heads["a"])]
    for one, other in pairs:
        for value, expected in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-6)
    # The heads of tasks without labels stay where they were.
    for task, start in zip(("b", "c"), heads, strict=True):
        for value, expected in zip(model.heads[task].get_weights(), start, strict=True):
            np.testing.assert_array_equal(value, expected)
    affinity, of_one = model.get_affinity(), alone.get_affinity()
    np.testing.assert_array_equal(affinity.count, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(affinity.mean[1, 1], of_one.mean[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        tag_keras.LookaheadAffinity(every=1, baseline=True),
        tag_keras.FirstOrderAffinity(every=1),
        tag_keras.CosineAffinity(every=1),
    ],
    ids=lambda options: type(options).__name__,
)
def test_a_task_without_labels_in_some_batches_is_not_counted_there(options):
    x, y, _ = make_data(64, share=0.0)
    # Of 4 batches, "a" has no label in the first and the third, "c" none in the last.
    y["a"][:16] = y["a"][32:48] = y["c"][48:] = NAN
    model = compiled(make_model(), options)
    # Nothing was skipped: a warning would be an error.
    model.fit(x, y, 16, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, [[4, 2, 3], [2, 2, 1], [3, 1, 3]])
    assert not affinity.skipped.any()
    assert np.isfinite(affinity.mean).all()


def test_a_task_without_any_label_is_an_error_at_the_end_of_the_epoch():
    x, y, _ = make_data(32)
    y["a"][...] = NAN
    message = r"The tasks \['a'\] had no label in the whole first epoch"
    with pytest.raises(ValueError, match=message):
        compiled(make_model(), tag_keras.LookaheadAffinity()).fit(x, y, verbose=0)
    # Also where validation data have some.
    with pytest.raises(ValueError, match=message):
        compiled(make_model(), tag_keras.LookaheadAffinity()).fit(
            x, y, verbose=0, validation_data=make_data(32)[:2]
        )


def test_labels_that_validation_data_lack_are_no_error():
    x, y, _ = make_data(32)
    lacking = {**y, "a": np.full(32, NAN, "float32")}
    model = compiled(make_model(), tag_keras.LookaheadAffinity())
    with pytest.warns(UserWarning, match=r"The evaluation data have no label of the tasks \['a'\]"):
        logs = model.fit(x, y, verbose=0, validation_data=(x, lacking)).history
    assert np.isnan(logs["val_a_loss"]).all() and logs["val_b_loss"][0] > 0
    assert logs["val_loss"][0] == pytest.approx(logs["val_b_loss"][0] + logs["val_c_loss"][0])


@pytest.mark.parametrize("missing", ["nan", "weight"])
def test_without_any_label_all_logs_are_nan_and_one_warning_says_so(missing):
    x, y, _ = make_data(32, share=0.0)
    none = {task: np.full(32, NAN if missing == "nan" else 0, "float32") for task in TASKS}
    data = (x, none, None if missing == "nan" else none)
    model = compiled(make_model(), metrics={"a": ["mae", keras.metrics.RootMeanSquaredError()]})
    with pytest.warns(UserWarning) as warned:
        logs = model.fit(x, y, 16, verbose=0, epochs=2, validation_data=data).history
    assert [str(one.message)[:43] for one in warned] == [
        "The evaluation data have no label of the ta"
    ]
    names = ("loss", "a_loss", "b_loss", "c_loss", "a_mae", "a_root_mean_squared_error")
    for name in names:
        assert np.isfinite(logs[name]).all()
        assert np.isnan(logs[f"val_{name}"]).all(), name
    # In training, too.
    with pytest.warns(UserWarning, match="The training data have no label"):
        logs = model.fit(*data[:2], sample_weight=data[2], verbose=0).history
    assert all(np.isnan(logs[name]).all() for name in names)


def test_logs_are_means_over_the_labels_of_the_whole_epoch():
    x, y, known = make_data(50, share=0.7)
    model = compiled(make_model(), metrics={"a": ["mae"]})
    # Batches of 8, the last one of 2, each with another number of labels.
    logs = model.evaluate(x, y, 8, verbose=0, return_dict=True)
    predictions = model.predict(x, verbose=0)
    for task in TASKS:
        errors = (predictions[task][:, 0] - y[task])[known[task]]
        assert logs[f"{task}_loss"] == pytest.approx(np.mean(errors**2), rel=1e-5)
        if task == "a":
            assert logs["a_mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)


def mean_error(y_true, y_pred):
    """A metric that takes the mean, and deals with missing labels, by itself."""
    errors = tf.abs(y_true[:, 0] - y_pred[:, 0])
    return tf.reduce_mean(tf.boolean_mask(errors, ~tf.math.is_nan(errors)))


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("vectors", [False, True])
def test_metrics_that_are_functions(share, vectors):
    x, y, known = make_data(32, share)
    # Labels and predictions of shape (B,), or (B, 1).
    ends = [keras.layers.Reshape(())] if vectors else []
    heads = {task: keras.Sequential([keras.layers.Dense(1), *ends]) for task in TASKS}
    model = tag_keras.MultiTaskModel(keras.layers.Dense(4, "tanh"), heads)
    errors = keras.metrics.mean_absolute_error
    compiled(model, metrics={"a": [mean_error, errors, "mae", None], "b": None})
    labels = y if vectors else {task: y[task][:, None] for task in TASKS}
    logs = model.evaluate(x, labels, 32, verbose=0, return_dict=True)
    prediction = np.reshape(model.predict(x, verbose=0)["a"], -1)
    expected = np.abs(prediction - y["a"])[known["a"]].mean()
    for name in ("mean_error", "mean_absolute_error", "mae"):
        assert logs[f"a_{name}"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_infinite_for_what_stands_for_a_missing_label():
    x, y, known = make_data(32)

    def ratio(y_true, y_pred):
        return tf.reduce_mean((tf.math.log(tf.abs(y_true)) - y_pred) ** 2, axis=-1)

    model = make_model()
    model.compile("sgd", ratio, run_eagerly=True)
    logs = model.evaluate(x, y, 32, verbose=0, return_dict=True)
    predictions = model.predict(x, verbose=0)
    for task in TASKS:
        errors = (np.log(np.abs(y[task])) - predictions[task][:, 0])[known[task]]
        assert logs[f"{task}_loss"] == pytest.approx(np.mean(errors**2), rel=1e-4)


def test_the_loss_of_a_task_without_any_label_is_not_a_number():
    # A loss of 0 would pass for the best.
    losses = TaskLosses(("a", "b"), "mse")
    labels = {"a": tf.constant([[1.0]]), "b": tf.constant([[np.nan]])}
    losses.track(*losses(labels, {"a": tf.constant([[3.0]]), "b": tf.constant([[3.0]])}))
    results = [float(tracker.result()) for tracker in losses.trackers]
    assert results[0] == 4.0
    assert np.isnan(results[1])
