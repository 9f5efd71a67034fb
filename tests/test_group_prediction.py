"""Groups predicted out of a joint network: against ridge regression, with all kinds of data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import in_batches

import tag_keras

TASKS, SIZE, DIRECTIONS = ("b", "a"), 3, 4
LOGISTIC = keras.losses.BinaryCrossentropy(from_logits=True)


def make_data(seed, number=20):
    random = np.random.default_rng(seed)
    x = random.normal(size=(number, 2)).astype("float32")
    labels = {"a": random.normal(size=(number, 1)), "b": random.integers(0, 2, (number, 1))}
    return x, {task: values.astype("float32") for task, values in labels.items()}


def make_model(losses="mse", tasks=TASKS, **options):
    """A model whose outputs are linear in the weights that are trained."""
    keras.utils.set_random_seed(0)
    heads = {task: keras.layers.Dense(1, trainable=False) for task in tasks}
    model = tag_keras.MultiTaskModel(keras.Sequential([keras.layers.Dense(SIZE)]), heads)
    model.compile("sgd", losses, **options)
    model(np.zeros((1, 2), "float32"))
    return model


def predict(model, train, validation, **options):
    return tag_keras.predict_group_losses(
        model, train, validation, ridge=0.2, dimension=DIRECTIONS, seed=5, **options
    )


def columns(model, x, task):
    """Changes (n, d) of an output along the directions, and the outputs (n, 1)."""
    head = model.heads[task].get_weights()[0]
    found = []
    for index in range(DIRECTIONS):
        random = np.random.default_rng([5, index])
        kernel, bias = random.standard_normal((2, SIZE)), random.standard_normal(SIZE)
        found.append((x @ kernel + bias) @ head)
    return np.concatenate(found, axis=1), np.array(model(x)[task])


def expand(model, data, task, logistic):
    """Gradient, curvature and loss of a task, with squares or a logistic loss."""
    changes, outputs = columns(model, data[0], task)
    labels = data[1][task]
    if logistic:
        share = 1 / (1 + np.exp(-outputs))
        slope, curve = share - labels, share * (1 - share)
        losses = np.logaddexp(0, outputs) - labels * outputs
    else:
        slope, curve, losses = 2 * (outputs - labels), 2.0, (outputs - labels) ** 2
    number = len(labels)
    return changes.T @ slope[:, 0] / number, changes.T @ (curve * changes) / number, losses.mean()


@pytest.mark.parametrize("logistic", [False, True])
def test_each_group_takes_the_step_of_a_ridge_regression(logistic):
    model = make_model({"a": "mse", "b": LOGISTIC if logistic else "mse"})
    train, validation = make_data(0), make_data(1)
    found = predict(model, train, validation)
    assert found.tasks == TASKS and found.networks == (("b",), ("a",), TASKS)
    parts = {task: expand(model, train, task, logistic and task == "b") for task in TASKS}
    penalty = 0.2 * np.trace(parts["a"][1] + parts["b"][1]) / DIRECTIONS
    for group, scores in zip(found.networks, found.scores, strict=True):
        curvature = sum(parts[task][1] for task in group) + penalty * np.eye(DIRECTIONS)
        step = np.linalg.solve(curvature, -sum(parts[task][0] for task in group))
        for task, score in zip(TASKS, scores, strict=True):
            assert np.isnan(score) == (task not in group)
            if task in group:
                gradient, own, loss = expand(model, validation, task, logistic and task == "b")
                assert score == pytest.approx(loss + gradient @ step + step @ own @ step / 2, 1e-4)


def test_a_task_alone_gets_its_best_loss_on_its_data():
    # The output is linear in two inputs and 1, so that four directions reach every one.
    model, data = make_model(tasks=("a",)), make_data(0)
    found = tag_keras.predict_group_losses(model, data, data, ridge=1e-6, dimension=DIRECTIONS)
    inputs = np.c_[data[0], np.ones(len(data[0]))]
    left = data[1]["a"] - inputs @ np.linalg.lstsq(inputs, data[1]["a"])[0]
    assert found.scores[0, 0] == pytest.approx(np.mean(left**2), 1e-3)


@pytest.mark.slow
def test_batches_missing_labels_and_weights():
    model, (x, y), held_out = make_model(), make_data(0), make_data(1)
    wanted = predict(model, (x, y), held_out).scores
    in_two = predict(model, in_batches(x, y, 13), in_batches(*held_out, 13)).scores
    np.testing.assert_allclose(in_two, wanted, rtol=1e-4)
    # Examples without a label, or with a weight of 0, are as if they were not there.
    more = np.concatenate([x, x[:3] + 1])
    missing = {task: np.concatenate([one, np.full((3, 1), np.nan, "f")]) for task, one in y.items()}
    np.testing.assert_allclose(predict(model, (more, missing), held_out).scores, wanted, rtol=1e-4)
    filled = {task: np.nan_to_num(one) for task, one in missing.items()}
    weights = {task: np.r_[np.ones(20, "f"), np.zeros(3, "f")] for task in TASKS}
    weighted = predict(model, (more, filled, weights), held_out).scores
    np.testing.assert_allclose(weighted, wanted, rtol=1e-4)


@pytest.mark.slow
def test_weights_of_losses_count_in_training_only():
    train, held_out = make_data(0), make_data(1)
    plain = predict(make_model(), train, held_out).scores
    weighted = predict(make_model(loss_weights={"a": 3.0, "b": 3.0}), train, held_out).scores
    np.testing.assert_allclose(weighted, plain, rtol=1e-4)
    # With a larger weight, the joint step is more for "a".
    only_a = predict(make_model(loss_weights={"a": 1e3, "b": 1e-3}), train, train).scores
    plain = predict(make_model(), train, train).scores
    assert only_a[2, 1] < plain[2, 1] and only_a[2, 0] > plain[2, 0]


def test_the_model_stays_as_it_is():
    encoder = keras.Sequential([keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    model.compile("adam", "mse")
    train = make_data(0)
    model(train[0])
    before = [np.array(one) for one in model.variables]
    first, again = (predict(model, train, train) for _ in range(2))
    assert np.array_equal(first.scores, again.scores, equal_nan=True)
    for one, other in zip(before, model.variables, strict=True):
        assert np.array_equal(one, np.array(other))
    other = tag_keras.predict_group_losses(model, train, train, dimension=DIRECTIONS, seed=6)
    assert not np.allclose(first.scores, other.scores, equal_nan=True)


def test_wrong_arguments():
    data = make_data(0)
    model = make_model()
    plain = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="`model` should be a MultiTaskModel that is compiled"):
        tag_keras.predict_group_losses(plain, data, data)
    bare = tag_keras.MultiTaskModel(plain, {"a": keras.layers.Dense(1)})
    bare(data[0])
    unbuilt = tag_keras.MultiTaskModel(keras.Sequential([keras.layers.Dense(1)]), bare.heads)
    unbuilt.compile("sgd", "mse")
    for wrong in (bare, unbuilt):
        with pytest.raises(ValueError, match="`model` should be a MultiTaskModel that is compiled"):
            tag_keras.predict_group_losses(wrong, data, data)
    for weighting in (tag_keras.GLS(), tag_keras.RLW()):
        weighted = make_model(loss_weighting=weighting)
        with pytest.raises(ValueError, match="`model` should have weights of its losses that do"):
            tag_keras.predict_group_losses(weighted, data, data)
    for name, value, message in (
        ("ridge", 0, "`ridge` should be a positive number"),
        ("dimension", 0, "`dimension` should be at least 1"),
        ("seed", -1, "`seed` should be an integer from 0 on"),
    ):
        with pytest.raises(ValueError, match=message):
            tag_keras.predict_group_losses(model, data, data, **{name: value})
    with pytest.raises(ValueError, match="`train` should have labels of every task"):
        tag_keras.predict_group_losses(model, (data[0], {"a": data[1]["a"]}), data)
    missing = {**data[1], "a": tf.fill((20, 1), np.nan)}
    with pytest.raises(ValueError, match="data should have labels of every task"):
        tag_keras.predict_group_losses(model, (data[0], missing), data, dimension=1)
