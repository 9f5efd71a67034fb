import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras


@pytest.fixture
def head():
    keras.utils.set_random_seed(0)
    layer = tag_keras.TaskDense(3, units=2)
    layer.build((None, 4))
    layer.bias.assign(np.arange(6.0).reshape(3, 2))
    return layer


def dense(head, task):
    """The layer of Keras with the weights of one task."""
    layer = keras.layers.Dense(2)
    layer.build((None, 4))
    layer.set_weights([head.kernel.numpy()[task], head.bias.numpy()[task]])
    return layer


def features(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_equals_a_dense_layer_by_task(head, jit_compile):
    call = tf.function(lambda x, ids: head(x, ids), jit_compile=jit_compile)
    x, ids = features(5, 4), [2, 0, 2, 1, 0]
    by_example = [dense(head, task)(x[i : i + 1])[0] for i, task in enumerate(ids)]
    np.testing.assert_allclose(call(x, tf.constant(ids)), by_example, rtol=1e-5)
    np.testing.assert_allclose(call(x, tf.constant(1)), dense(head, 1)(x), rtol=1e-5)
    x = features(2, 5, 4)
    by_batch = [dense(head, 2)(x[0]), dense(head, 0)(x[1])]
    np.testing.assert_allclose(call(x, tf.constant([2, 0])), by_batch, rtol=1e-5)


def test_only_the_head_of_the_task_gets_a_gradient(head):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(head(features(5, 4), task_ids=1))
    for gradient in tape.gradient(loss, head.trainable_variables):
        size = np.abs(tf.convert_to_tensor(gradient).numpy()).reshape(3, -1).max(axis=1)
        assert size[1] > 0
        assert size[[0, 2]].tolist() == [0, 0]


def test_kernels_start_as_those_of_dense_layers():
    # Glorot's range for 6 inputs and 2 outputs is sqrt(6 / 8), however many tasks there are.
    layer = tag_keras.TaskDense(500, 2)
    layer.build((None, 6))
    largest = np.abs(layer.kernel).max()
    assert 0.99 * (6 / 8) ** 0.5 < largest <= (6 / 8) ** 0.5
    assert not np.any(layer.bias)


def test_it_is_saved_and_loaded(tmp_path):
    x, ids = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, ids], tag_keras.TaskDense(3, 2)(x, ids))
    assert model.output.shape == (None, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    batch = [features(5, 4), np.array([2, 0, 2, 1, 0])]
    np.testing.assert_array_equal(model(batch), loaded(batch))


def test_numbers_that_are_not_positive_are_errors():
    with pytest.raises(
        ValueError, match=r"`num_tasks` should be at least 1. Received: num_tasks=0"
    ):
        tag_keras.TaskDense(0)
    with pytest.raises(ValueError, match=r"`units` should be an integer. Received: units=1.5"):
        tag_keras.TaskDense(2, 1.5)
