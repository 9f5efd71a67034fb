"""Weightings by the losses of batches, by chance and by scores: trajectories and formulas."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from given_gradients import Pick, Products
from small_models import make_data, make_deep_model

import tag_keras

TRAJECTORIES = json.loads(pathlib.Path(__file__).with_name("torchjd_trajectories.json").read_text())
TASKS = ("b", "a", "c")
START, RATE, MU = [0.5, -0.25, 1.0, 0.0], 0.02, 0.5
WEIGHTINGS = {
    "GLS": tag_keras.GLS,
    "STCH": lambda: tag_keras.STCH(mu=MU),
    "DBMTL": tag_keras.DBMTL,
    "IMTLL": tag_keras.IMTLL,
    "FAMO": tag_keras.FAMO,
    "RLW": lambda: tag_keras.RLW(seed=3),
}


def make_model(weighting, tasks=TASKS, **kwargs):
    encoder = keras.Sequential([keras.Input((len(tasks), 4)), Products()])
    model = tag_keras.MultiTaskModel(encoder, {one: Pick(i) for i, one in enumerate(tasks)})
    encoder.layers[0].vector.assign(START)
    optimizer = keras.optimizers.SGD(RATE)
    model.compile(optimizer, "mse", loss_weighting=weighting, **{"run_eagerly": True, **kwargs})
    return model


def batches():
    x, y = (np.array(TRAJECTORIES[one], "float32") for one in "xy")
    labels = [dict(zip(TASKS, one.transpose(), strict=True)) for one in y]
    return list(zip(x, labels, strict=True))


def train(model, data):
    """The vector and the logs after each step."""
    vectors, logs = [], []
    for x, y in data:
        model.reset_metrics()
        logs.append(model.train_on_batch(x, y, return_dict=True))
        vectors.append(model.shared_variables[0].numpy().copy())
    return np.array(vectors), logs


@pytest.mark.slow_cases
@pytest.mark.parametrize(
    "name", ["FAMO", *(one for one in WEIGHTINGS if one not in ("FAMO", "RLW"))]
)
def test_torchjd(name):
    vectors, logs = train(make_model(WEIGHTINGS[name]()), batches())
    expected = np.array(TRAJECTORIES["vectors"][name])
    assert np.abs(vectors - expected).max() / np.abs(expected).max() < 1e-5
    # It is not what equal weights lead to.
    assert np.ptp([logs[-1][f"{task}_weight"] for task in TASKS]) > 0.1


def simulate(weights_of, data):
    """The vector after each step, by NumPy; `weights_of` gets the losses and the step."""
    vector, vectors = np.array(START), []
    for step, (x, y) in enumerate(data):
        labels = np.stack([y[task] for task in TASKS], axis=1)
        errors = x @ vector - labels
        has = ~np.isnan(errors)
        errors = np.where(has, errors, 0.0)
        number = np.maximum(has.sum(axis=0), 1)
        losses, present = (errors**2).sum(axis=0) / number, has.any(axis=0)
        gradients = 2 * np.einsum("btp,bt->tp", x, errors) / number[:, None]
        weights = weights_of(losses, present, step)
        vector = vector - RATE * np.where(present, weights, 0.0) @ gradients
        vectors.append(vector)
    return np.array(vectors)


def drawn(losses, present, step):
    scores = tf.random.stateless_normal([3], [3, step], alg="philox").numpy()
    return 3 * np.exp(scores) / np.exp(scores).sum()


def softmax(values, present):
    parts = np.where(present, np.exp(values), 0.0)
    return parts / parts.sum()


FORMULAS = {
    "GLS": lambda losses, present, _: np.exp(np.log(losses[present]).mean()) / (losses + 1e-8),
    "STCH": lambda losses, present, _: present.sum() * softmax(losses / MU, present),
    "DBMTL": lambda losses, present, _: 1 / (losses + 1e-8),
    "RLW": drawn,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_where_labels_are_missing(name):
    data = [(x, {**y}) for x, y in batches()[:4]]
    # Of a task in a whole batch, and single ones.
    for step, (_, y) in enumerate(data):
        y["a"] = np.full_like(y["a"], np.nan) if step % 3 == 1 else y["a"]
        y["c"] = np.where(np.arange(5) < step % 4, np.nan, y["c"]).astype("float32")
    expected = simulate(FORMULAS[name], data)
    vectors, logs = train(make_model(WEIGHTINGS[name]()), data)
    assert np.abs(vectors - expected).max() / np.abs(expected).max() < 1e-5
    # A task without a label has no weight, but for chance.
    assert (logs[1]["a_weight"] > 0) == (name == "RLW")


def test_scores_where_labels_are_missing():
    model = make_model(tag_keras.FAMO())
    (x, y), (second_x, second_y), *_ = batches()
    model.train_on_batch(x, {**y, "a": np.full(5, np.nan)})
    famo = model.loss_weighting
    # Adam's first step is as long as its rate; the task without labels stays.
    scores = famo._scores.numpy()
    assert scores[1] == 0
    np.testing.assert_allclose(np.abs(scores[[0, 2]]), 0.025, rtol=1e-3)
    # Of two tasks one falls less, and its score rises.
    assert scores[0] == pytest.approx(-scores[2], rel=1e-3)
    np.testing.assert_array_equal(famo._steps.numpy(), [1, 0, 1])
    model.train_on_batch(second_x, second_y)
    np.testing.assert_array_equal(famo._steps.numpy(), [2, 1, 2])
    assert famo._scores.numpy()[1] != 0


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_one_task(name):
    x, y = batches()[0]
    model = make_model(WEIGHTINGS[name](), ("b",))
    logs = model.train_on_batch(x[:, :1], {"b": y["b"]}, return_dict=True)
    weight = 1 / (logs["b_loss"] + 1e-8) if name == "DBMTL" else 1.0
    assert logs["b_weight"] == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_losses_without_a_logarithm(name, value):
    weighting = WEIGHTINGS[name]()
    weighting.start(3)
    losses, has_labels = tf.constant([value, 1.0, 2.0]), tf.constant([True, True, True])
    assert np.isfinite(weighting.batch_weights(losses, has_labels)).all()
    none = weighting.batch_weights(losses, tf.constant([False] * 3)).numpy()
    assert np.isfinite(none).all()
    weighting.update(list(losses), tf.ones(3))
    weighting.after_step(losses, has_labels)
    before = [np.float64(weight) for weight in weighting.weights]
    assert all(np.isfinite(value).all() for value in before)
    # A step that overflowed shows nothing.
    weighting.after_step(losses + float("nan"), has_labels)
    for weight, value in zip(weighting.weights, before, strict=True):
        np.testing.assert_array_equal(np.float64(weight), value)


class Doubtful(tag_keras.LossWeighting):
    """A weighting of a user, by the losses of the batch."""

    def batch_weights(self, losses, has_labels):
        return tf.where(losses > 5, 0.5, 2.0)


def test_a_weighting_of_ones_own():
    logs = train(make_model(Doubtful()), batches()[:1])[1][0]
    for task in TASKS:
        assert logs[f"{task}_weight"] == (0.5 if logs[f"{task}_loss"] > 5 else 2.0)
    expected = sum(logs[f"{task}_weight"] * logs[f"{task}_loss"] for task in TASKS)
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)


def test_selective_updates_take_no_weights_of_batches():
    method = tag_keras.SelectiveTaskGroupUpdates()
    with pytest.raises(ValueError, match=r"`loss_weighting` has no part.* Received: .*=GLS"):
        make_model(tag_keras.GLS(), gradient_method=method)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tag_keras.STCH(mu=0), r"`mu` should be a positive number, such as 1.0. Received"),
        (lambda: tag_keras.FAMO(learning_rate=-1), "`learning_rate` should be a number of at lea"),
        (lambda: tag_keras.FAMO(decay="no"), "`decay` should be a number of at least 0. Received"),
        (lambda: tag_keras.RLW(seed=-1), "`seed` should be an integer from 0 on"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class WithoutALook(tag_keras.LossWeighting):
    """The weights of FAMO while its scores are 0."""

    def batch_weights(self, losses, has_labels):
        parts = 1 / (losses + 1e-8)
        return 3 * parts / tf.reduce_sum(parts)


@pytest.mark.parametrize("affinity", [None, "cosine"])
def test_a_look_after_the_step_leaves_no_trace(affinity):
    # With BatchNorm and dropout, whose state and random numbers go on as without a look.
    x, y = make_data(24)
    results = []
    for weighting in (tag_keras.FAMO(learning_rate=0, decay=0), WithoutALook()):
        keras.utils.set_random_seed(0)
        model = make_deep_model()
        kwargs = {"affinity": tag_keras.CosineAffinity(every=2)} if affinity else {}
        model.compile("sgd", "mse", loss_weighting=weighting, run_eagerly=True, **kwargs)
        logs = model.fit(x, y, 8, epochs=2, shuffle=False, verbose=0).history
        own = {id(one) for one in model.loss_weighting.weights}
        results.append((logs, [one.numpy() for one in model.variables if id(one) not in own]))
    (logs, values), (expected_logs, expected) = results
    for name in logs:
        assert logs[name] == pytest.approx(expected_logs[name], rel=1e-6)
    for value, wanted in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)


def watching():
    """A weighting, and the losses before and after each step, which it adds to a list."""
    seen = []

    class Looks(tag_keras.EqualWeighting):
        def update(self, losses, labels, norms=None):
            seen.append([float(loss) for loss in losses])

        def after_step(self, losses, has_labels):
            seen.append(losses.numpy().tolist())

    return Looks(), seen


def test_a_look_sees_the_losses_after_the_step():
    weighting, seen = watching()
    model = make_model(weighting)
    x, y = batches()[0]
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(2)]
    before, after, again, _ = seen
    assert before == pytest.approx([logs[0][f"{task}_loss"] for task in TASKS], rel=1e-6)
    assert after == pytest.approx(again, rel=1e-6) and sum(after) < sum(before)


def test_a_look_has_the_dropout_of_the_step():
    weighting, seen = watching()
    keras.utils.set_random_seed(0)
    model = make_deep_model(dropout=0.5)
    # The variables stay, so the same masks give the same losses.
    model.compile(keras.optimizers.SGD(0.0), "mse", loss_weighting=weighting, run_eagerly=True)
    x, y = make_data(16)
    model.fit(x, y, 8, shuffle=False, verbose=0)
    assert seen[0] == pytest.approx(seen[1], rel=1e-6)
    assert seen[2] == pytest.approx(seen[3], rel=1e-6)
