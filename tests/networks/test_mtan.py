import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.resnet import ConvNorm

TASKS = {"b": 2, "a": 1}
SMALL = {"input_shape": (8, 8, 3), "widths": (4, 6)}


def images(size=4, seed=0):
    return np.random.default_rng(seed).normal(size=(size, 8, 8, 3)).astype("float32")


def of_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return tag_keras.mtan_segnet(TASKS, **SMALL)


def gradients_by_task(model):
    """For each task, the gradients of its outputs, by the id of the variable."""
    variables = model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(images(), training=True)
        losses = {task: tf.reduce_mean(tf.square(one)) for task, one in outputs.items()}
    return {
        task: {
            id(variable): gradient
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True)
        }
        for task, loss in losses.items()
    }


def test_parameters_of_three_tasks():
    # Liu, Johns and Davison 2019, the authors' count for 13 classes, depth and normals:
    # 44,229,076 with three weights of uncertainties, which are no part of the network. That is
    # 1.77 times the network of one task.
    model = tag_keras.mtan_segnet({"semantic": 13, "depth": 1, "normal": 3}, (32, 32, 3))
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert parameters == 44_229_076 - 3
    assert {task: one.shape for task, one in model.output.items()} == {
        "semantic": (None, 32, 32, 13),
        "depth": (None, 32, 32, 1),
        "normal": (None, 32, 32, 3),
    }


def test_masks_and_output_layers_belong_to_one_task_and_the_rest_to_all(network):
    gradients = gradients_by_task(network)
    attention = of_kind(network, tag_keras.TaskAttention)
    outputs = of_kind(network, keras.layers.Conv2D)
    # For each task: one module by block of the encoder and of the decoder, and two output layers.
    assert (len(attention), len(outputs)) == (2 * 4, 2 * 2)
    owners = []
    for layer in attention + outputs:
        reached = [
            {gradients[task][id(variable)] is not None for variable in layer.trainable_variables}
            for task in TASKS
        ]
        assert all(len(one) == 1 for one in reached)
        (first,), (second,) = reached
        assert first != second
        owners.append("b" if first else "a")
    assert owners.count("a") == owners.count("b") == 4 + 2

    # In the SegNet, 2 + 2 convolutions each way; 2 + 2 that lead from block to block.
    shared = of_kind(network, ConvNorm)
    assert len(shared) == 8 + 4
    for layer in shared:
        for task in TASKS:
            assert np.abs(gradients[task][id(layer.convolution.kernel)]).max() > 0


def test_what_the_modules_look_at():
    # Numbers of convolutions before u, before p, and on the way of the task. Two blocks of two each
    # way: u follows the first of a block of the encoder, and precedes those of the decoder, where
    # it is what the unpooling gives; p follows the last.
    model = tag_keras.mtan_segnet({"a": 1}, **SMALL)
    attention = of_kind(model, tag_keras.TaskAttention)
    before = [
        [len(of_kind(keras.Model(model.input, one), ConvNorm)) for one in layer.input]
        for layer in attention
    ]
    # What the task made of the block before has come through p of that block, and one more.
    assert before == [[1, 2], [3, 4, 2 + 1], [4, 6, 4 + 2 + 1], [6, 8, 6 + 3 + 1]]
    modules = [
        [
            len(of_kind(keras.Model(model.input, one), tag_keras.TaskAttention))
            for one in layer.input
        ]
        for layer in attention
    ]
    assert modules == [[0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]]


def test_masks_of_one_give_what_the_segnet_gives():
    # With masks that are 1 the last features of a task are those of the decoder.
    model = tag_keras.mtan_segnet({"a": 1}, **SMALL)
    attention = of_kind(model, tag_keras.TaskAttention)
    for layer in attention:
        layer.second.normalization.gamma.assign(0 * layer.second.normalization.gamma)
        layer.second.normalization.beta.assign(100 + 0 * layer.second.normalization.beta)
    # Of one task, so the last module is that of the last block.
    last = attention[-1]
    trunk = keras.Model(model.input, last.input[1])
    twin = tag_keras.segnet({"a": 1}, **SMALL)
    twin_convolutions = of_kind(twin, ConvNorm)
    convolutions = of_kind(trunk, ConvNorm)
    assert len(convolutions) == len(twin_convolutions) == 8
    for one, other in zip(convolutions, twin_convolutions, strict=True):
        other.set_weights(one.get_weights())
    for one, other in zip(
        of_kind(model, keras.layers.Conv2D), of_kind(twin, keras.layers.Conv2D), strict=True
    ):
        other.set_weights(one.get_weights())
    x = images()
    np.testing.assert_allclose(model(x)["a"], twin(x)["a"], rtol=1e-4, atol=1e-6)


def test_it_trains_as_a_multi_task_model_and_is_saved(network, tmp_path):
    model = tag_keras.MultiTaskModel.from_functional(keras.models.clone_model(network))
    names = {variable.path for variable in model.shared_variables}
    # All of the shared convolutions: a kernel, a bias, gamma and beta each.
    assert len(names) == 4 * 12
    model.compile("sgd", "mse", run_eagerly=True)
    x, labels = images(), {"a": np.zeros((4, 8, 8, 1)), "b": np.zeros((4, 8, 8, 2))}
    before = [variable.numpy() for variable in model.shared_variables]
    model.fit(x, labels, batch_size=4, verbose=0)
    assert all(
        (v.numpy() != was).any() for v, was in zip(model.shared_variables, before, strict=True)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, prediction in model(x).items():
        np.testing.assert_array_equal(loaded(x)[task], prediction)
