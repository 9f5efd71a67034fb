"""A probe leaves no trace: all state is as after a training by plain Keras."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras import FirstOrderAffinity, LookaheadAffinity

layers = keras.layers
TASKS = ("b", "a")
SIZE, BATCH = 12, 4


def make_data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SIZE, 5)).astype("float32")
    return x, {task: (x[:, i : i + 1] + 1).astype("float32") for i, task in enumerate(TASKS)}


class MovingScale(keras.losses.Loss):
    """Squared errors by their moving mean, of some of the examples."""

    def __init__(self):
        super().__init__()
        self.scale = keras.Variable(1.0, trainable=False)

    def call(self, y_true, y_pred):
        errors = keras.ops.mean((y_true - y_pred) ** 2, axis=-1)
        self.scale.assign(0.9 * self.scale + 0.1 * keras.ops.mean(errors))
        # By Keras' global seeds, which nothing in the model knows.
        return keras.random.dropout(errors, 0.3) / self.scale


class CountingLoss(keras.losses.Loss):
    """A loss with a `tf.Variable`, on which its values depend."""

    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0)

    def call(self, y_true, y_pred):
        factor = 1 + self.calls.assign_add(1.0)
        return factor * keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


class Noise(layers.Layer):
    """Noise from a generator of TensorFlow, of a size that a `tf.Variable` counts."""

    def __init__(self):
        super().__init__()
        self.generator = tf.random.Generator.from_seed(1)
        self.calls = tf.Variable(0, dtype="int64", trainable=False)

    def call(self, inputs):
        calls = tf.cast(self.calls.assign_add(1), "float32")
        return inputs + self.generator.normal(tf.shape(inputs)) * (0.1 + 0.1 * calls)


class Standardize(layers.Layer):
    """Subtracts a moving mean."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(inputs, axis=0))
        return inputs - self.mean


def make_functional():
    """A model with all kinds of state, and all that has one."""
    keras.utils.set_random_seed(0)
    inputs, noise = keras.Input((5,)), Noise()
    trunk = noise(Standardize()(inputs))
    # No bias: before BatchNorm its gradient is 0 but for rounding.
    trunk = layers.BatchNormalization()(layers.Dense(6, "tanh", use_bias=False)(trunk))
    trunk = layers.Dropout(0.3)(trunk)
    return keras.Model(inputs, {task: layers.Dense(1)(trunk) for task in TASKS}), noise


def train(make, **kwargs):
    """The state after a training with steps of no length, by name; and the model."""
    functional, noise = make_functional()
    losses = {"b": MovingScale(), "a": CountingLoss()}
    model = make(functional)
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9), losses, **kwargs)
    model.fit(*make_data(), batch_size=BATCH, shuffle=False, verbose=0)
    state = {
        "scale": losses["b"].scale.numpy(),
        "calls of the loss": losses["a"].calls.numpy(),
        "calls of the layer": noise.calls.numpy(),
        "generator": noise.generator.state.numpy(),
        # Drawn by the seeds that come next.
        "global seeds": keras.random.uniform((3,)).numpy(),
        "seeds of Python and NumPy": keras.random.SeedGenerator().state.numpy()
        + np.random.uniform(),
    }
    state |= {str(index): one.numpy() for index, one in enumerate(functional.variables)}
    variables = model.optimizer.variables
    state |= {f"optimizer {index}": one.numpy() for index, one in enumerate(variables)}
    return state, model


def assert_same(state, expected):
    assert list(state) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, atol=1e-6, err_msg=name)


def multi_task(functional):
    return tag_keras.MultiTaskModel.from_functional(functional)


@functools.cache
def plain(jit_compile=None):
    """The state after a training by Keras."""
    state, _ = train(lambda model: model, run_eagerly=not jit_compile, jit_compile=jit_compile)
    # Three batches, each of which moves everything once.
    assert state["calls of the loss"] == state["calls of the layer"] == 3
    assert state["scale"] != 1
    return state


EAGER, TRACED = {"run_eagerly": True}, {"jit_compile": False}
# XLA draws other numbers.
XLA = pytest.param(
    LookaheadAffinity(1, on=make_data(1)),
    {"jit_compile": True, "steps_per_execution": 2},
    marks=pytest.mark.slow,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("affinity", "arguments"),
    [
        (LookaheadAffinity(1, baseline=True), EAGER),
        (LookaheadAffinity(2), TRACED),
        XLA,
        (FirstOrderAffinity(1), EAGER),
    ],
)
def test_all_state_is_as_after_a_training_by_keras(affinity, arguments):
    state, model = train(multi_task, affinity=affinity, **arguments)
    assert_same(state, plain(arguments.get("jit_compile")))
    # A lookahead has the state and the noise of its step: without a step, Z = 1 - L / L = 0.
    np.testing.assert_allclose(model.get_affinity().mean, 0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [EAGER, TRACED])
def test_updates_by_groups_move_the_state_once_per_batch(arguments):
    method = tag_keras.SelectiveTaskGroupUpdates(warmup=100, seed=0)
    state, model = train(multi_task, gradient_method=method, **arguments)
    # The optimizer makes two updates.
    expected = {name: one for name, one in plain().items() if "optimizer" not in name}
    assert_same({name: state[name] for name in expected}, expected)
    np.testing.assert_allclose(model.get_affinity().mean, 0, atol=1e-6)


def fit(loss="mse", layer=None, **kwargs):
    inputs = keras.Input((5,))
    trunk = layers.Dense(4)(layer(inputs) if layer else inputs)
    model = multi_task(keras.Model(inputs, {task: layers.Dense(1)(trunk) for task in TASKS}))
    model.compile("sgd", loss, affinity=LookaheadAffinity(1), **kwargs)
    model.fit(*make_data(), batch_size=BATCH, verbose=0)
    return model.get_affinity()


def in_python(y_true, y_pred):
    return (y_true - y_pred)[:, 0] ** 2 * float(y_true.numpy().max() > 0)


def test_a_loss_that_only_runs_eagerly():
    assert (fit(in_python, **EAGER).count == 3).all()
    with pytest.raises(AttributeError, match="numpy"):
        fit(in_python)


class Vocabulary(layers.Layer):
    """Counts batches in a table."""

    def __init__(self):
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable("int64", "int64", default_value=0)

    def call(self, inputs):
        key = tf.constant([0], "int64")
        self.table.insert(key, self.table.lookup(key) + 1)
        return inputs


def test_what_cannot_be_set_back_is_refused():
    message = (
        r"has the operations \['LookupTableInsertV2'\], and a probe could not undo .* Take them "
        "out of layers and losses, or compile without `affinity`"
    )
    with pytest.raises(ValueError, match=message):
        fit(layer=Vocabulary())
