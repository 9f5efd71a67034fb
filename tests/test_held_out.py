"""Affinities on held-out data, against closed forms and steps by hand; what the data may be."""

import functools
import json
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_resume import Kill

import tag_keras
from tag_keras import LookaheadAffinity
from tag_keras.held_out import open_data
from tag_keras.held_out_batches import HeldOutBatches

TASKS = ("b", "a", "c")
NAN = float("nan")


# What is measured.


class Point(keras.layers.Layer):
    """A shared vector theta (2,), the same for every example."""

    def build(self, shape):
        self.theta = self.add_weight(shape=(2,), initializer="zeros")

    def call(self, x):
        return self.theta + 0 * x


def half_square(y_true, y_pred):
    return 0.5 * tf.reduce_sum((y_pred - y_true) ** 2, axis=-1)


TRAINING = np.array([[1, 0], [0, 1], [-1, 0]], "float32")
HELD_OUT = np.array([[2, 0], [1, 1], [0, -1]], "float32")


def centres(points, size=4):
    """Labels of so many examples, the same for all of them."""
    y = {task: np.tile(point, (size, 1)) for task, point in zip(TASKS, points, strict=True)}
    return np.zeros((size, 2), "float32"), y


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_quadratic_losses_with_other_centres_have_a_closed_form(momentum, baseline):
    # L_j(theta) = |theta - c_j|^2 / 2 on the training batch, and the same with e_j on the held-out
    # batch. At theta = 0 the step for i is d_i = 0.1 c_i + momentum v, where v is the slot, and
    # Z[i, j] = 1 - |d_i - e_j|^2 / |e_j|^2 = (2 d_i.e_j - |d_i|^2) / |e_j|^2.
    slot = np.array([0.2, 0.0])
    steps = 0.1 * TRAINING + momentum * slot
    squares = (HELD_OUT**2).sum(axis=1)
    expected = (2 * steps @ HELD_OUT.T - (steps**2).sum(axis=1)[:, None]) / squares
    if baseline:
        zero = momentum * slot
        expected = expected - (2 * HELD_OUT @ zero - zero @ zero) / squares

    heads = {task: keras.layers.Identity() for task in TASKS}
    model = tag_keras.MultiTaskModel(Point(), heads)
    options = LookaheadAffinity(1, baseline=baseline, on=centres(HELD_OUT))
    optimizer = keras.optimizers.SGD(0.1, momentum=momentum)
    model.compile(optimizer, half_square, affinity=options, run_eagerly=True)
    model(np.zeros((1, 2), "float32"))
    optimizer.build(model.trainable_variables)
    if momentum:
        optimizer.momentums[0].assign(slot)
    model.fit(*centres(TRAINING), verbose=0)
    np.testing.assert_allclose(model.get_affinity().mean, expected, atol=1e-6)


def make_data(size=48, seed=0):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(size, 5)), rng.normal(size=(3, size))
    y = {task: (x[:, i] + labels[i]).astype("float32") for i, task in enumerate(TASKS)}
    return x.astype("float32"), y


def dataset_of(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


def linear():
    return [keras.layers.Dense(4)]


def make_model(affinity, stack=linear, optimizer=None, **compile_arguments):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((5,)), *stack()])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    # Eagerly, because tracing a function takes longer than a few steps.
    arguments = {"run_eagerly": True, **compile_arguments}
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", affinity=affinity, **arguments)
    return model


def forward(values, x, y):
    """Losses of ((x W + b) v + c - y)^2, over the labels that are there, and their gradients."""
    kernel, bias, heads = values
    losses, gradients = [], []
    for (v, c), label in zip(heads, y.values(), strict=True):
        known = ~np.isnan(label)
        error = np.where(known, ((x @ kernel + bias) @ v + c)[:, 0] - np.nan_to_num(label), 0.0)
        number = max(known.sum(), 1)
        losses.append((error**2).sum() / number if known.any() else NAN)
        slope = 2 * error / number
        features = x @ kernel + bias
        gradients.append(
            [np.outer(x.T @ slope, v), slope.sum() * v[:, 0], features.T @ slope, slope.sum()]
        )
    return np.array(losses), gradients


def test_steps_by_hand_where_labels_are_missing():
    """A linear network, trained and probed in NumPy by the formulas of its gradients."""
    x, y = make_data(24)
    held_x, held_y = make_data(18, seed=1)
    # No label of "a" in the second of the three training batches, nor of "c" in the second of two
    # held-out batches; the last two examples are no batch.
    y["a"][8:16], held_y["c"][8:16], y["b"][3], held_y["b"][4] = NAN, NAN, NAN, NAN
    batches = tf.data.Dataset.from_tensor_slices((held_x, held_y)).batch(8)
    model = make_model(LookaheadAffinity(1, on=batches))
    kernel, bias = (weight.numpy().astype("float64") for weight in model.encoder.weights)
    model(x)
    heads = [
        [one.numpy().astype("float64") for one in head.weights] for head in model.heads.values()
    ]

    found = []
    for step in range(6):
        rows, held = (
            slice(8 * (step % 3), 8 * (step % 3) + 8),
            slice(8 * (step % 2), 8 * (step % 2) + 8),
        )
        batch = x[rows], {task: label[rows] for task, label in y.items()}
        target = held_x[held], {task: label[held] for task, label in held_y.items()}
        _, gradients = forward((kernel, bias, heads), *batch)
        before, _ = forward((kernel, bias, heads), *target)
        found.append(
            [
                1
                - forward((kernel - 0.1 * one[0], bias - 0.1 * one[1], heads), *target)[0] / before
                for one in gradients
            ]
        )
        if step % 3 == 1:
            found[-1][1] = np.full(3, NAN)
        kernel = kernel - 0.1 * sum(one[0] for one in gradients)
        bias = bias - 0.1 * sum(one[1] for one in gradients)
        heads = [
            [v - 0.1 * one[2][:, None], c - 0.1 * one[3]]
            for (v, c), one in zip(heads, gradients, strict=True)
        ]

    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, (~np.isnan(found)).sum(axis=0))
    # Of 6 probes "a" was a source in 4, and "c" a target in 3, of which "a" took part in 2.
    np.testing.assert_array_equal(affinity.count, [[6, 6, 3], [4, 4, 2], [6, 6, 3]])
    assert not affinity.skipped.any()
    np.testing.assert_allclose(affinity.mean, np.nanmean(found, axis=0), rtol=1e-4, atol=1e-6)


def stack():
    layers = keras.layers
    return [layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dropout(0.3)]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"steps_per_execution": 2},
        # Tracing the probe takes as long as all other tests together.
        *(
            pytest.param(
                {"run_eagerly": False, "jit_compile": True, **more}, marks=pytest.mark.slow
            )
            for more in ({}, {"steps_per_execution": 3})
        ),
    ],
)
def test_the_training_batch_held_out_gives_what_is_measured_without(arguments):
    x, y = make_data(16)
    same = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    found = []
    for on in (None, same):
        options = LookaheadAffinity(2, baseline=True, on=on)
        model = make_model(options, stack, optimizer="adam", **arguments)
        model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(3), shuffle=False, verbose=0)
        found.append(model.get_affinity())
    np.testing.assert_allclose(found[1].mean, found[0].mean, atol=1e-6)
    assert (found[0].count == 2).all() and (found[1].count == 2).all()


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_training_is_as_without_a_probe(kind):
    arrays = make_data(20, seed=1)
    on = arrays if kind == "arrays" else lambda: tf.data.Dataset.from_tensors(arrays)
    states = []
    for affinity in (None, LookaheadAffinity(2, on=on)):
        model = make_model(affinity, stack, optimizer="adam")
        # Shuffled by the global seeds.
        model.fit(*make_data(32), batch_size=8, verbose=0)
        own = {id(one) for one in model._statistics.weights}
        variables = [one for one in model.variables if id(one) not in own]
        states.append([one.numpy() for one in (*variables, *model.optimizer.variables)])
        states[-1].append(np.random.uniform() + tf.random.uniform(()).numpy())
    for value, expected in zip(*states, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_data_may_end_where_a_probe_would_be(steps_per_execution):
    # Of unknown size, so that only the end of the data tells that of an epoch.
    data = dataset_of(*make_data(8)).batch(4).filter(lambda x, y: True)
    losses = []
    for affinity in (None, LookaheadAffinity(1, on=make_data(4, seed=1))):
        model = make_model(affinity, steps_per_execution=steps_per_execution)
        history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
        losses.append(history["loss"])
    assert (model.get_affinity().count == 4).all()
    assert losses[1] == pytest.approx(losses[0], abs=1e-6) and len(losses[1]) == 2


def in_precision(dtype):
    return [keras.layers.Dense(8, "tanh", dtype=dtype), keras.layers.Dense(4, dtype=dtype)]


def test_mixed_precision():
    means = []
    for dtype in ("float32", "mixed_bfloat16"):
        layers = functools.partial(in_precision, dtype)
        model = make_model(LookaheadAffinity(10**6, on=make_data(16, seed=1)), layers)
        model.fit(*make_data(16), batch_size=16, shuffle=False, verbose=0)
        means.append(model.get_affinity().mean)
    # Only the gradients are rounded to 8 bits.
    np.testing.assert_allclose(means[1], means[0], atol=0.02 * np.abs(means[0]).max())


def test_a_killed_training_goes_on_with_the_held_out_batches_that_come_next(tmp_path):
    def train(folder, *callbacks, seed=0):
        model = make_model(LookaheadAffinity(2, on=make_data(20, seed=1)))
        tf.random.set_seed(seed)
        model(make_data()[0])
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, save_freq=4)
        arguments = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
        model.fit(*make_data(24), callbacks=[backup, *callbacks], **arguments)
        return model.get_affinity()

    expected = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", Kill(5))
    resumed = train("killed", seed=9)
    np.testing.assert_array_equal(resumed.count, expected.count)
    np.testing.assert_allclose(resumed.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(resumed.history, expected.history, atol=1e-6)


def test_batches_grow_with_those_of_the_training(monkeypatch):
    sizes = []
    original = HeldOutBatches.batch

    def batch(self, *arguments):
        found = original(self, *arguments)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(HeldOutBatches, "batch", batch)
    model = make_model(LookaheadAffinity(1, on=make_data(48, seed=1)))
    model.fit(*make_data(12), batch_size=8, shuffle=False, verbose=0)
    model.fit(*make_data(32), batch_size=16, shuffle=False, verbose=0)
    # The remainder of 4 changes nothing. That batches are larger is known after the first of them.
    assert sizes == [8, 8, 8, 16]


# The options.


def test_a_saved_model_measures_no_more_before_it_is_given_data(tmp_path):
    x, y = make_data(8)
    model = make_model(LookaheadAffinity(2, on=make_data(8, seed=1)))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    np.testing.assert_array_equal(loaded.get_affinity().mean, model.get_affinity().mean)
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["a"], model.predict(x, verbose=0)["a"])
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert loaded._affinity_options == LookaheadAffinity(2, on="held-out data")
    message = "A saved model does not hold the held-out data that it measured affinities on. Give "
    with pytest.raises(ValueError, match=message):
        loaded.fit(x, y, verbose=0)
    loaded.compile("sgd", "mse", affinity=LookaheadAffinity(on=(x, y)), run_eagerly=True)
    loaded.fit(x, y, verbose=0)
    assert (loaded.get_affinity().count == 1).all()


def test_options_are_written_copied_and_compared_without_the_data():
    data = make_data()
    options = LookaheadAffinity(3, on=data)
    written = json.loads(json.dumps(options.get_config()))
    assert written == {"every": 3, "update": "optimizer", "baseline": False, "on": "held-out data"}
    assert LookaheadAffinity(3).get_config()["on"] is None
    assert LookaheadAffinity.from_config(written) == LookaheadAffinity(3, on="held-out data")
    assert LookaheadAffinity.from_config({"every": 3}) == LookaheadAffinity(3)
    assert repr(options) == "LookaheadAffinity(every=3, update='optimizer', baseline=False)"

    copy = pickle.loads(pickle.dumps(options))
    np.testing.assert_array_equal(copy.on[1]["a"], data[1]["a"])
    # The same data are those that are the same object.
    assert options == LookaheadAffinity(3, on=data) != LookaheadAffinity(3, on=make_data())
    assert len({options, LookaheadAffinity(3, on=data), copy, LookaheadAffinity(3)}) == 3
    assert options != LookaheadAffinity(4, on=data)
    assert options != tag_keras.FirstOrderAffinity(3)


def test_settings_tell_arrays_from_others():
    x, y = make_data()

    def settings(*on):
        return LookaheadAffinity(3, on=on).settings()

    known = settings(x, y)
    assert json.loads(json.dumps(known)) == known
    assert re.fullmatch(r"held-out data, 4 arrays, CRC-32 [0-9a-f]{8}", known.pop("on"))
    assert known == {"every": 3, "update": "optimizer", "baseline": False}
    changed = x.copy()
    changed[-1, -1] += 1
    others = [
        (changed, y),
        (x[:, ::-1], y),
        (x.reshape(5, 48), y),
        ([x], y),
        (x.view("int32"), y),
        (x, {**y, "a": y["b"], "b": y["a"]}),
        (x, {"b": y["b"], "a": y["a"]}),
        (x, y["a"]),
        (x, y, {"a": np.ones(48)}),
        (x, y, np.ones(48)),
    ]
    found = {settings(*one)["on"] for one in [(x, y), *others]}
    assert len(found) == 1 + len(others)
    # The same data in other words: what trains alike.
    for one in [
        [x.astype("float64"), {task: label.tolist() for task, label in y.items()}],
        (np.asfortranarray(x), dict(reversed(y.items())), None),
        (tf.constant(x), y),
    ]:
        assert settings(*one)["on"] == settings(x, y)["on"]


def test_settings_do_not_look_into_what_would_have_to_be_run():
    def never():
        raise AssertionError

    for on in (never, dataset_of(*make_data()).batch(4), "held-out data"):
        assert LookaheadAffinity(on=on).settings()["on"] == "held-out data"
    assert LookaheadAffinity().settings()["on"] is None
    assert tag_keras.CosineAffinity(3).settings() == {"every": 3, "kernels_only": True}


# Batches.


def take(batches, number):
    return [batch[0].numpy() for batch in batches.take(number)]


def test_arrays_are_shuffled_anew_in_each_pass_in_the_same_order_every_time():
    x, y = make_data(10)
    batches = open_data((x, y), TASKS).batches
    found = take(batches(4, 0), 60)
    assert {one.shape for one in found} == {(4, 5)}
    numbers = np.array(
        [[np.flatnonzero((x == row).all(axis=1))[0] for row in one] for one in found]
    )
    passes = numbers.reshape(30, 8)
    # 8 of 10 in each pass, none twice; of 30 passes no two are alike, and all have their turns.
    assert all(len(set(one)) == 8 for one in passes)
    assert len(set(map(tuple, passes))) == 30
    assert set(passes.ravel()) == set(range(10))
    tf.random.set_seed(5)
    for passed in (0, 1, 2, 7):
        np.testing.assert_array_equal(take(batches(4, passed), 3), found[passed : passed + 3])
    # Fewer than a batch are one batch.
    assert [sorted(one.ravel()) for one in take(batches(16, 3), 2)] == [sorted(x.ravel())] * 2


def test_labels_and_weights_stay_with_their_inputs_and_floats_are_those_of_keras():
    x = {"p": np.arange(6.0), "q": [np.arange(6), np.arange(6, dtype="float32")[:, None]]}
    y = {task: 10.0 * np.arange(6) + i for i, task in enumerate((*TASKS, "of no head"))}
    weights = {"a": np.arange(6) + 0.5, "of no head": np.ones(6)}
    for batch in open_data((x, y, weights), TASKS).batches(2, 0).take(4):
        inputs, labels, kept = batch
        rows = inputs["p"].numpy()
        assert (inputs["p"].dtype, inputs["q"][0].dtype) == ("float32", "int64")
        np.testing.assert_array_equal(inputs["q"][0], rows)
        np.testing.assert_array_equal(inputs["q"][1][:, 0], rows)
        assert list(kept) == ["a"] and set(labels) == set(TASKS)
        np.testing.assert_array_equal(labels["c"], 10 * rows + 2)
        np.testing.assert_array_equal(kept["a"], rows + 0.5)


@pytest.mark.parametrize("order", ["the remainder last", "the remainder first"])
def test_a_dataset_is_repeated_without_its_remainder(order):
    x, y = make_data(10)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    if order.endswith("first"):
        dataset = dataset.skip(2).concatenate(dataset.take(2))
    batches = open_data(dataset, TASKS).batches
    np.testing.assert_array_equal(take(batches(16, 0), 4), [x[:4], x[4:8]] * 2)
    np.testing.assert_array_equal(take(batches(16, 3), 2), [x[4:8], x[:4]])
    # A single batch is none that is left out.
    alone = open_data(tf.data.Dataset.from_tensors((x, y)), TASKS).batches
    np.testing.assert_array_equal(take(alone(16, 0), 2), [x, x])


def test_one_task_may_have_labels_that_are_no_dict():
    x, y = make_data(6)
    for on in ((x, y["a"]), tf.data.Dataset.from_tensors((x, y["a"]))):
        (batch,) = open_data(on, ("a",)).batches(6, 0).take(1)
        assert sorted(batch[1]["a"].numpy()) == sorted(y["a"])


# Errors.

X, Y = make_data(8)
WITHOUT = {**Y, "a": np.full(8, NAN)}


@pytest.mark.parametrize("on", [3, "validation", (X,), [X, Y, None, None], {"x": X}])
def test_data_that_are_none(on):
    message = r"`on` should be held-out data: `\(x, y\)` or .* that gives one of these\. Received: "
    with pytest.raises(ValueError, match=message):
        LookaheadAffinity(on=on)
    with pytest.raises(ValueError, match=message):
        open_data(lambda: on, TASKS)


@pytest.mark.parametrize("given", [None, "held-out data", lambda: (X, Y)])
def test_a_function_that_gives_no_data(given):
    with pytest.raises(ValueError, match=r"Received: a function that gave "):
        open_data(lambda: given, TASKS)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (
            (X, {"a": Y["a"], "d": Y["a"]}),
            "The held-out data (`on`) lack labels. Labels should hold every task of the model. "
            "Missing: ['b', 'c']. Received: ['a', 'd']. Give them labels of these tasks, or leave",
        ),
        ((X, Y["a"]), "(`on`) lack labels. Labels should be a dict with the tasks ['b', 'a', 'c']"),
        (dataset_of(X, {"a": Y["a"]}).batch(4), "lack labels. Labels should hold every task of"),
        (
            (X, WITHOUT),
            "The held-out data (`on`) have no label of the tasks ['a']: all are NaN or have the "
            "sample weight 0. Give them labels of these tasks, or leave the tasks out of the",
        ),
        ((X, Y, {"b": np.zeros(8)}), "have no label of the tasks ['b']"),
        ((X, Y, np.zeros(8)), "have no label of the tasks ['b', 'a', 'c']"),
        ((X, WITHOUT, {"a": np.ones((8, 1)), "c": np.zeros(8)}), "of the tasks ['a', 'c']"),
        (
            (X[:7], Y),
            "should all have the same number of examples, at least 1. Received: shapes [(7, 5), (8",
        ),
        (
            (X[:0], {task: [] for task in TASKS}),
            "at least 1. Received: shapes [(0, 5), (0,), (0,), (0",
        ),
        ((1.0, dict.fromkeys(TASKS, 2.0)), "at least 1. Received: shapes [(), ()"),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(4),
            "should have elements (x, y) or (x, y, sample_weight). Received: element_spec=TensorSp",
        ),
        (
            dataset_of(X, Y),
            "should give batches of examples: batch it with `batch`. Received: labels of shape ().",
        ),
        (dataset_of(X, Y).batch(4).take(0), "Received: a dataset without any batch."),
    ],
)
def test_data_that_are_not_what_they_should_be_are_found_before_any_step(on, message):
    model = make_model(LookaheadAffinity(on=on))
    before = model.get_weights()
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, verbose=0)
    np.testing.assert_equal(model.get_weights(), before)


def test_inputs_unlike_those_of_the_training():
    columns = {task: Y[task][:, None] for task in TASKS}
    model = make_model(LookaheadAffinity(on=dataset_of(X, columns)))
    message = "which have the shapes (8, 5) in a batch. Received: (5,)."
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, columns, verbose=0)
    model = make_model(LookaheadAffinity(on=({"image": X}, Y)))
    message = "which have the shapes (8, 5) in a batch. Received: {'image': (8, 5)}."
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, verbose=0)


def test_a_dataset_whose_labels_of_a_task_are_all_missing():
    x, y = make_data(12)
    model = make_model(LookaheadAffinity(on=dataset_of(X, WITHOUT).batch(4)))
    message = "The held-out data (`on`) have no label of the tasks ['a']: all are NaN or have the "
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(x, y, verbose=0)
    model = make_model(LookaheadAffinity(on=dataset_of(X, Y, np.zeros(8)).batch(4)))
    with pytest.raises(ValueError, match=re.escape("no label of the tasks ['b', 'a', 'c']")):
        model.fit(x, y, verbose=0)


def test_a_rare_label_may_be_in_no_held_out_batch_that_was_probed():
    rare = {**Y, "a": np.where(np.arange(8) < 7, NAN, Y["a"])}
    for on in (dataset_of(X, rare).batch(4), (X, rare)):
        model = make_model(LookaheadAffinity(10, on=on))
        model.fit(*make_data(12), batch_size=4, shuffle=False, verbose=0)
        assert (model.get_affinity().count[:, 0] == 1).all()


def test_a_dataset_whose_later_passes_have_no_batch_of_the_same_size():
    passes = iter([4, 4, 3, 3, 3, 3])

    def batches():
        size = next(passes)
        yield X[:size], {task: Y[task][:size] for task in TASKS}

    floats = tf.TensorSpec((None,), "float32")
    signature = (tf.TensorSpec((None, 5), "float32"), dict.fromkeys(TASKS, floats))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    model = make_model(LookaheadAffinity(1, on=dataset))
    message = "The held-out dataset (`on`) has come to an end, without a batch as large as one "
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, Y, batch_size=2, verbose=0)
