"""Affinities by the shared features: closed forms, finite differences, and every kind of model."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras import FeatureAffinity
from tag_keras.estimators.features import feature_affinity
from tag_keras.multitask.shared_features import common_tensor

L = keras.layers
TASKS = ("b", "a", "c")
RATE = 0.1


def make_data(size=12, missing=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5)).astype("float32")
    y = {task: (x[:, i] + rng.normal(size=size)).astype("f4") for i, task in enumerate(TASKS)}
    if missing:
        y["b"][: size // 2] = y["a"][size // 3 :] = np.nan
    return x, y


def make_model(head=lambda: L.Dense(1), layers=(lambda: L.Dense(4),)):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([layer() for layer in layers])
    model = tag_keras.MultiTaskModel(encoder, {task: head() for task in TASKS})
    model(np.zeros((1, 5), "float32"))
    return model


def measure(model, data, every=1, optimizer=None, **options):
    options = {"run_eagerly": True, **options}
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    model.compile(optimizer, "mse", affinity=FeatureAffinity(every), **options)
    model.fit(*data, batch_size=len(data[0]), shuffle=False, verbose=0)
    return model.get_affinity()


# The formula.


def test_two_losses_by_hand():
    # Two examples: 2 * [0.1, 0.2, 0.3] and 2 * [0.4, 0, -0.1] have the products
    # 4 * 0.14, 4 * 0.01 and 4 * 0.17; Z = 0.5 * products / 2 / L.
    gradients = tf.constant([[0.1, 0.2, 0.3], [0.4, 0.0, -0.1]])
    given = tf.constant([2.0, 4.0]), gradients, tf.constant(0.5), tf.constant(2.0)
    expected = [[0.14 / 2, 0.01 / 4], [0.01 / 2, 0.17 / 4]]
    np.testing.assert_allclose(feature_affinity(*given), expected, rtol=1e-6)
    values = feature_affinity(tf.constant([2.0, 0.0]), *given[1:]).numpy()
    np.testing.assert_array_equal(np.isnan(values), [[False, True], [False, True]])


def test_squares_of_small_gradients_do_not_vanish():
    gradients = tf.fill([2, 3], 1e-24)
    values = feature_affinity(tf.ones(2), gradients, tf.constant(1e9), tf.constant(1e8))
    np.testing.assert_allclose(values, np.full((2, 2), 3e-48 * 1e17), rtol=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_linear_heads_with_squared_losses_equal_a_closed_form(missing):
    model, (x, y) = make_model(), make_data(missing=missing)
    kernel, bias = (one.numpy() for one in model.encoder.weights)
    losses, gradients = [], []
    for task in TASKS:
        v, c = (one.numpy() for one in model.heads[task].weights)
        known = ~np.isnan(y[task])
        error = np.where(known, ((x @ kernel + bias) @ v + c)[:, 0] - y[task], 0)
        losses.append((error**2).sum() / known.sum())
        # d/dh of the mean of (h v + c - y)^2 over the labels there are.
        gradients.append(2 * np.outer(error, v) / known.sum())
    products = np.einsum("inf,jnf->ij", gradients, gradients)
    affinity = measure(model, (x, y))
    expected = RATE * len(x) * products / np.array(losses)
    np.testing.assert_allclose(affinity.mean, expected, rtol=1e-4, atol=1e-7)
    assert (affinity.count == 1).all()
    if missing:
        # "b" has no label in the first half, "a" none beyond the first third.
        assert affinity.mean[0, 1] == affinity.mean[1, 0] == 0 != affinity.mean[0, 2]


def test_it_is_the_gain_of_a_step_of_the_features_as_finite_differences_show():
    model = make_model(lambda: keras.Sequential([L.Dense(3, "tanh"), L.Dense(1)]))
    x, y = make_data(size=4)
    features = model.encoder(x).numpy().astype("float64")
    weights = [[w.numpy().astype("float64") for w in model.heads[t].weights] for t in TASKS]

    def losses(h):
        outputs = [(np.tanh(h @ a + c) @ v + d)[:, 0] for a, c, v, d in weights]
        return np.array([np.mean((o - y[t]) ** 2) for o, t in zip(outputs, TASKS, strict=True)])

    def central(direction, step=1e-5):
        up, down = (losses(features + sign * step * direction) for sign in (1, -1))
        return (up - down) / (2 * step)

    entries = np.eye(features.size).reshape(-1, *features.shape)
    by_entry = np.array([central(entry) for entry in entries])
    # Each example against the gradient of its own loss, which the mean divides by the batch.
    steps = [-RATE * len(x) * column.reshape(features.shape) for column in by_entry.T]
    expected = [-central(step) / losses(features) for step in steps]
    np.testing.assert_allclose(measure(model, (x, y)).mean, expected, rtol=1e-3, atol=1e-6)


# The passes.


def test_no_pass_of_a_task_goes_through_the_encoder():
    passes = []

    class Counted(L.Layer):
        def call(self, x):
            @tf.custom_gradient
            def counted(x):
                def gradient(upstream):
                    passes.append(upstream.shape)
                    return upstream

                return tf.identity(x), gradient

            return counted(x)

    layers = (lambda: L.Dense(4), Counted, lambda: L.Dense(2))
    model = make_model(layers=layers)
    measure(model, make_data())
    # The joint loss alone.
    assert passes == [(12, 4)]


@pytest.mark.slow
def test_a_training_is_as_without_a_probe():
    models = [make_model(layers=(lambda: L.Dense(4), L.BatchNormalization)) for _ in range(2)]
    measure(models[0], make_data(missing=True), optimizer=keras.optimizers.Adam(RATE))
    models[1].compile(keras.optimizers.Adam(RATE), "mse", run_eagerly=True)
    x, y = make_data(missing=True)
    models[1].fit(x, y, batch_size=len(x), shuffle=False, verbose=0)
    for one, other in zip(models[0].weights, models[1].weights, strict=False):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6, err_msg=one.path)


@pytest.mark.parametrize("scale", [1024.0, float("inf")])
def test_a_loss_scale_is_taken_out_and_overflows_are_told(scale):
    data, inner = make_data(), keras.optimizers.SGD(RATE)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale)
    if scale == 1024:
        exact = measure(make_model(), data).mean
        found = measure(make_model(), data, optimizer=optimizer).mean
        np.testing.assert_allclose(found, exact, rtol=1e-5)
        return
    with (
        pytest.warns(UserWarning, match=r"Overflows by source: \{'b': 1, 'a': 1, 'c': 1\}"),
        pytest.raises(ValueError, match="times the loss scale of the optimizer, overflowed"),
    ):
        measure(make_model(), data, optimizer=optimizer)


GRADNORM = "gradnorm"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": False, "jit_compile": True},
        {"run_eagerly": False, "jit_compile": False},
        {"gradient_method": tag_keras.PCGrad()},
        {"loss_weighting": GRADNORM},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_way_to_train_measures_the_same(options, monkeypatch):
    # With as many tasks as this, gradients by task of variables are in a loop.
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 1)
    data = make_data(missing=True)
    expected = measure(make_model(), data).mean
    model = make_model()
    if GRADNORM in options.values():
        options = {"loss_weighting": tag_keras.GradNorm(model.encoder.layers[0].name)}
    np.testing.assert_allclose(measure(model, data, **options).mean, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_an_affinity_comes_back_from_a_file_and_goes_on(tmp_path):
    model, data = make_model(), make_data()
    measure(model, data, every=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_affinity().mean, model.get_affinity().mean)
    for one in (model, loaded):
        one.run_eagerly = True
        one.fit(*data, batch_size=len(data[0]), epochs=2, shuffle=False, verbose=0)
    found, expected = loaded.get_affinity(), model.get_affinity()
    assert (found.count == 2).all()
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)


# The models.


def functional(build):
    """A multi-task model from a Functional model whose outputs `build` gives."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    return tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, build(inputs)))


def test_a_functional_model_measures_what_its_encoder_and_heads_do():
    reference = make_model(layers=(lambda: L.Dense(4, "tanh"), lambda: L.Dense(4)))

    def outputs(inputs):
        # The last tensor that all have in common is behind the layers without variables.
        shared = L.Reshape((4,))(L.Dropout(0.0)(reference.encoder(inputs)))
        return {task: reference.heads[task](shared) for task in TASKS}

    model, data = functional(outputs), make_data(missing=True)
    found = measure(model, data).mean
    fresh = make_model(layers=(lambda: L.Dense(4, "tanh"), lambda: L.Dense(4)))
    np.testing.assert_allclose(found, measure(fresh, data).mean, rtol=1e-5)


def test_chosen_variables_and_branches_of_the_tasks_do_not_hide_the_features():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    trunk = L.Dense(4, name="trunk")(inputs)
    # "b" sees the inputs, too, which no variable in common computes.
    parts = {"b": [trunk, inputs], "a": [trunk, trunk], "c": [trunk, trunk]}
    outputs = {task: L.Dense(1)(L.Concatenate()(part)) for task, part in parts.items()}
    for shared in (None, "trunk"):
        model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs), shared)
        affinity = measure(model, make_data())
        assert np.abs(affinity.mean).min() > 0
        assert model._shared_features._parts._tensor is trunk


def test_the_tensor_in_common_of_a_chain_of_a_residual_and_of_two_calls():
    inputs = keras.Input((4,))
    first, second = L.Dense(4), L.Dense(4)
    one = first(inputs)
    residual = L.Add()([one, second(one)])
    dropped = L.Dropout(0.5)(residual)
    outputs = [L.Dense(1)(dropped), L.Dense(2)(L.ReLU()(dropped))]
    assert common_tensor(outputs, [*first.variables, *second.variables]) is dropped
    # The residual goes around the second layer.
    assert common_tensor([*outputs, L.Dense(1)(one)], first.variables) is one
    assert common_tensor([*outputs, L.Dense(1)(one)], second.variables) is dropped
    assert common_tensor([*outputs, L.Dense(1)(one)], [first.kernel, second.kernel]) is None
    # Two towers with the same weights.
    other = first(keras.Input((4,)))
    assert common_tensor([L.Dense(1)(one), L.Dense(1)(other)], first.variables) is None
    both = L.Concatenate()([one, other])
    assert common_tensor([L.Dense(1)(both), L.Dense(1)(both)], first.variables) is both


class ByTask(L.Layer):
    """An encoder whose graph nobody sees."""

    def __init__(self):
        super().__init__()
        self.shared = L.Dense(4)

    def call(self, x):
        return dict.fromkeys(TASKS, self.shared(x))


class OwnCall(keras.Model):
    def call(self, x, training=None):
        return super().call(x, training=training)


def two_depths():
    inputs = keras.Input((5,))
    trunk = L.Dense(4)(inputs)
    branch = L.Dense(4)(trunk)
    return keras.Model(inputs, {"b": branch, "a": branch, "c": trunk})


def with_own_call():
    inputs = keras.Input((5,))
    return OwnCall(inputs, dict.fromkeys(TASKS, L.Dense(4)(inputs)))


EXPERTS = {"build_expert": lambda: L.Dense(4), "num_experts": 2}


@pytest.mark.parametrize(
    "build",
    [
        two_depths,
        with_own_call,
        lambda: tag_keras.mmoe_encoder(TASKS, (5,), **EXPERTS),
        pytest.param(
            lambda: tag_keras.mtan_encoder(TASKS, input_shape=(8, 8, 3), widths=(4,) * 4),
            marks=pytest.mark.slow,
        ),
        ByTask,
    ],
    ids=["two depths", "own call", "mmoe", "mtan", "subclass"],
)
def test_features_by_task_are_refused_before_any_step(build):
    encoder = build()
    model = tag_keras.MultiTaskModel(encoder, {task: L.Dense(1) for task in TASKS})
    message = (
        f"`FeatureAffinity` needs one feature tensor that the predictions of all tasks are "
        f"computed from. The encoder {encoder.name!r} gives each task features of its own, and "
        "there is no one tensor before them. Measure with `LookaheadAffinity` or "
        "`FirstOrderAffinity`, or build an encoder that gives one tensor."
    )
    refused = pytest.raises(ValueError, match=re.escape(message))
    if not encoder.built:
        model.compile("sgd", "mse", affinity=FeatureAffinity())
        with refused:
            model.fit(*make_data(), verbose=0)
        assert model.optimizer.iterations == 0
        return
    with refused:
        model.compile("sgd", "mse", affinity=FeatureAffinity())
    model.compile("sgd", "mse", affinity=tag_keras.FirstOrderAffinity())
