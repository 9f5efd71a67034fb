"""A network of a stack ends as it ends alone: weights, optimizer, losses and metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks_together import TASKS, check_equal, check_same_variables, data

import tag_keras
from tag_keras.sweep import Job, Network, load_network, run_sweep
from tag_keras.sweep.stack import jobs
from tag_keras.sweep.stack.network_stack import NetworkStack
from tag_keras.sweep.stack.parts import Parts

L = keras.layers
# All tasks; some in another order, from another seed.
NETWORKS = [Network("joint", TASKS), Network("cb", ("c", "b"), 1)]


def run(folder, build_model, data, networks=NETWORKS, **fit):
    """Trains networks together, and alone; gives both folders, and the networks."""
    fit = {"epochs": 2, "batch_size": 16, "verbose": 0, **fit}
    jobs = [Job(network, build_model, fit) for network in networks]
    for stack in (True, False):
        run_sweep(folder / str(stack), jobs, data, processes=0, stack=stack)
    return folder / "True", folder / "False", networks


def builder(layers, optimizer="adam", heads=lambda task: L.Dense(1), **options):
    def build_model(tasks):
        encoder = keras.Sequential(layers())
        model = tag_keras.MultiTaskModel(encoder, {task: heads(task) for task in tasks})
        rate = optimizer() if callable(optimizer) else optimizer
        model.compile(rate, "mse", **{name: value(tasks) for name, value in options.items()})
        return model

    return build_model


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "adadelta": lambda: keras.optimizers.Adadelta(0.1),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "ftrl": lambda: keras.optimizers.Ftrl(0.1),
    "lamb": lambda: keras.optimizers.Lamb(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 6)),
}


def some_slow(names, fast):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some_slow(OPTIMIZERS, fast=["adam", "global_clipnorm"]))
def test_optimizers(name):
    check_steps(builder(lambda: [L.Dense(4, "relu")], OPTIMIZERS[name]), *data()["train"])


def check_steps(build_model, x, y):
    """Makes three steps by hand: `fit` would trace a graph for each network."""
    networks = [NETWORKS[0], Network("c", ("c",))]
    inputs = keras.KerasTensor((None, *x.shape[1:]), x.dtype.name)
    built = Parts(Job(networks[0], build_model), TASKS, 0, None, inputs)
    built.whole.optimizer.build(built.whole.trainable_variables)
    own = [built.part(network.tasks, network.seed) for network in networks]
    stack = NetworkStack(built.whole, [part.start(0, 0) for part in own])
    batches = [(x[i : i + 8], {task: y[task][i : i + 8] for task in TASKS}) for i in (0, 8, 16)]
    for batch in batches:
        stack.train_on([batch])
    for network, part, values in zip(networks, own, stack.values(), strict=True):
        alone, _ = built._build(network.tasks, network.seed)
        alone.optimizer.build(alone.trainable_variables)
        for batch in batches:
            alone.train_step(keras.tree.map_structure(tf.constant, batch))
        part.end(values)
        check_same_variables(part.model, alone)


@keras.saving.register_keras_serializable()
class Attention(L.Layer):
    """Attention of a sequence to itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # The gradient of a key's bias is 0, but for rounding.
        self.attention = L.MultiHeadAttention(2, 3, use_bias=False)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


LAYERS = {
    "lstm": (lambda: [L.LSTM(4)], data((3, 3))),
    "gru": (lambda: [L.Bidirectional(L.GRU(3))], data((3, 3))),
    "embedding": (
        lambda: [L.Embedding(20, 3), L.GlobalAveragePooling1D(), L.Dense(4)],
        data((5,), "int32"),
    ),
    "convolution": (
        lambda: [L.Conv2D(3, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(4)],
        data((8, 8, 2)),
    ),
    "attention": (lambda: [L.Dense(6), Attention(), L.Flatten()], data((5, 3))),
    "regularisers": (
        lambda: [
            L.Dense(5, kernel_regularizer="l2", activity_regularizer="l1"),
            L.LayerNormalization(),
        ],
        data(),
    ),
}


@pytest.mark.parametrize("name", some_slow(LAYERS, fast=["convolution", "embedding"]))
def test_layers(name):
    layers, own = LAYERS[name]
    check_steps(builder(layers), *own["train"])


@pytest.mark.slow
def test_states_metrics_and_dropout(tmp_path):
    # A bias before BatchNormalization has a gradient of 0, but for rounding, which Adam blows up to
    # whole steps.
    build_model = builder(
        lambda: [
            L.Dense(5, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.Dropout(0.3),
            L.Dense(4, "tanh"),
        ],
        metrics=lambda tasks: {task: ["mae"] for task in tasks},
    )
    check_equal(*run(tmp_path, build_model, data()))


def dense(optimizer="adam", **options):
    return builder(lambda: [L.Dense(4, "tanh")], optimizer, **options)


@pytest.mark.slow
def test_loss_weights_of_each_network_and_its_learning_rate(tmp_path):
    # Both depend on the number of tasks.
    def build_model(tasks):
        model = dense()(tasks)
        weights = {task: 1 / len(tasks) for task in tasks}
        model.compile(keras.optimizers.Adam(0.01 * len(tasks)), "mae", loss_weights=weights)
        return model

    check_equal(*run(tmp_path, build_model, data()))


def test_callbacks_of_each_network(tmp_path):
    """Networks stop at different epochs, and go back to their best weights."""
    given = [
        keras.callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]
    fit = {"epochs": 6, "callbacks": given, "validation_batch_size": 7}
    build_model = dense(lambda: keras.optimizers.Adam(0.1))
    together, alone, networks = run(tmp_path, build_model, data(), **fit)
    check_equal(together, alone, networks)
    steps = {
        load_network(together / "networks" / network.file).optimizer.iterations.numpy()
        for network in NETWORKS
    }
    assert len(steps) > 1 and min(steps) < 18
    plateau = [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0)]
    check_equal(*run(tmp_path / "plateau", dense("sgd"), data(), epochs=3, callbacks=plateau))


@pytest.mark.slow
def test_arguments_of_fit(tmp_path):
    x, y = data()["train"]
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat()
    fit = {"steps_per_epoch": 2, "validation_freq": 2, "validation_steps": 1, "epochs": 3}
    fit["callbacks"] = [keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=10.0)]
    fit["validation_data"] = data()["validation"]
    splits = {**data(), "train": endless}
    check_equal(*run(tmp_path / "steps", dense(), splits, batch_size=None, **fit))
    check_equal(*run(tmp_path / "order", dense(), data(), shuffle=False, initial_epoch=1))


@pytest.mark.slow
def test_sample_weights_and_metrics(tmp_path):
    def weighed(x, y):
        weights = np.linspace(0, 1, len(x))
        return x, y, {"a": weights, "b": weights[::-1], "c": np.ones(len(x))}

    splits = {name: weighed(*split) for name, split in data().items()}

    def metrics(tasks):
        return {task: ["mae", keras.metrics.R2Score()] for task in tasks}

    check_equal(*run(tmp_path, dense(weighted_metrics=metrics), splits))


@pytest.mark.slow
def test_datasets_and_functions_of_them(tmp_path):
    def shuffled():
        x, y = data()["train"]
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(40).batch(16)

    check_equal(*run(tmp_path, dense(), {**data(), "train": shuffled}, batch_size=None))


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    """In bfloat16, the loss needs no scale. Numbers have 8 bits."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        check_equal(*run(tmp_path, dense(), data()), tolerance=1e-2)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
def test_names_of_layers_that_are_not_given(tmp_path):
    """Heads made before the encoder have its layers count on from theirs."""

    def build_model(tasks):
        heads = {task: L.Dense(1) for task in tasks}
        model = tag_keras.MultiTaskModel(keras.Sequential([L.Dense(3)]), heads)
        model.compile("sgd", "mse")
        return model

    check_equal(*run(tmp_path, build_model, data()))


def test_functional_models(tmp_path):
    """Two tasks have a branch in common; layers have the names that Keras gives them."""

    def build_model(tasks):
        image = keras.Input((6,))
        trunk = L.Dense(5, "relu")(image)
        # A layer with two calls, and an operation with an argument.
        twice = L.Dense(5, "tanh")
        branch = keras.ops.add(twice(trunk), 0.5 * twice(twice(trunk)))
        made = {"a": lambda: L.Dense(1)(branch), "b": lambda: L.Dense(1)(trunk)}
        made["c"] = lambda: L.Dense(1)(L.Concatenate()([branch, trunk]))
        model = keras.Model(image, {task: made[task]() for task in tasks})
        model = tag_keras.MultiTaskModel.from_functional(model)
        model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.1), "mse")
        return model

    networks = [*NETWORKS, Network("b", ("b",))]
    check_equal(*run(tmp_path, build_model, data(), networks))


def test_one_stack_after_the_other_and_dropout_in_heads(tmp_path, monkeypatch):
    """Stacks of two of the same seed, in one graph. The first networks lack the head "c"."""
    monkeypatch.setattr(jobs, "most_networks", lambda *_: 2)
    sets = [("a",), ("b",), ("b", "c"), ("c",)]
    networks = [Network("".join(tasks), tasks) for tasks in sets]
    networks += [Network("".join(tasks), tasks, 1) for tasks in (sets[0], sets[3])]
    monkeypatch.setattr(jobs, "_FEWEST_OF_A_SEED", 2)

    def head(task):
        return keras.Sequential([L.Dense(3), L.Dropout(0.4), L.Dense(1)])

    build_model = builder(lambda: [L.Dense(4, "tanh"), L.Dropout(0.2)], "sgd", head)
    check_equal(*run(tmp_path, build_model, data(), networks, epochs=1))


@pytest.mark.slow
def test_the_first_batches_of_each_validation(tmp_path):
    stops = [keras.callbacks.EarlyStopping("val_loss", patience=0)]
    fit = {"validation_steps": 1, "validation_batch_size": 4, "epochs": 6, "callbacks": stops}
    own = data()
    together, alone, networks = run(
        tmp_path, dense("sgd"), own, validation_data=own["validation"], **fit
    )
    check_equal(together, alone, networks)
