"""Training, evaluation and logs of a model whose labels are missing in part."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

NAN = float("nan")
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        tag_keras.LookaheadAffinity(every=1, baseline=True),
        tag_keras.FirstOrderAffinity(every=1),
        tag_keras.CosineAffinity(every=1),
        tag_keras.FeatureAffinity(every=1),
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


@pytest.mark.slow
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


@pytest.mark.slow
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
