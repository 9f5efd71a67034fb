import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

layers = keras.layers
GROUPING = tag_keras.Grouping(
    tasks=("a", "b", "c"),
    groups=(("a", "c"), ("a", "b", "c")),
    serves={"a": 0, "b": 1, "c": 0},
    score=0.1,
    upper_bound=0.1,
    optimal=True,
)


def make_model(tasks, seed=0):
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential([layers.Dense(8), layers.BatchNormalization(), layers.ReLU()])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse")
    model(np.zeros((1, 5), "float32"))
    return model


X = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")


@pytest.fixture(scope="module")
def grouped():
    return tag_keras.GroupedModel([make_model("ca", 1), make_model("bac", 2)], GROUPING)


@pytest.fixture(scope="module")
def predictions(grouped):
    return grouped.predict(X, verbose=0)


def test_each_task_comes_from_the_network_that_serves_it(grouped, predictions):
    assert tuple(predictions) == grouped.tasks == ("a", "b", "c")
    by_network = [model.predict(X, verbose=0) for model in grouped.models]
    for task, index in GROUPING.serves.items():
        np.testing.assert_array_equal(predictions[task], by_network[index][task])
    assert np.abs(predictions["a"] - by_network[1]["a"]).max() > 1e-3


def test_save_and_load(grouped, predictions, tmp_path):
    grouped.save(tmp_path / "grouped.keras")
    loaded = keras.models.load_model(tmp_path / "grouped.keras")
    assert loaded.grouping == GROUPING
    found = loaded.predict(X, verbose=0)
    for task in GROUPING.tasks:
        np.testing.assert_array_equal(found[task], predictions[task])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_export_to_saved_model(grouped, predictions, tmp_path):
    grouped.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    served = loaded.serve(X[:7])
    for task in GROUPING.tasks:
        np.testing.assert_allclose(served[task].numpy(), predictions[task][:7], atol=1e-6)


def test_evaluate_with_and_without_missing_labels(grouped, predictions):
    grouped.compile(loss="mse", metrics={"a": ["mae"]})
    y = dict.fromkeys(GROUPING.tasks, X[:, :1])
    logs = grouped.evaluate(X, y, 8, verbose=0, return_dict=True)
    for task in GROUPING.tasks:
        error = np.mean((predictions[task] - y[task]) ** 2)
        np.testing.assert_allclose(logs[f"{task}_loss"], error, rtol=1e-5)

    labels = np.where(np.arange(20)[:, None] % 3 == 0, np.nan, X[:, :1]).astype("float32")
    y = {"a": labels, "b": X[:, :1], "c": np.full((20, 1), np.nan)}
    with pytest.warns(UserWarning, match=r"no label of the tasks \['c'\]"):
        logs = grouped.evaluate(X, y, 8, verbose=0, return_dict=True)
    errors = predictions["a"] - labels
    assert logs["a_loss"] == pytest.approx(np.nanmean(errors**2), rel=1e-5)
    assert logs["a_mae"] == pytest.approx(np.nanmean(np.abs(errors)), rel=1e-5)
    assert np.isnan(logs["c_loss"]) and np.isfinite(logs["loss"])


def compiled_network(tasks, seed, **options):
    model = make_model(tasks, seed)
    losses = {"a": "mse", "b": keras.losses.LogCosh(), "c": "mae"}
    metrics = {"a": [keras.metrics.MeanAbsoluteError(name="error"), "mse"], "b": "mape"}
    of_tasks = {task: metrics[task] for task in tasks if task in metrics}
    weighted = {"c": keras.metrics.MeanSquaredError(name="squares")} if "c" in tasks else None
    losses = {task: losses[task] for task in tasks}
    model.compile("adam", losses, metrics=of_tasks, weighted_metrics=weighted, **options)
    # As a training does.
    model.optimizer.build(model.trainable_variables)
    return model


def labels_with_gaps():
    gaps = np.where(np.arange(20)[:, None] % 3 == 0, np.nan, X[:, :1]).astype("float32")
    return {"a": gaps, "b": X[:, 1:2], "c": X[:, 2:3]}


# Warnings are errors: nothing is missing in the file.
@pytest.mark.slow_cases
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_compiled_as_the_networks_it_evaluates_as_they_do(tmp_path, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        networks = [
            compiled_network("ca", 1, loss_weights={"a": 3.0}, run_eagerly=True),
            compiled_network("bac", 2, run_eagerly=True),
        ]
        model = tag_keras.GroupedModel(networks, GROUPING)
        model.compile_as_networks()
        weights = {"a": np.ones(20), "b": np.ones(20), "c": np.arange(20.0) % 4}
        options = {"sample_weight": weights, "batch_size": 8, "verbose": 0, "return_dict": True}
        y = labels_with_gaps()
        logs = model.evaluate(X, y, **options)
        own = [network.evaluate(X, y, **options) for network in networks]
        names = {"a_loss", "a_error", "a_mse", "b_loss", "b_mape", "c_loss", "c_squares"}
        assert {*logs} == names | {"loss"}
        for name in names:
            assert logs[name] == own[GROUPING.serves[name[0]]][name]
        # The weight of a task in its network counts for nothing.
        losses = sum(logs[f"{task}_loss"] for task in "abc")
        assert logs["loss"] == pytest.approx(losses, rel=0.05)
        assert logs["loss"] < losses + logs["a_loss"]
        model.save(tmp_path / "grouped.keras")
        loaded = tag_keras.load_network(tmp_path / "grouped.keras")
        assert loaded.evaluate(X, y, **options) == pytest.approx(logs, rel=1e-6)
    finally:
        keras.config.set_dtype_policy(before)


def test_the_networks_keep_their_metrics():
    networks = [compiled_network("ca", 1, run_eagerly=True), make_model("bac", 2)]
    model = tag_keras.GroupedModel(networks, GROUPING)
    model.compile_as_networks()
    # What one cannot do compiled, all together cannot.
    assert model.run_eagerly and not networks[1].run_eagerly
    options = {"verbose": 0, "return_dict": True}
    networks[0].evaluate(X, labels_with_gaps(), **options)
    kept = {name: float(value) for name, value in networks[0].get_metrics_result().items()}
    model.evaluate(2 * X, labels_with_gaps(), **options)
    assert {name: float(v) for name, v in networks[0].get_metrics_result().items()} == kept


def test_networks_that_are_not_compiled_cannot_be_compiled_as():
    bare = tag_keras.MultiTaskModel(layers.Dense(2), {task: layers.Dense(1) for task in "abc"})
    model = tag_keras.GroupedModel([make_model("ca", 1), bare], GROUPING)
    with pytest.raises(ValueError, match="Received: MultiTaskModel, not compiled"):
        model.compile_as_networks()
    other = keras.Sequential([layers.Dense(1)])
    other.compile("sgd", "mse")
    model = tag_keras.GroupedModel([other, make_model("bac", 2)], GROUPING)
    with pytest.raises(ValueError, match="Received: Sequential, compiled"):
        model.compile_as_networks()


def test_histories_are_those_of_the_networks(grouped):
    assert grouped.histories == [None, None]
    networks = [compiled_network("ca", 1, run_eagerly=True), make_model("bac", 2)]
    model = tag_keras.GroupedModel(networks, GROUPING)
    networks[0].fit(X, labels_with_gaps(), epochs=2, verbose=0)
    first, second = model.histories
    assert second is None and len(first["a_loss"]) == len(first["loss"]) == 2
    # Plain lists and floats, as `fit` returns them.
    assert type(first) is dict and {type(value) for value in first["loss"]} == {float}


def test_unbuilt_models():
    models = [
        tag_keras.MultiTaskModel(layers.Dense(2), {task: layers.Dense(1) for task in group})
        for group in GROUPING.groups
    ]
    predictions = tag_keras.GroupedModel(models, GROUPING).predict(X, verbose=0)
    assert {task: p.shape for task, p in predictions.items()} == dict.fromkeys("abc", (20, 1))


def test_bad_input():
    with pytest.raises(ValueError, match=r"one model for each of the 2 groups\. Received: 1"):
        tag_keras.GroupedModel([make_model("ac")], GROUPING)
    with pytest.raises(ValueError, match=r"group \['a', 'b', 'c'\] lacks the tasks \['b'\]"):
        tag_keras.GroupedModel([make_model("ac"), make_model("ac")], GROUPING)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Of a head that serves no task.
def test_a_grouped_model_trains_on(grouped, predictions):
    grouped.compile(keras.optimizers.SGD(0.1), "mse")
    history = grouped.fit(X, dict.fromkeys("abc", X[:, :1]), epochs=3, verbose=0).history
    for task in "abc":
        assert history[f"{task}_loss"][-1] < history[f"{task}_loss"][0]
