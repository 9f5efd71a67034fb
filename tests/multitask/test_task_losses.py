"""The losses of the tasks, against those that Keras compiles for a model with the same outputs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.multitask.task_losses import TaskLosses, of_one_replica, of_whole_batch

TASKS = ("b", "a")
BATCH = 6


def squared_error(y_true, y_pred):
    """A loss that a user may write: without a care for the shapes."""
    return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


def mean_squared_error_of_the_batch(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred))


@keras.saving.register_keras_serializable(package="test_task_losses")
class AbsoluteError(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred), axis=-1)


LOSSES = {
    "string": "mse",
    "name of a class": "Huber",
    "function of Keras": keras.losses.mean_absolute_error,
    "function of a user": squared_error,
    "function that gives a scalar": mean_squared_error_of_the_batch,
    "object": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
    "object that sums": keras.losses.MeanSquaredError(reduction="sum"),
    "object of a user": AbsoluteError(),
    "class": keras.losses.LogCosh,
}


def make_batch(seed=0, batch=BATCH, columns=1):
    generator = np.random.default_rng(seed)
    labels = {task: generator.uniform(size=(batch, columns)).astype("float32") for task in TASKS}
    predictions = {task: generator.normal(size=(batch, columns)) for task in TASKS}
    predictions = {task: values.astype("float32") for task, values in predictions.items()}
    weights = {task: generator.uniform(size=batch).astype("float32") for task in TASKS}
    return labels, predictions, weights


def keras_logs(loss, labels, predictions, loss_weights=None, sample_weight=None):
    """`loss`, `a_loss` and `b_loss` of a model whose outputs are its inputs."""
    inputs = [keras.Input(values.shape[1:]) for values in predictions.values()]
    outputs = {
        task: keras.layers.Identity(name=task)(tensor)
        for task, tensor in zip(predictions, inputs, strict=True)
    }
    model = keras.Model(inputs, outputs)
    model.compile(loss=loss, loss_weights=loss_weights, run_eagerly=True)
    x = list(predictions.values())
    return model.evaluate(x, labels, BATCH, 0, sample_weight=sample_weight, return_dict=True)


def assert_equals_keras(loss, labels, predictions, loss_weights=None, sample_weight=None):
    task_losses = TaskLosses(TASKS, loss, loss_weights)
    losses, _ = task_losses(labels, predictions, sample_weight)
    losses_by_task = loss if isinstance(loss, dict) else dict.fromkeys(TASKS, loss)
    logs = keras_logs(losses_by_task, labels, predictions, loss_weights, sample_weight)
    assert [loss.shape.rank for loss in losses] == [0, 0]
    for task, value in zip(TASKS, losses, strict=True):
        assert float(value) == pytest.approx(logs[f"{task}_loss"], rel=1e-6), task
    assert float(task_losses.joint(losses)) == pytest.approx(logs["loss"], rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("columns", [1, 3])
def test_every_kind_of_loss_equals_that_of_keras(kind, columns):
    labels, predictions, _ = make_batch(columns=columns)
    assert_equals_keras(LOSSES[kind], labels, predictions)


@pytest.mark.parametrize("kind", LOSSES)
def test_sample_weights_by_task_equal_those_of_keras(kind):
    labels, predictions, weights = make_batch()
    assert_equals_keras(LOSSES[kind], labels, predictions, sample_weight=weights)


def test_one_sample_weight_for_all_tasks_equals_that_of_keras():
    labels, predictions, weights = make_batch()
    assert_equals_keras(squared_error, labels, predictions, sample_weight=weights["a"])


def test_losses_and_weights_by_task_equal_those_of_keras():
    labels, predictions, weights = make_batch()
    loss = {"a": "mae", "b": squared_error}
    assert_equals_keras(loss, labels, predictions, {"a": 0.25, "b": 3.0}, weights)


def test_a_task_without_a_weight_in_the_joint_loss_has_1():
    labels, predictions, _ = make_batch()
    task_losses = TaskLosses(TASKS, "mse", {"a": 0.25})
    (of_b, of_a), _ = task_losses(labels, predictions)
    assert float(task_losses.joint([of_b, of_a])) == pytest.approx(float(of_b) + 0.25 * float(of_a))


def test_a_task_without_sample_weights_is_not_weighted():
    labels, predictions, weights = make_batch()
    task_losses = TaskLosses(TASKS, "mse")
    plain, _ = task_losses(labels, predictions)
    weighted, _ = task_losses(labels, predictions, weights)
    mixed, _ = task_losses(labels, predictions, {"a": weights["a"]})
    assert [float(loss) for loss in mixed] == [float(plain[0]), float(weighted[1])]
    assert float(plain[1]) != pytest.approx(float(weighted[1]))


# What a user's own Loss does with its arguments is its own affair, as in Keras.
@pytest.mark.parametrize("kind", [kind for kind in LOSSES if kind != "object of a user"])
def test_labels_without_the_last_axis_meet_predictions_with_one_column(kind):
    # Predictions (6, 1) less labels (6,) would be (6, 6): every label against every prediction.
    labels, predictions, _ = make_batch()
    flat = {task: values[:, 0] for task, values in labels.items()}
    task_losses = TaskLosses(TASKS, LOSSES[kind])
    expected = [float(loss) for loss in task_losses(labels, predictions)[0]]
    assert [float(loss) for loss in task_losses(flat, predictions)[0]] == expected
    assert_equals_keras(LOSSES[kind], flat, predictions)


def test_a_users_function_gives_the_hand_worked_loss_for_flat_labels():
    # Errors 1, 2 and 3: (1 + 4 + 9) / 3.
    labels, predictions = tf.constant([1.0, 2.0, 3.0]), tf.constant([[2.0], [4.0], [6.0]])
    ((loss,), _) = TaskLosses(("a",), squared_error)(labels, {"a": predictions})
    assert float(loss) == pytest.approx(14 / 3)


def test_a_users_function_sees_labels_that_need_no_axis_as_they_are():
    seen = []

    def record(y_true, y_pred):
        seen.append((tuple(y_true.shape), tuple(y_pred.shape)))
        return y_pred[:, 0]

    shapes = [((6,), (6, 3)), ((6, 1), (6, 1)), ((6, 1), (6, 3))]
    for labels, predictions in shapes:
        TaskLosses(("a",), record)(np.zeros(labels), {"a": np.zeros(predictions)})
    assert seen == shapes


def test_class_labels_equal_those_of_keras():
    generator = np.random.default_rng(0)
    labels = {task: generator.integers(0, 3, BATCH) for task in TASKS}
    predictions = {task: generator.dirichlet(np.ones(3), BATCH).astype("f4") for task in TASKS}
    assert_equals_keras("sparse_categorical_crossentropy", labels, predictions)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_ignored_class_equals_that_of_keras(weighted):
    generator = np.random.default_rng(0)
    labels = {task: generator.integers(-1, 3, (BATCH, 4)) for task in TASKS}
    predictions = {task: generator.normal(size=(BATCH, 4, 3)).astype("f4") for task in TASKS}
    # Keras 3.15 fails for weights by example here.
    weights = {task: generator.uniform(size=(BATCH, 4)).astype("f4") for task in TASKS}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert all((values == -1).any() for values in labels.values())
    assert_equals_keras(loss, labels, predictions, sample_weight=weights if weighted else None)


@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight"])
def test_reductions_equal_those_of_keras(reduction):
    labels, predictions, weights = make_batch(columns=2)
    loss = keras.losses.MeanAbsoluteError(reduction=reduction)
    assert_equals_keras(loss, labels, predictions, sample_weight=weights)


def test_predictions_without_a_last_axis_equal_those_with_one():
    labels, predictions, weights = make_batch()
    flat = [{task: values[:, 0] for task, values in one.items()} for one in (labels, predictions)]
    for loss in ("mse", squared_error, keras.losses.Huber()):
        losses = TaskLosses(TASKS, loss)
        expected = [float(one) for one in losses(labels, predictions, weights)[0]]
        assert [float(one) for one in losses(*flat, weights)[0]] == pytest.approx(expected)
    assert_equals_keras("mse", *flat)


def test_numbers_of_labels_and_sums_before_they_are_divided():
    labels, predictions, weights = make_batch(columns=2)
    losses = TaskLosses(TASKS, {"b": keras.losses.MeanSquaredError("sum"), "a": "mae"})
    sums = losses.sums(labels, predictions, weights)
    of_b = weights["b"] * np.mean((labels["b"] - predictions["b"]) ** 2, axis=1)
    of_a = weights["a"] * np.mean(np.abs(labels["a"] - predictions["a"]), axis=1)
    # The mean over two elements of each example is one over all elements.
    np.testing.assert_allclose(sums.sums, [of_b.sum(), 2 * of_a.sum()], rtol=1e-6)
    np.testing.assert_array_equal(sums.divisors, [1, 2 * BATCH])
    np.testing.assert_array_equal(sums.labels, [2 * BATCH, 2 * BATCH])
    np.testing.assert_array_equal(losses(labels, predictions, weights)[1], sums.labels)


def test_losses_come_in_the_order_of_the_tasks():
    # (0 - 1)^2 for "a", (0 - 2)^2 for "b".
    zeros = {task: tf.zeros((2, 1)) for task in "ab"}
    labels = {"a": tf.ones((2, 1)), "b": 2 * tf.ones((2, 1))}
    for tasks, expected in [(("a", "b"), [1.0, 4.0]), (("b", "a"), [4.0, 1.0])]:
        assert [float(loss) for loss in TaskLosses(tasks, "mse")(labels, zeros)[0]] == expected


def test_extra_labels_predictions_and_weights_are_passed_over():
    labels, predictions, weights = make_batch()
    task_losses = TaskLosses(TASKS, "mse")
    expected = [float(loss) for loss in task_losses(labels, predictions, weights)[0]]
    more = [{**by_task, "c": np.full((BATCH, 1), np.nan)} for by_task in make_batch()]
    assert [float(loss) for loss in task_losses(*more)[0]] == expected


def test_missing_labels_are_named():
    labels, predictions, _ = make_batch()
    del labels["b"]
    with pytest.raises(ValueError, match=r"Missing: \['b'\]\. Received: \['a'\]"):
        TaskLosses(TASKS, "mse")(labels, predictions)


@pytest.mark.parametrize("reduction", ["none", None])
def test_a_loss_without_a_reduction_is_named_with_the_cure(reduction):
    loss = {"b": "mse", "a": keras.losses.MeanSquaredError(reduction=reduction)}
    message = (
        "The loss of the task 'a' should be a scalar: use a loss with the reduction "
        f'"sum_over_batch_size". Received: reduction={reduction!r}.'
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskLosses(TASKS, loss)


@pytest.mark.parametrize("loss", [None, ["mse", "mse"], ("mse", "mae")])
def test_losses_must_be_one_or_a_dict(loss):
    message = (
        "`loss` should be a dict of losses by task, or one loss for all tasks. "
        f"Received: loss={loss!r}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskLosses(TASKS, loss)


def test_an_unknown_name_is_keras_error():
    with pytest.raises(ValueError, match="Could not interpret loss identifier: mistake"):
        TaskLosses(TASKS, "mistake")


def test_weights_that_are_variables_follow_assign_in_a_compiled_function():
    weight = keras.Variable(2.0, trainable=False)
    task_losses = TaskLosses(TASKS, "mse", {"a": weight})
    traces = []

    @tf.function
    def joint(of_b, of_a):
        traces.append(1)
        return task_losses.joint([of_b, of_a])

    assert float(joint(tf.constant(1.0), tf.constant(10.0))) == 21.0
    weight.assign(0.5)
    assert float(joint(tf.constant(1.0), tf.constant(10.0))) == 6.0
    assert len(traces) == 1


def test_the_joint_loss_keeps_the_type_of_the_losses():
    task_losses = TaskLosses(TASKS, "mse", {"a": keras.Variable(0.5), "b": 2})
    joint = task_losses.joint([tf.constant(1.0, "float16"), tf.constant(4.0, "float16")])
    assert joint.dtype == "float16"
    assert float(joint) == 4.0


def test_trackers_average_over_batches_by_their_labels():
    task_losses = TaskLosses(TASKS, "mse")
    assert [tracker.name for tracker in task_losses.trackers] == ["b_loss", "a_loss"]
    task_losses.track([tf.constant(1.0), tf.constant(10.0)], tf.constant([3.0, 1.0]))
    task_losses.track([tf.constant(5.0), tf.constant(50.0)], tf.constant([1.0, 3.0]))
    # (3 * 1 + 1 * 5) / 4, and (1 * 10 + 3 * 50) / 4.
    assert [float(tracker.result()) for tracker in task_losses.trackers] == [2.0, 40.0]


def test_gradients_flow_through_every_loss():
    labels, predictions, _ = make_batch()
    predictions = {task: tf.constant(values) for task, values in predictions.items()}
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        losses, _ = TaskLosses(TASKS, {"a": squared_error, "b": "mse"})(labels, predictions)
        total = tf.add_n(losses)
    # The derivative of the mean of (p - y)^2 over 6 samples is 2 (p - y) / 6.
    for task, gradient in tape.gradient(total, predictions).items():
        expected = 2 * (predictions[task] - labels[task]) / BATCH
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("label_shape", "prediction_shape"),
    [((6,), (6, 1)), ((6, 1), (6,)), ((6, 2), (6, 2, 1)), ((6, 2, 1), (6, 2)), ((6, 6), (6, 6, 1))],
)
def test_a_last_axis_of_one_is_added_or_taken_away_as_in_keras(
    label_shape, prediction_shape, weighted
):
    rng = np.random.default_rng(0)
    labels, predictions = rng.normal(size=label_shape), rng.normal(size=prediction_shape)
    weights = rng.uniform(size=6) if weighted else None

    def squared_error(y_true, y_pred):
        return tf.reduce_mean((y_true - y_pred) ** 2, axis=-1)

    expected = np.mean((labels.reshape(6, -1) - predictions.reshape(6, -1)) ** 2, axis=1)
    expected = np.mean(expected * (1 if weights is None else weights))
    losses = TaskLosses(("a",), squared_error)
    ((loss,), _) = losses({"a": tf.constant(labels)}, {"a": tf.constant(predictions)}, weights)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_every_task_needs_a_loss():
    with pytest.raises(
        ValueError, match=r"should have a loss for every task. It is None for \['b'"
    ):
        TaskLosses(("a", "b"), {"a": "mse", "b": None})


# Two replicas, with a part of the batch each.

REDUCTIONS = {
    "mean": "mse",
    "sum": keras.losses.MeanSquaredError(reduction="sum"),
    "weighted": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    "function": squared_error,
}


def on_replicas(strategy, function, *batches):
    """Results (2, ...) of a function of the parts of the batches, halved: one per replica."""

    def parts(array):
        halves = [array[: len(array) // 2], array[len(array) // 2 :]]
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(halves[context.replica_id_in_sync_group])
        )

    args = keras.tree.map_structure(parts, batches)
    results = strategy.run(tf.function(function), args=args)
    return keras.tree.map_structure(
        lambda one: np.stack(strategy.experimental_local_results(one)), results
    )


@pytest.mark.slow
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_replicas_with_other_numbers_of_labels_add_up(reduction, two_replicas):
    labels, predictions, weights = make_batch(columns=2)
    # In "b" one replica has one label of three and the other all; in "a" one has none.
    labels["b"][1:3] = labels["a"][:3] = np.nan
    weights["a"][4] = 0
    losses = TaskLosses(TASKS, REDUCTIONS[reduction])
    expected, numbers = losses(labels, predictions, weights)

    def function(labels, predictions, weights):
        values, numbers = losses(labels, predictions, weights)
        return tf.stack(values), numbers

    shares, counted = on_replicas(two_replicas, function, labels, predictions, weights)
    np.testing.assert_array_equal(counted, [numbers, numbers])
    # Keras' mean errors have a value for each of two elements.
    np.testing.assert_array_equal(numbers, [4, 2] if reduction == "function" else [8, 4])
    assert shares[0, 0] > 0 and shares[0, 1] == 0
    np.testing.assert_allclose(shares.sum(axis=0), [float(one) for one in expected], rtol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_of_replicas_are_those_of_the_whole_batch(reduction, two_replicas):
    labels, predictions, weights = make_batch(columns=2)
    labels["b"][1:3] = np.nan
    losses = TaskLosses(TASKS, REDUCTIONS[reduction])

    def function(labels, predictions, weights):
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            values, _ = losses(labels, predictions, weights)
            total = tf.add_n(values)
        return tape.gradient(total, predictions)

    batch = [keras.tree.map_structure(tf.constant, one) for one in (labels, predictions, weights)]
    expected = function(*batch)
    gradients = on_replicas(two_replicas, function, labels, predictions, weights)
    for task in TASKS:
        found = gradients[task].reshape(BATCH, 2)
        np.testing.assert_allclose(found, expected[task], rtol=1e-5, atol=1e-7)


def test_what_replicas_log_is_the_loss_of_the_whole_batch(two_replicas):
    batches = [make_batch(seed, columns=2) for seed in range(2)]
    batches[0][0]["b"][:3] = np.nan

    def logs(track):
        with two_replicas.scope():
            losses = TaskLosses(TASKS, "mse")
        for batch in batches:
            track(losses, batch)
        counts = [float(tf.convert_to_tensor(tracker.count)) for tracker in losses.trackers]
        return [float(tracker.result()) for tracker in losses.trackers], counts

    def at_once(losses, batch):
        losses.track(*losses(*batch))

    def on_two(losses, batch):
        on_replicas(
            two_replicas, lambda *parts: losses.track(*losses(*parts)) or tf.zeros(()), *batch
        )

    means, counts = logs(on_two)
    expected, numbers = logs(at_once)
    np.testing.assert_allclose(means, expected, rtol=1e-6)
    assert counts == numbers == [18, 24]


def test_shares_of_a_loss_that_every_replica_has_in_full(two_replicas):
    def function(loss):
        return of_one_replica(tf.reduce_sum(loss)), of_whole_batch(tf.reduce_sum(loss))

    share, logged = on_replicas(two_replicas, function, np.array([6.0, 6.0], "f4"))
    np.testing.assert_array_equal(share, [3.0, 3.0])
    # The mean over the replicas of what they log for their shares is the loss.
    np.testing.assert_array_equal(logged, [12.0, 12.0])
    assert float(of_one_replica(tf.constant(6.0))) == float(of_whole_batch(tf.constant(6.0))) == 6
