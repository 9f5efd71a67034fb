"""Networks of fixed policies against the model that they are taken from."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from adashare_blocks import TASKS, make_data, make_layers, set_policy

import tag_keras

layers = keras.layers
# "b" skips the block with the projection, "a" and "c" part at the last block.
POLICY = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]], bool)


def make_model(tasks=TASKS, trained=True):
    random.seed(0)
    encoder = tag_keras.AdaShareEncoder(*make_layers(), tasks)
    model = tag_keras.AdaShareModel(encoder, {task: layers.Dense(1) for task in tasks})
    if trained:
        model(make_data()[0], training=True)
    return model


@pytest.fixture(scope="module")
def model():
    """For tests that leave its weights alone, but for the policy."""
    return make_model()


@pytest.fixture(scope="module")
def pruned(model):
    return model.pruned_model(POLICY)


def parameters(*sizes):
    return sum(inputs * outputs + rest for inputs, outputs, rest in sizes)


# Inputs, outputs, and bias or the four vectors of BatchNorm.
STEM, HEAD, PROJECTION = (5, 6, 6), (8, 1, 1), (6, 8, 8)
FIRST, SECOND, THIRD = (6, 6, 4 * 6), (6, 8, 4 * 8), (8, 8, 4 * 8)


@pytest.mark.slow
def test_a_pruned_model_predicts_what_the_model_predicts_under_the_policy(model):
    x, _ = make_data()
    set_policy(model.encoder.policy, POLICY)
    expected = model.predict(x, verbose=0)
    pruned = model.pruned_model(model.encoder.policy.most_probable())
    assert isinstance(pruned, tag_keras.MultiTaskModel) and pruned.tasks == TASKS
    for task, values in pruned.predict(x, verbose=0).items():
        np.testing.assert_allclose(values, expected[task], atol=1e-6)
    # It has weights of its own.
    pruned.encoder.layers[1].set_weights([np.zeros((5, 6)), np.zeros(6)])
    np.testing.assert_array_equal(model.predict(x, verbose=0)["a"], expected["a"])


@pytest.mark.slow
def test_what_no_task_executes_is_absent(model, pruned):
    full = parameters(STEM, FIRST, SECOND, PROJECTION, THIRD, HEAD, HEAD, HEAD)
    assert model.pruned_model(np.ones((3, 3))).count_params() == full
    least = parameters(STEM, PROJECTION, HEAD, HEAD, HEAD)
    small = model.pruned_model(np.zeros((3, 3)))
    assert small.count_params() == least
    # One layer each, because all tasks go the same way.
    kinds = [type(layer).__name__ for layer in small.encoder.layers]
    assert kinds == ["InputLayer", "Dense", "Dense"]
    assert pruned.count_params() == full


def test_tasks_go_together_as_far_as_their_policies_agree(model):
    policy = [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    relus = [
        layer for layer in model.pruned_model(policy).encoder.operations if "relu" in layer.name
    ]
    # Two blocks together, and the last one of the first task.
    assert len(relus) == 3


@pytest.mark.parametrize(
    ("task", "layers_of_task"),
    [
        ("b", (STEM, FIRST, PROJECTION, HEAD)),
        ("a", (STEM, SECOND, PROJECTION, THIRD, HEAD)),
        ("c", (STEM, SECOND, PROJECTION, HEAD)),
    ],
)
def test_the_network_of_a_task(pruned, tmp_path, task, layers_of_task):
    x, _ = make_data()
    network = tag_keras.task_network(pruned, task)
    assert network.count_params() == parameters(*layers_of_task)
    expected = pruned(x)[task]
    np.testing.assert_allclose(network(x), expected, atol=1e-6)
    # Of Keras' own layers alone: it loads without tag_keras and without the block.
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    np.testing.assert_allclose(loaded(x), expected, atol=1e-6)


@pytest.mark.slow
def test_a_model_to_retrain_has_fresh_weights_and_trains_as_any_other(model, pruned, tmp_path):
    x, y = make_data()
    fresh, other = model.retrain_model(POLICY), model.retrain_model(POLICY)
    shapes = [variable.shape for variable in pruned.weights]
    assert [variable.shape for variable in fresh.weights] == shapes
    kernels = [one.encoder.layers[1].kernel.numpy() for one in (pruned, fresh)]
    assert not np.isclose(*kernels).any()
    assert not np.isclose(kernels[1], other.encoder.layers[1].kernel).any()
    # Affinities are measured on what several tasks execute: not the first and the last block.
    affinity = tag_keras.LookaheadAffinity(every=1)
    fresh.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    # Kernel and bias of the stem and of the projection; of the second block, what "a" and "c" have.
    assert len(fresh.shared_variables) == 2 + 2 + 3
    before = [variable.numpy() for variable in fresh.trainable_variables]
    fresh.fit(x, y, batch_size=96, verbose=0)
    assert fresh.get_affinity().mean.shape == (3, 3)
    for value, variable in zip(before, fresh.trainable_variables, strict=True):
        assert not np.isclose(value, variable).all(), variable.path
    fresh.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = fresh(x)
    for task, values in loaded(x).items():
        np.testing.assert_array_equal(values, expected[task])


def test_one_task():
    model, (x, _) = make_model(("a",)), make_data()
    pruned = model.pruned_model([[0, 0, 1]])
    network = tag_keras.task_network(pruned, "a")
    np.testing.assert_allclose(network(x), pruned(x)["a"], atol=1e-6)


def test_networks_of_other_models():
    (x, _), image = make_data(), keras.Input((5,))
    trunk = layers.Dense(4)(image)
    outputs = {task: layers.Dense(1)(trunk) for task in TASKS}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(image, outputs))
    network = tag_keras.task_network(model, "a")
    assert network.count_params() == 5 * 4 + 4 + 4 + 1
    np.testing.assert_allclose(network(x), model(x)["a"], atol=1e-6)
    model = tag_keras.MultiTaskModel(
        keras.Model(image, trunk), {task: layers.Dense(1) for task in TASKS}
    )
    np.testing.assert_allclose(tag_keras.task_network(model, "b")(x), model(x)["b"], atol=1e-6)


def test_what_has_no_network(model):
    with pytest.raises(ValueError, match=r"one of the tasks \['b', 'a', 'c'\]. Received: task='d'"):
        tag_keras.task_network(model, "d")
    with pytest.raises(ValueError, match=r"a Functional model, .* `model.pruned_model\(policy\)`"):
        tag_keras.task_network(model, "a")
    message = r"each of the 3 tasks and a column for each of the 3 blocks. Received: shape=\(2, 3\)"
    for method in (model.pruned_model, model.retrain_model):
        with pytest.raises(ValueError, match=message):
            method(POLICY[:2])
    with pytest.raises(ValueError, match="The encoder has not seen any data"):
        make_model(trained=False).retrain_model(POLICY)


@pytest.mark.slow
def test_a_policy_of_a_mixed_precision_model():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, (x, _) = make_model(), make_data()
        set_policy(model.encoder.policy, POLICY)
        expected = model(x)
        pruned = model.pruned_model(POLICY)
    finally:
        keras.config.set_dtype_policy("float32")
    for task, values in pruned(x).items():
        assert tf.as_dtype(values.dtype) == tf.float16
        np.testing.assert_allclose(values, expected[task], atol=5e-3)
