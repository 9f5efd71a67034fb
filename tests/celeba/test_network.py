import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from celeba import network
from celeba.data import TASKS


def count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def make_batch(tasks, size=4, image_size=64):
    random = np.random.default_rng(0)
    images = random.uniform(size=(size, image_size, image_size, 3)).astype("float32")
    return images, {task: random.integers(0, 2, size).astype("int32") for task in tasks}


def test_parameters_are_those_of_the_original():
    model = network.build_model(TASKS)
    outputs = model(keras.Input((64, 64, 3)))
    assert model.encoder.output_shape == (None, 15 * 15 * 64)
    # Three kernels 3x3, of 3 -> 64 and twice 64 -> 64, and three pairs of 64 for BatchNorm.
    assert count(model.encoder.trainable_variables) == 27 * 64 + 2 * 576 * 64 + 3 * 128 == 75_840
    assert count(model.heads["Goatee"].trainable_variables) == 14_400 * 2 + 2 == 28_802
    assert count(model.trainable_variables) == 335_058
    assert list(outputs) == list(TASKS)
    assert {task: one.shape for task, one in outputs.items()} == dict.fromkeys(TASKS, (None, 2))


def test_kernels_are_drawn_as_in_the_original_and_gradnorm_looks_at_the_third_from_the_end():
    encoder = network.build_encoder()
    variables = encoder.trainable_variables
    # As in the notebook: a kernel, its scale and its shift, three times.
    assert [variable.name for variable in variables] == ["kernel", "gamma", "beta"] * 3
    assert len(variables) == 9
    assert encoder.get_layer(network.LAST_CONVOLUTION).kernel is variables[-3]
    for kernel in variables[::3]:
        # Glorot and Bengio 2010: uniform up to sqrt(6 / (inputs + outputs)).
        limit = np.sqrt(6 / (9 * kernel.shape[2] + 9 * kernel.shape[3]))
        values = np.abs(kernel.numpy())
        assert values.max() <= limit
        assert values.max() == pytest.approx(limit, rel=0.02)
        assert values.mean() == pytest.approx(limit / 2, rel=0.05)
    assert {layer.epsilon for layer in encoder.layers if "batch" in layer.name} == {1e-3}


def test_the_encoder_computes_what_the_notebook_computes():
    keras.utils.set_random_seed(0)
    encoder = network.build_encoder(16)
    images, _ = make_batch(TASKS, image_size=16)
    # By TensorFlow's functions instead of layers, with the statistics of the batch.
    kernels = [variable.numpy() for variable in encoder.trainable_variables[::3]]

    def convolve(x, kernel):
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        return tf.nn.batch_normalization(x, mean, variance, 0.0, 1.0, 1e-3)

    x = tf.nn.max_pool2d(tf.nn.relu(convolve(images, kernels[0])), 3, 2, "VALID")
    y = convolve(tf.nn.relu(convolve(x, kernels[1])), kernels[2])
    wanted = tf.nn.avg_pool2d(tf.nn.relu(x + y), 2, 2, "VALID")
    found = encoder(images, training=True)
    np.testing.assert_allclose(found, tf.reshape(wanted, (4, -1)), atol=1e-5)


def test_mtan_adds_a_module_for_each_task():
    tasks = ["Goatee", "Mustache"]
    keras.utils.set_random_seed(0)
    model = network.build_model(tasks, build_encoder=network.build_mtan_encoder)
    encoder = model.encoder
    # A mask of 64 channels: convolutions 1x1 with biases 64 -> 16 -> 64, and BatchNorm twice.
    module = 64 * 16 + 16 + 2 * 16 + 16 * 64 + 64 + 2 * 64
    assert module == 2_288
    assert count(encoder.trainable_variables) == 75_840 + 2 * module
    shapes = {task: one.shape for task, one in encoder.output.items()}
    assert shapes == dict.fromkeys(tasks, (None, 14_400))
    images, _ = make_batch(tasks)
    features = encoder(images)
    assert not np.allclose(features["Goatee"], features["Mustache"])


def test_masks_are_between_zero_and_one():
    encoder = network.build_mtan_encoder(["Goatee"], 16)
    (attention,) = [one for one in encoder.layers if isinstance(one, tag_keras.TaskAttention)]
    whole = keras.Model(encoder.input, [*attention.input, attention.output])
    entry, block, seen = whole(make_batch([], image_size=16)[0])
    assert entry.shape == block.shape == seen.shape
    present = block.numpy() > 0
    ratio = seen.numpy()[present] / block.numpy()[present]
    assert 0 < ratio.min() < ratio.max() < 1


def test_the_loss_is_that_of_the_notebook_with_labels_of_two_columns():
    keras.utils.set_random_seed(0)
    model = network.build_model(TASKS, run_eagerly=True)
    images, labels = make_batch(TASKS)
    logits = model(images)
    # The notebook's own expression.
    wanted = {
        task: tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(tf.one_hot(labels[task], 2), logits[task])
        )
        for task in TASKS
    }
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    for task in TASKS:
        assert logs[f"{task}_loss"] == pytest.approx(float(wanted[task]), rel=1e-5)
        right = np.mean(np.argmax(logits[task], axis=1) == labels[task])
        assert logs[f"{task}_accuracy"] == pytest.approx(right)
    assert logs["loss"] == pytest.approx(float(tf.add_n(list(wanted.values()))), rel=1e-5)


def test_the_optimizer_is_that_of_the_original():
    model = network.build_model(["Goatee"])
    assert type(model.optimizer) is keras.optimizers.SGD
    config = model.optimizer.get_config()
    assert (config["momentum"], config["nesterov"]) == (0.9, False)
    assert config["learning_rate"] == pytest.approx(5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mtan", [False, True])
def test_affinities_are_measured_and_gradnorm_finds_its_kernel(mtan):
    tasks = ["Goatee", "Mustache"]
    build = (
        network.build_mtan_encoder if mtan else (lambda tasks, size: network.build_encoder(size))
    )
    data = make_batch(tasks, image_size=16)
    model = network.build_model(
        tasks,
        build_encoder=lambda tasks: build(tasks, 16),
        affinity=tag_keras.LookaheadAffinity(every=1),
        run_eagerly=True,
    )
    model.fit(*data, verbose=0)
    assert model.get_affinity().count.tolist() == [[1, 1], [1, 1]]
    weighting = tag_keras.GradNorm(network.LAST_CONVOLUTION, alpha=0.1, learning_rate=5e-4)
    model = network.build_model(
        tasks,
        build_encoder=lambda tasks: build(tasks, 16),
        loss_weighting=weighting,
        run_eagerly=True,
    )
    logs = model.fit(*data, verbose=0, epochs=2).history
    assert logs["Goatee_weight"][-1] + logs["Mustache_weight"][-1] == pytest.approx(2, rel=1e-5)
