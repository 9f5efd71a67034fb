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
