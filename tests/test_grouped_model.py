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


def make_grouped():
    return tag_keras.GroupedModel([make_model("ca", 1), make_model("bac", 2)], GROUPING)


X = np.random.default_rng(0).normal(size=(20, 5)).astype("float32")


def test_each_task_comes_from_the_network_that_serves_it():
    grouped = make_grouped()
    predictions = grouped.predict(X, verbose=0)
    assert tuple(predictions) == grouped.tasks == ("a", "b", "c")
    for task, index in GROUPING.serves.items():
        expected = grouped.models[index].predict(X, verbose=0)[task]
        np.testing.assert_array_equal(predictions[task], expected)
    other = grouped.models[1].predict(X, verbose=0)["a"]
    assert np.abs(predictions["a"] - other).max() > 1e-3


def test_save_and_load(tmp_path):
    grouped = make_grouped()
    grouped.save(tmp_path / "grouped.keras")
    loaded = keras.models.load_model(tmp_path / "grouped.keras")
    assert loaded.grouping == GROUPING
    for task in GROUPING.tasks:
        np.testing.assert_array_equal(
            loaded.predict(X, verbose=0)[task], grouped.predict(X, verbose=0)[task]
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_export_to_saved_model(tmp_path):
    grouped = make_grouped()
    grouped.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    served = loaded.serve(X[:7])
    for task in GROUPING.tasks:
        expected = grouped.predict(X[:7], verbose=0)[task]
        np.testing.assert_allclose(served[task].numpy(), expected, atol=1e-6)


def test_evaluate():
    grouped = make_grouped()
    grouped.compile(loss="mse")
    y = dict.fromkeys(GROUPING.tasks, X[:, :1])
    logs = grouped.evaluate(X, y, verbose=0, return_dict=True)
    predictions = grouped.predict(X, verbose=0)
    for task in GROUPING.tasks:
        error = np.mean((predictions[task] - y[task]) ** 2)
        np.testing.assert_allclose(logs[f"{task}_loss"], error, rtol=1e-5)


def test_evaluate_with_missing_labels():
    grouped = make_grouped()
    grouped.compile(loss="mse", metrics={"a": ["mae"]})
    labels = np.where(np.arange(20)[:, None] % 3 == 0, np.nan, X[:, :1]).astype("float32")
    y = {"a": labels, "b": X[:, :1], "c": np.full((20, 1), np.nan)}
    with pytest.warns(UserWarning, match=r"no label of the tasks \['c'\]"):
        logs = grouped.evaluate(X, y, 8, verbose=0, return_dict=True)
    errors = grouped.predict(X, verbose=0)["a"] - labels
    assert logs["a_loss"] == pytest.approx(np.nanmean(errors**2), rel=1e-5)
    assert logs["a_mae"] == pytest.approx(np.nanmean(np.abs(errors)), rel=1e-5)
    assert np.isnan(logs["c_loss"]) and np.isfinite(logs["loss"])


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Of a head that serves no task.
def test_a_grouped_model_trains_on():
    grouped = make_grouped()
    grouped.compile(keras.optimizers.SGD(0.1), "mse")
    history = grouped.fit(X, dict.fromkeys("abc", X[:, :1]), epochs=3, verbose=0).history
    for task in "abc":
        assert history[f"{task}_loss"][-1] < history[f"{task}_loss"][0]


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
