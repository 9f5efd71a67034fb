"""GradNorm, against the steps of the specification and gradients of the definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.loss_weighting.gradnorm import gradnorm_step, training_rates

layers = keras.layers
CLIP = (0.1, 10.0)


def step(weights, norms, rates, active=None, alpha=1.5, learning_rate=0.1, clip=CLIP):
    active = [True] * len(weights) if active is None else active
    arrays = (tf.constant(one, "float32") for one in (weights, norms, rates))
    return gradnorm_step(*arrays, tf.constant(active), alpha, learning_rate, clip).numpy()


def test_steps_of_the_specification():
    # n = (1, 3): the mean of G is 2, so the gradients are (-1, 3) and w = (1.1, .7), the sum 1.8.
    np.testing.assert_allclose(step([1, 1], [1, 3], [1, 1]), [1.222222, 0.777778], rtol=1e-5)
    # Relative losses (.5, .25): rates (4/3, 2/3); n = (2, 2), alpha 1.5: targets 3.079201 and
    # 1.088662, so w = (1.2, .8).
    rates = training_rates(
        tf.constant([1.0, 0.5]), tf.constant([2.0, 2.0]), tf.constant([True] * 2)
    )
    np.testing.assert_allclose(rates, [4 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(step([1, 1], [2, 2], rates), [1.2, 0.8], rtol=1e-6)


def test_against_the_derivative_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(10):
        norms, rates = rng.uniform(0.5, 2, size=(2, 4)).astype("float32")
        start = rng.uniform(0.8, 1.2, size=4).astype("float32")
        weights = tf.Variable(start * 4 / start.sum())
        with tf.GradientTape() as tape:
            sizes = weights * norms
            targets = tf.stop_gradient(tf.reduce_mean(sizes) * rates**0.7)
            objective = tf.reduce_sum(tf.abs(sizes - targets))
        expected = weights - 0.02 * tape.gradient(objective, weights)
        expected *= 4 / tf.reduce_sum(expected)
        found = step(weights.numpy(), norms, rates, alpha=0.7, learning_rate=0.02)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tasks_without_labels_keep_their_weights():
    # Active: (1.5, .5) with n = (1, 3): G = 1.5 for both, which is their mean: nothing to do.
    np.testing.assert_array_equal(
        step([1.5, 1.0, 0.5], [1, 9, 3], [1, 7, 1], [True, False, True]), [1.5, 1.0, 0.5]
    )
    # n = (1, 1): the mean is 1, so w = (1.4, .6), of which the sum stays 2.
    found = step([1.5, 1.0, 0.5], [1, np.nan, 1], [1, 7, 1], [True, False, True])
    np.testing.assert_allclose(found, [1.4, 1.0, 0.6], rtol=1e-6)
    found = step([1.5, 0.5], [1, 1], [1, 1], [False, False])
    np.testing.assert_array_equal(found, [1.5, 0.5])


def test_clipping_comes_before_the_sum_is_restored():
    # w = (1 + .3, 1 - 1.5) becomes (1.3, .1).
    found = step([1, 1], [1, 5], [1, 1], learning_rate=0.3)
    np.testing.assert_allclose(found, np.array([1.3, 0.1]) * 2 / 1.4, rtol=1e-6)


@pytest.mark.parametrize(
    ("norms", "rates"),
    [
        ([0, 0], [1, 1]),
        ([np.nan, 1], [1, 1]),
        ([np.inf, 1], [1, 1]),
        ([1, 1], [np.nan, 1]),
        # |1 - 1|: nothing to do.
        ([1, 1], [1, 1]),
    ],
)
def test_the_weights_stay(norms, rates):
    found = step([1, 1], norms, rates)
    np.testing.assert_array_equal(found, [1, 1])


def test_one_gradient_of_zero():
    # G = (0, 1), the mean .5: the first has the derivative 0, the second 1.
    np.testing.assert_allclose(
        step([1, 1], [0, 1], [1, 1]), np.array([1, 0.9]) * 2 / 1.9, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("losses", "first", "expected"),
    [
        # A first loss of 0 counts as one that stays: ratios 1 and .5.
        ([3.0, 1.0], [0.0, 2.0], [4 / 3, 2 / 3]),
        ([0.0, 0.0], [1.0, 1.0], [1.0, 1.0]),
        ([0.0, 0.0], [0.0, 0.0], [1.0, 1.0]),
        # A negative loss counts as 0.
        ([-1.0, 1.0], [1.0, 1.0], [0.0, 2.0]),
        ([2.0, 1.0], [float("nan"), 2.0], [4 / 3, 2 / 3]),
    ],
)
def test_rates_are_always_defined(losses, first, expected):
    found = training_rates(tf.constant(losses), tf.constant(first), tf.constant([True, True]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_first_loss_is_the_first_one_with_labels():
    weighting = tag_keras.GradNorm("any")
    weighting.start(2)
    for losses, labels in (([2.0, 0.0], [3, 0]), ([1.0, 5.0], [3, 1]), ([0.5, 4.0], [3, 3])):
        weighting.update(
            tf.unstack(tf.constant(losses)), tf.constant(labels, "float32"), tf.ones(2)
        )
    np.testing.assert_array_equal(weighting._first_losses, [2.0, 5.0])


def make_model(weighting, affinity=None, method=None, encoder=None, **kwargs):
    keras.utils.set_random_seed(0)
    if encoder is None:
        stack = [layers.Dense(4, "tanh", name="first"), layers.Dense(3, "tanh", name="last")]
        encoder = keras.Sequential([keras.Input((3,)), *stack])
    model = tag_keras.MultiTaskModel(encoder, {"b": layers.Dense(1), "a": layers.Dense(1)})
    model.compile(
        keras.optimizers.SGD(0.1),
        "mse",
        loss_weighting=weighting,
        affinity=affinity,
        gradient_method=method,
        **{"run_eagerly": True, **kwargs},
    )
    return model


def data(size=24):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(size, 3)).astype("float32")
    return x, {"b": 3 * x[:, 0], "a": x[:, 1] + rng.normal(size=size).astype("float32")}


def by_hand(layer):
    """Weights of the losses after every batch, by numpy and one tape."""
    model = make_model(None)
    x, y = data()
    kernel = model.encoder.get_layer(layer).kernel
    weights, first, path = np.ones(2), None, []
    for start in range(0, len(x), 8):
        batch = slice(start, start + 8)
        with tf.GradientTape(persistent=True) as tape:
            out = model(x[batch], training=True)
            losses = [tf.reduce_mean((out[t][:, 0] - y[t][batch]) ** 2) for t in ("b", "a")]
            total = 2.0 * weights[0] * losses[0] + weights[1] * losses[1]
        norms = np.array([np.linalg.norm(tape.gradient(one, kernel.value)) for one in losses])
        model.optimizer.apply(
            tape.gradient(total, [v.value for v in model.trainable_variables]),
            model.trainable_variables,
        )
        values = np.array([float(one) for one in losses])
        first = values if first is None else first
        rates = values / first / np.mean(values / first)
        sizes = weights * norms
        weights = weights - 0.2 * norms * np.sign(sizes - sizes.mean() * rates**1.5)
        weights = np.clip(weights, *CLIP)
        weights *= 2 / weights.sum()
        path.append(weights)
    return np.array(path), [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_training_by_hand(layer):
    path, variables = by_hand(layer)
    assert np.abs(path - 1).max() > 0.1
    # A step uses the weights from before it.
    means = np.concatenate([np.ones((1, 2)), path[:-1]]).mean(axis=0)
    for affinity in (None, tag_keras.CosineAffinity(every=2)):
        weighting = tag_keras.GradNorm(layer, learning_rate=0.2)
        model = make_model(weighting, affinity, loss_weights={"b": 2.0})
        history = model.fit(*data(), batch_size=8, shuffle=False, verbose=0).history
        logged = [history["b_weight"][0], history["a_weight"][0]]
        np.testing.assert_allclose(logged, means, rtol=1e-5)
        np.testing.assert_allclose(model.loss_weighting.task_weights(), path[-1], rtol=1e-5)
        for value, expected in zip(model.trainable_variables, variables, strict=True):
            np.testing.assert_allclose(value.numpy(), expected, atol=1e-6)


def test_a_layer_is_as_good_as_its_name():
    model = make_model(tag_keras.GradNorm(layers.Dense(3, name="last")))
    assert model.loss_weighting.shared_layer == "last"


def test_an_encoder_that_is_one_layer():
    model = make_model(tag_keras.GradNorm("shared"), encoder=layers.Dense(2, name="shared"))
    model.fit(*data(), verbose=0)
    assert not np.array_equal(model.loss_weighting.task_weights(), [1, 1])


@keras.saving.register_keras_serializable(package="test_gradnorm")
class Subclassed(keras.Model):
    """Its layers have automatic names, which count the layers of the process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.last = layers.Dense(4, "tanh"), layers.Dense(3)

    def call(self, inputs):
        return self.last(self.first(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("names_before", [0, 1, 5])
def test_a_loaded_model_finds_its_kernel_whatever_the_names_are(names_before, tmp_path):
    # As in a new process, in which "dense_1" is the last of the two layers, the first, or neither.
    keras.backend.clear_session()
    layers.Dense(1)
    encoder = Subclassed()
    model = make_model(tag_keras.GradNorm(encoder.first), encoder=encoder)
    assert model.loss_weighting.shared_layer == "dense_1"
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    keras.backend.clear_session()
    for _ in range(names_before):
        layers.Dense(1)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    histories = []
    for one in (model, loaded):
        one.run_eagerly = True
        histories.append(one.fit(*data(), epochs=2, shuffle=False, verbose=0).history)
        kernel = one.loss_weighting.kernel_in(one.encoder, one.shared_variables)
        assert kernel is one.encoder.first.kernel
    assert histories[0] == histories[1]


@pytest.mark.parametrize("is_saved", [False, True])
def test_other_layers_may_get_more_variables(is_saved, tmp_path):
    encoder = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="first"), layers.Dense(2, name="last")]
    )
    model = make_model(tag_keras.GradNorm("last"), encoder=encoder)
    model.fit(*data(), verbose=0)
    if is_saved:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    first, last = (model.encoder.get_layer(name) for name in ("first", "last"))
    # Two variables that stand before the kernel of the last layer.
    first.enable_lora(2)
    model.compile("sgd", "mse", loss_weighting=model.loss_weighting)
    find = model.loss_weighting.kernel_in
    assert find(model.encoder, model.shared_variables) is last.kernel
    last.enable_lora(2)
    assert find(model.encoder, model.shared_variables) is last.lora_kernel_b


def test_a_file_of_version_0_1_names_a_kernel_by_its_index():
    encoder = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2, name="last")])
    config = {**tag_keras.GradNorm("other name").get_config(), "kernel": 2}
    weighting = tag_keras.GradNorm.from_config({**config, "layer": None})
    for _ in range(2):
        found = weighting.kernel_in(encoder, encoder.trainable_variables)
        assert found is encoder.get_layer("last").kernel


def frozen():
    encoder = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first")])
    encoder.get_layer("first").trainable = False
    return encoder


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="first")])
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, name="first"), inner])


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda: make_model(tag_keras.GradNorm("middle")),
            r"names no layer of the encoder with a kernel that several tasks train. Name one of "
            r"\['first', 'last'\]. Received: shared_layer='middle'.",
        ),
        (lambda: make_model(tag_keras.GradNorm("first"), encoder=frozen()), r"Name one of \[\]"),
        (lambda: make_model(tag_keras.GradNorm("first"), encoder=nested()), "names 2 layers"),
        (
            # Found only when the model is built.
            lambda: make_model(tag_keras.GradNorm("b"), encoder=layers.Dense(2, name="shared")).fit(
                *data(), verbose=0
            ),
            r"Name one of \['shared'\]. Received: shared_layer='b'.",
        ),
        (lambda: tag_keras.GradNorm(3), "should be a layer of the encoder, or its name. Received"),
        (lambda: tag_keras.GradNorm("a", alpha=-1), "`alpha` should be a number of at least 0"),
        (
            lambda: tag_keras.GradNorm("a", learning_rate=float("nan")),
            "`learning_rate` should be a number of at least 0. Received: learning_rate=nan",
        ),
        *(
            (
                lambda clip=clip: tag_keras.GradNorm("a", clip=clip),
                "`clip` should be a positive num",
            )
            for clip in (None, 1.0, (0.0, 2.0), (2.0, 3.0), (0.1, 0.5), (0.1, 1.0, 10.0))
        ),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(ValueError, match=message):
        action()
