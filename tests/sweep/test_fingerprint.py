"""Fingerprints: equal for what is built or loaded twice, and what differs is named."""

import functools
import json
import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from quick_start import python_path
from sweep_job import DATA, build_model

import tag_keras
from tag_keras.sweep.descriptions import describe
from tag_keras.sweep.fingerprint import of_data, of_fit, of_model, of_network
from tag_keras.utils import child_processes
from tag_keras.utils.differences import differences, not_compared

layers = keras.layers


def functional(width=8, rate=0.1, loss="mse", twice=False, names=("a", "b"), frozen=0):
    x = keras.Input((5,))
    hidden = layers.Dense(width, "relu")(x)
    hidden = layers.BatchNormalization()(hidden)
    for _ in range(frozen):
        hidden = layers.Dense(3, trainable=False)(hidden)
    if twice:
        hidden = hidden + 1.0
    model = keras.Model(x, {name: layers.Dense(1)(hidden) for name in names})
    model = tag_keras.MultiTaskModel.from_functional(model)
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def changes(before, now):
    return differences({"model": of_model(before)}, {"model": of_model(now)})


def test_what_differs_between_two_models_is_named():
    before = functional()
    assert changes(before, functional()) == []
    assert changes(before, functional(width=512)) == ["units of dense was 8 and is 512"]
    assert changes(before, functional(rate=0.01)) == [
        "learning_rate of optimizer was 0.1 and is 0.01"
    ]
    assert changes(before, functional(loss="mae")) == ["loss was mse and is mae"]
    assert "dense_3 was absent" in "; ".join(changes(before, functional(names="abc")))
    assert changes(before, functional(twice=True))
    schedule = functional(rate=keras.optimizers.schedules.CosineDecay(0.1, 10))
    other = functional(rate=keras.optimizers.schedules.CosineDecay(0.1, 20))
    assert changes(schedule, other) == [
        "decay_steps of learning_rate of optimizer was 10 and is 20"
    ]


def build_parts(tasks, width=4, momentum=0.9, weighting=None, method=None, heads=1):
    normalization = layers.BatchNormalization(momentum=momentum)
    encoder = keras.Sequential([layers.Dense(width), normalization, layers.Dropout(0.5)])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(heads) for task in tasks})
    model.compile(
        "adam", dict.fromkeys(tasks, "mse"), loss_weighting=weighting, gradient_method=method
    )
    return model


def test_a_model_that_is_not_built_yet():
    before = build_parts("ab")
    assert changes(before, build_parts("ab")) == []
    assert changes(before, build_parts("ab", momentum=0.5)) == [
        "momentum of batch_normalization was 0.9 and is 0.5"
    ]
    assert changes(before, build_parts("ab", width=5)) == ["units of dense was 4 and is 5"]
    assert "units of dense_1" in changes(before, build_parts("ab", heads=2))[0]
    weighted = build_parts("ab", weighting=tag_keras.DynamicWeightAverage(temperature=3.0))
    assert changes(before, weighted)
    colder = build_parts("ab", weighting=tag_keras.DynamicWeightAverage(temperature=2.0))
    assert changes(weighted, colder) == ["temperature of loss_weighting was 3.0 and is 2.0"]
    method = build_parts("ab", method=tag_keras.PCGrad())
    assert "gradient_method was absent and is" in "; ".join(changes(before, method))
    # It is short, also for large networks.
    resnet = tag_keras.resnet_encoder(("a",), (32, 32, 3), (2, 2, 2, 2), (8, 16, 32, 64))
    model = tag_keras.MultiTaskModel(resnet, {"a": layers.Dense(1)})
    model.compile("sgd", "mse")
    assert len(json.dumps(of_model(model))) < 30_000


def test_names_that_keras_makes_of_other_names():
    def model():
        recurrent = layers.Bidirectional(layers.LSTM(4))
        part = tag_keras.mtan_encoder(("a",), (8, 8, 1), (2, 2), (2, 2))
        encoder = keras.Sequential([keras.Input((6, 5)), recurrent])
        heads = {"a": layers.Dense(1), "b": part}
        return tag_keras.MultiTaskModel(encoder, heads)

    before = of_model(model())
    assert differences({"model": before}, {"model": of_model(model())}) == []
    assert {"bidirectional", "forward_lstm", "dense"} <= {*before["layers"]}


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_a_model_made_once_has_names_of_its_own_count(kind):
    keras.utils.clear_session()  # So that layers of a later session get the same names.
    inputs = keras.Input((5,))
    parts = [layers.Dense(5, trainable=False), layers.GaussianNoise(0.1), layers.Dropout(0.1)]
    if kind == "sequential":
        once = keras.Sequential([inputs, *parts])
    else:
        once = keras.Model(inputs, parts[1](parts[0](inputs)))

    def build():
        x = keras.Input((5,))
        hidden = layers.Dropout(0.2)(layers.Dense(4)(once(x)))
        model = keras.Model(x, {"a": layers.Dense(1)(hidden), "b": layers.Dense(1)(hidden)})
        model = tag_keras.MultiTaskModel.from_functional(model)
        model.compile("sgd", "mse")
        return model

    before = build()
    # Each time the layers outside and inside have other numbers, or the same.
    for number in range(3):
        keras.utils.clear_session()
        for _ in range(number):
            layers.Dense(1), layers.Dropout(0.1), keras.Input((5,))
        assert changes(before, build()) == []


def test_another_version_of_keras_may_know_more_of_a_layer():
    before = of_model(functional())
    other = json.loads(json.dumps(before))
    other["layers"]["dense"]["news"] = 1
    assert differences({"model": before}, {"model": other}) == ["news of dense was absent and is 1"]
    other["keras"] = "4"
    assert differences({"model": before}, {"model": other}) == []
    other["layers"]["dense"]["units"] = 9
    other["layers"]["more"] = {"class": "Dense"}
    assert len(differences({"model": before}, {"model": other})) == 2


def test_frozen_weights_count_by_content_and_random_ones_do_not():
    keras.utils.set_random_seed(0)
    before = functional(frozen=1)
    keras.utils.set_random_seed(0)
    assert changes(before, functional(frozen=1)) == []
    other = functional(frozen=1)
    assert [text.partition(" was")[0] for text in changes(before, other)] == ["frozen of weights"]
    assert changes(functional(), functional()) == []


def normalized(x):
    normalization = layers.Normalization()
    normalization.adapt(x)
    encoder = keras.Sequential([keras.Input((5,)), normalization, layers.Dense(4)])
    model = tag_keras.MultiTaskModel(encoder, {"a": layers.Dense(1)})
    model.compile("sgd", "mse")
    return model


def test_means_over_shuffled_data_are_the_same_and_those_of_other_data_are_not():
    x = np.random.default_rng(0).normal(1.0, 3.0, (1000, 5)).astype("float32")
    models = [normalized(x[np.random.default_rng(seed).permutation(1000)]) for seed in range(3)]
    means = [np.array(model.encoder.layers[0].mean) for model in models]
    assert any((mean != means[0]).any() for mean in means)
    assert [changes(models[0], model) for model in models] == [[]] * 3
    assert "frozen of weights was" in changes(models[0], normalized(x[:990]))[0]
    # Two features that changed their places.
    assert "frozen of weights was" in changes(models[0], normalized(x[:, [1, 0, 2, 3, 4]]))[0]


@pytest.mark.slow
def test_frozen_weights_may_be_infinite():
    def masked(value):
        model = functional(frozen=1)
        model.encoder.layers[-3].kernel.assign(np.full((8, 3), value))
        return model

    for value in (np.inf, -np.inf, np.nan):
        assert changes(masked(value), masked(value)) == []
        assert changes(masked(value), masked(0.0)) != []


def make_loss(scale):
    return lambda y, p: scale * keras.ops.mean((y - p) ** 2, -1)


def make_other_loss(scale):
    return lambda y, p: scale * keras.ops.mean(keras.ops.abs(y - p), -1)


class Scaled(keras.losses.Loss):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def call(self, y_true, y_pred):
        return self.scale * keras.ops.mean((y_true - y_pred) ** 2, -1)


@pytest.mark.slow
def test_losses_of_the_user_count_by_their_code():
    before = functional(loss=make_loss(1.0))
    assert changes(before, functional(loss=make_loss(1.0))) == []
    for loss in (make_loss(2.0), make_other_loss(1.0)):
        texts = changes(before, functional(loss=loss))
        assert texts and all(text.partition(" was")[0].endswith(" of loss") for text in texts)
    custom = functional(loss=Scaled())
    assert changes(custom, functional(loss=Scaled())) == []
    assert changes(custom, functional(loss=Scaled(3.0))) == ["scale of loss was 1.0 and is 3.0"]


def test_layers_of_the_user_count_by_their_code():
    def encoder(width):
        class Own(layers.Layer):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def call(self, inputs):
                return self.inner(inputs)

        class Wide(Own):
            def __init__(self):
                super().__init__(layers.Dense(8))

        class Wider(Own):
            def __init__(self):
                super().__init__(layers.Dense(9))

        Wider.__qualname__ = Wide.__qualname__
        return {8: Wide, 9: Wider}[width]()

    def model(width):
        model = tag_keras.MultiTaskModel(encoder(width), {"a": layers.Dense(1)})
        model.compile("sgd", "mse")
        return model

    assert changes(model(8), model(8)) == []
    assert "units of dense was 8 and is 9" in changes(model(8), model(9))


SCALE = 2.0
VALUES = {"x": np.arange(3.0)}
CALLS = []


def helper():
    return SCALE * VALUES["x"]


def load():
    CALLS.append(1)
    return helper()


def with_globals(function, **names):
    """The function, in a module whose global variables are `names`."""
    changed = types.FunctionType(function.__code__, {**function.__globals__, **names})
    changed.__module__, changed.__qualname__ = function.__module__, function.__qualname__
    return changed


def test_functions_count_by_code_and_by_the_constants_and_arrays_they_read():
    text = json.dumps(describe(load))
    assert json.dumps(describe(with_globals(load))) == text
    # A list that is added to is no constant.
    assert json.dumps(describe(with_globals(load, CALLS=[1, 2]))) == text
    assert json.dumps(describe(with_globals(load, CALLS=(1, "a")))) != text
    assert json.dumps(describe(with_globals(load, CALLS=[(VALUES["x"], VALUES)]))) != text
    assert json.dumps(describe(with_globals(load, helper=make_loss))) != text
    other = with_globals(helper, VALUES={"x": np.arange(4.0)})
    assert json.dumps(describe(with_globals(load, helper=other))) != text
    other = with_globals(helper, SCALE=3.0)
    assert json.dumps(describe(with_globals(load, helper=other))) != text

    def documented():
        """Text."""
        return 1.5

    def plain():
        """Other text."""
        return 1.5

    plain.__qualname__ = documented.__qualname__
    assert describe(plain) == describe(documented)
    twice = functools.partial(np.multiply, 2, out=np.zeros(2))
    assert describe(twice) == describe(functools.partial(np.multiply, 2, out=np.zeros(2)))
    assert describe(twice) != describe(functools.partial(np.multiply, 3, out=np.zeros(2)))


def test_a_global_variable_that_differs_is_named():
    def data(**names):
        return of_data({"train": with_globals(load, helper=with_globals(helper, **names))})

    found = differences({"data": data(STAMP="at one")}, {"data": data(STAMP="at two")})
    assert found == []
    found = differences({"data": data()}, {"data": data(SCALE=3.0)})
    assert found == ["SCALE of variables of train was 2.0 and is 3.0"]


def test_data_count_by_content_where_it_can_be_known():
    x, y = DATA["train"]
    before = of_data({"train": (x, y), "validation": lambda: (x, y)})
    assert differences({"data": before}, {"data": of_data({"train": (x.copy(), dict(y))})}) == []
    # Also of a changed order, type or name.
    for other in (x[::-1], x.astype("float64"), np.concatenate([x, x])):
        (text,) = differences({"data": before}, {"data": of_data({"train": (other, y)})})
        assert text.startswith("x of train was float32 (40, 5) ")
    (text,) = differences({"data": before}, {"data": of_data({"train": (x, {**y, "e": x})})})
    assert text.startswith("e of y of train was float64 (40,)")
    assert not_compared({"data": before}) == ["validation"]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    found = of_data({"train": batches})
    assert not_compared({"data": found}) == ["train"]
    (text,) = differences({"data": found}, {"data": of_data({"train": batches.take(2)})})
    assert text == "batches of train was 5 and is 2"

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

    found = of_data({"train": Batches()})["train"]
    assert found == {"class": Batches.__qualname__, "batches": 3, "values": "not compared"}
    assert of_data({"train": keras.utils.PyDataset()})["train"]["batches"] is None
    words = np.array(["a", "b"], object)
    assert describe(words) == describe(np.array(["a", "b"], object)) != describe(words[::-1])


def test_callbacks_count_but_not_where_they_write():
    def described(patience=3, folder="x", schedule=lambda epoch: 0.1):
        stop = keras.callbacks.EarlyStopping(patience=patience)
        log = keras.callbacks.TensorBoard(folder)
        rates = keras.callbacks.LearningRateScheduler(schedule)
        fit = {"callbacks": [stop, log, rates, stop], "verbose": 2, "epochs": 3}
        return {"fit": of_fit({**fit, "class_weight": None})}

    before = described()
    assert json.loads(json.dumps(before)) == before and "epochs" not in before["fit"]
    assert differences(before, described(folder="y")) == []
    assert differences(before, described(patience=4)) == [
        "patience of EarlyStopping of callbacks was 3 and is 4",
        "patience of EarlyStopping_1 of callbacks was 3 and is 4",
    ]
    assert differences(before, described(schedule=lambda epoch: 0.2))
    assert differences({"fit": {}}, before)[0].startswith("callbacks was absent and is {")
    assert of_fit({"callbacks": [], "epochs": 2}) == of_fit({}) == {}

    class Clock(keras.callbacks.Callback):
        def __init__(self, patience, started):
            super().__init__()
            self.patience, self.started = patience, started

    def by_network(folder):
        return {"callbacks": lambda network: [keras.callbacks.TensorBoard(folder)]}

    # What may hold the time.
    assert of_fit(by_network("12:30")) == of_fit(by_network("12:31"))
    clock = of_fit({"callbacks": [Clock(3, 0.5)]})
    assert clock == of_fit({"callbacks": [Clock(3, 0.7)]}) != of_fit({"callbacks": [Clock(4, 0.5)]})


@pytest.mark.slow
def test_another_process_describes_a_model_alike(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path(), prepend=os.pathsep)
    here = of_network(build_model, ("a", "b"), 0)
    assert of_network(build_model, ("a", "b"), 0, gpus=["0"]) == here

    def call(self, payload, log, environment):
        log.write_text("a notice\nValueError: no such task\n")
        return 1

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    with pytest.raises(
        ValueError, match=r"failed for the tasks \['a'\]:\na notice\nValueError: no"
    ):
        of_network(build_model, ("a",), 0, gpus=["0"])


def test_many_differences_are_counted():
    before = {"fit": {str(index): index for index in range(9)}}
    now = {"fit": {str(index): index + 1 for index in range(9)}}
    assert differences(before, now)[3:] == [
        "3 was 3 and is 4",
        "4 was 4 and is 5",
        "and 4 more differences",
    ]
