"""Models with frozen layers: they train like plain Keras models, and load after training."""

import keras
import numpy as np
import pytest

import tag_keras

TASKS = ("a", "b")


def make_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    features = keras.layers.Dense(4, "relu", name="trunk")(inputs)
    return keras.Model(inputs, {task: keras.layers.Dense(1)(features) for task in TASKS})


def make_data():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    return x, {"a": x[:, :1], "b": x[:, 1:2]}


def test_heads_on_a_frozen_backbone_train_as_in_keras():
    weights = []
    for make in (lambda network: network, tag_keras.MultiTaskModel.from_functional):
        network = make_network()
        network.get_layer("trunk").trainable = False
        model = make(network)
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        model.fit(*make_data(), batch_size=4, shuffle=False, verbose=0)
        weights.append(network.get_weights())
    for expected, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_an_affinity_needs_a_shared_layer_that_trains():
    network = make_network()
    network.get_layer("trunk").trainable = False
    model = tag_keras.MultiTaskModel.from_functional(network)
    with pytest.raises(ValueError, match="nothing that an affinity could be measured on"):
        model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"affinity": tag_keras.LookaheadAffinity()}, {"gradient_method": tag_keras.PCGrad()}],
    ids=["affinity", "gradient_method"],
)
def test_a_layer_frozen_after_training_does_not_stop_a_load(tmp_path, options):
    x, y = make_data()
    model = tag_keras.MultiTaskModel.from_functional(make_network())
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True, **options)
    model.fit(x, y, batch_size=4, verbose=0)
    model.encoder.get_layer("trunk").trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for task, expected in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(loaded.predict(x, verbose=0)[task], expected, atol=1e-6)
    with pytest.raises(ValueError, match="no trainable variable that several tasks share"):
        loaded.fit(x, y, verbose=0)
