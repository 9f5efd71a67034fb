"""A network of a stack ends as it ends alone: weights, optimizer, losses and metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks_together import EVEN, TASKS, check_equal, check_same_variables, data, eagerly

import tag_keras
from tag_keras.sweep import Job, Network, load_network, run_sweep
from tag_keras.sweep.stack import jobs
from tag_keras.sweep.stack.network_stack import NetworkStack
from tag_keras.sweep.stack.parts import Parts

L = keras.layers
# All tasks; some in another order, from another seed.
NETWORKS = [Network("joint", TASKS), Network("cb", ("c", "b"), 1)]


def run(folder, build_model, data, networks=NETWORKS, alone=eagerly, **fit):
    """Trains networks together, and alone; gives both folders, and the networks."""
    fit = {"epochs": 2, "batch_size": 16, "verbose": 0, **fit}
    for stack, build in ((True, build_model), (False, alone(build_model))):
        jobs = [Job(network, build, fit) for network in networks]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    check_steps(builder(lambda: [L.Dense(4, "relu")], OPTIMIZERS[name]), *data()["train"])


def check_steps(build_model, x, y):
    """Makes two steps by hand: `fit` would trace a graph for each network."""
    tasks = ("c", "b")
    networks = [Network("cb", tasks), Network("b", ("b",))]
    inputs = keras.KerasTensor((None, *x.shape[1:]), x.dtype.name)
    built = Parts(Job(networks[0], build_model), tasks, 0, None, inputs)
    built.whole.optimizer.build(built.whole.trainable_variables)
    own = [built.part(network.tasks, network.seed) for network in networks]
    batches = [(x[i : i + 8], {task: y[task][i : i + 8] for task in tasks}) for i in (0, 8)]
    spec = tf.data.Dataset.from_tensors(batches[0]).element_spec
    stack = NetworkStack(built.whole, [part.start(0, 0) for part in own], spec)
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
    "sequence": (
        lambda: [
            L.Bidirectional(
                L.LSTM(3, return_sequences=True),
                backward_layer=L.GRU(3, return_sequences=True, go_backwards=True),
            ),
            Attention(),
            L.Dense(3, kernel_regularizer="l2", activity_regularizer="l1"),
            L.LayerNormalization(),
            L.Flatten(),
        ],
        data((3, 3)),
        "sgd",
    ),
    # TensorFlow vectorises the gradient of a loop only if no layer before it is trained.
    "recurrent": (
        lambda: [L.Dense(3, kernel_regularizer="l2"), L.LSTM(3, return_sequences=True), L.GRU(2)],
        data((3, 3)),
        "adam",
    ),
    "embedding": (
        lambda: [L.Embedding(20, 3), L.GlobalAveragePooling1D(), L.Dense(4)],
        data((5,), "int32"),
        "adam",
    ),
    "convolution": (
        lambda: [L.Conv2D(3, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(4)],
        data((6, 6, 2)),
        "adam",
    ),
}


@pytest.mark.parametrize(
    "name",
    [one if one == "embedding" else pytest.param(one, marks=pytest.mark.slow) for one in LAYERS],
)
def test_layers(name):
    layers, own, optimizer = LAYERS[name]
    check_steps(builder(layers, optimizer), *own["train"])


@pytest.mark.slow
def test_states_metrics_dropout_and_functions_of_datasets(tmp_path):
    """The data are shuffled anew in each epoch."""

    def shuffled():
        x, y = data()["train"]
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(40).batch(16)

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
    splits = {**data(), "train": shuffled}
    check_equal(*run(tmp_path, build_model, splits, batch_size=None))


def dense(optimizer="adam", **options):
    return builder(lambda: [L.Dense(4, "tanh")], optimizer, **options)


@pytest.mark.slow
def test_what_the_model_the_data_and_fit_say(tmp_path):
    """Loss weights and learning rate depend on the number of tasks; examples have weights.

    Heads made before the encoder have its layers count on from theirs. Batches come in order, from
    the second epoch on.
    """

    def build_model(tasks):
        heads = {task: L.Dense(1) for task in tasks}
        model = tag_keras.MultiTaskModel(keras.Sequential([L.Dense(3, "tanh")]), heads)
        model.compile(
            keras.optimizers.SGD(0.2 / len(tasks), momentum=0.9),
            "mae",
            loss_weights={task: 1 / len(tasks) for task in tasks},
            weighted_metrics={task: ["mae", keras.metrics.R2Score()] for task in tasks},
        )
        return model

    def weighed(x, y):
        weights = np.linspace(0, 1, len(x))
        return x, y, {"a": weights, "b": weights[::-1], "c": np.ones(len(x))}

    splits = {name: weighed(*split) for name, split in data(**EVEN).items()}
    check_equal(*run(tmp_path, build_model, splits, shuffle=False, initial_epoch=1, epochs=3))


@pytest.mark.slow
def test_callbacks_of_each_network(tmp_path):
    """Networks stop at different epochs, and go back to their best weights."""
    given = [
        keras.callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.7, patience=0, min_delta=10.0),
    ]
    fit = {"epochs": 6, "callbacks": given, "validation_batch_size": 8}
    build_model = dense(lambda: keras.optimizers.Adam(0.1))
    # Alone, they are trained in graphs, too.
    options = {"data": data(sizes=(32, 24, 16)), "alone": lambda one: one, **fit}
    together, alone, networks = run(tmp_path, build_model, **options)
    check_equal(together, alone, networks)
    steps = {
        load_network(together / "networks" / network.file).optimizer.iterations.numpy()
        for network in NETWORKS
    }
    assert len(steps) > 1 and min(steps) < 12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Early stopping conditioned on metric `val_loss`")
def test_arguments_of_fit(tmp_path):
    """Each validation begins with the first batches; networks stop after different ones."""
    x, y = data()["train"]
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True).repeat()
    fit = {"steps_per_epoch": 2, "validation_freq": 2, "epochs": 8, "batch_size": None}
    fit |= {"validation_steps": 1, "validation_batch_size": 4}
    fit["validation_data"] = data()["validation"]
    fit["callbacks"] = [keras.callbacks.EarlyStopping("val_loss", patience=0)]
    build_model = dense(lambda: keras.optimizers.SGD(0.2))
    splits = {**data(**EVEN), "train": endless}
    together, alone, networks = run(tmp_path, build_model, splits, **fit)
    check_equal(together, alone, networks)
    steps = {
        load_network(together / "networks" / network.file).optimizer.iterations.numpy()
        for network in NETWORKS
    }
    assert len(steps) > 1 and min(steps) < 16


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    """In bfloat16, the loss needs no scale. Numbers have 8 bits."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        check_equal(*run(tmp_path, dense(), data(**EVEN)), tolerance=1e-2)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.slow
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
    check_equal(*run(tmp_path, build_model, data(**EVEN), networks))


@pytest.mark.slow
def test_one_stack_after_the_other_and_dropout_in_heads(tmp_path, monkeypatch):
    """Two stacks in one graph, each of one seed. The networks of the first lack the head "a".

    Of the heads, only that of "c" belongs to two networks of a stack, and drops others in each.
    """
    monkeypatch.setattr(jobs, "most_networks", lambda *_: 2)
    sets = [("bc", 0), ("c", 0), ("ac", 1), ("c", 1)]
    networks = [Network(name, tuple(name), seed) for name, seed in sets]
    monkeypatch.setattr(jobs, "_FEWEST_OF_A_SEED", 2)
    made = []
    monkeypatch.setattr(jobs, "NetworkStack", lambda *given: made.append(1) or NetworkStack(*given))

    def head(task):
        return keras.Sequential([L.Dense(3), L.Dropout(0.4), L.Dense(1)])

    build_model = builder(lambda: [L.Dense(4, "tanh"), L.Dropout(0.2)], "sgd", head)
    check_equal(*run(tmp_path, build_model, data(**EVEN), networks, epochs=1))
    assert len(made) == 1
