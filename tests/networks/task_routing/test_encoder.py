import contextlib
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.networks.task_routing.encoder import features_by_task

TASKS = ("b", "a", "c")


def make_trunk(num_tasks=3, width=6):
    """Without convolutions, so that it is traced in no time."""
    inputs, task_ids = keras.Input((4,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(width)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = tag_keras.TaskRouting(num_tasks, seed=0)(x, task_ids)
    return keras.Model([inputs, task_ids], keras.layers.ReLU()(x))


def batch(size=5):
    return np.random.default_rng(0).normal(size=(size, 4)).astype("float32")


def test_features_are_those_of_a_loop_over_the_tasks():
    trunk, x = make_trunk(), batch()
    features = tag_keras.RoutedEncoder(trunk, TASKS)(x)
    assert list(features) == list(TASKS)
    for i, task in enumerate(TASKS):
        np.testing.assert_allclose(features[task], trunk([x, np.full(5, i)]), rtol=1e-5)
    some = features_by_task(trunk, tf.constant(x), tf.constant([2, 0]), training=False)
    np.testing.assert_allclose(some, [features["c"], features["b"]], rtol=1e-5)


def test_statistics_move_once_and_see_the_examples_of_all_tasks():
    trunk, x = make_trunk(), batch()
    kinds = (keras.layers.Dense, keras.layers.BatchNormalization)
    dense, normalization = (one for one in trunk.layers if isinstance(one, kinds))
    tag_keras.RoutedEncoder(trunk, TASKS)(x, training=True)
    # One step with the momentum 0.99. Before the first mask, all tasks have the same features.
    np.testing.assert_allclose(
        normalization.moving_mean, 0.01 * np.mean(dense(x), axis=0), rtol=1e-3, atol=1e-7
    )


def operations(num_tasks):
    encoder = tag_keras.RoutedEncoder(
        make_trunk(num_tasks, 400), [f"t{i}" for i in range(num_tasks)]
    )

    @tf.function
    def loss(x):
        return tf.add_n([tf.reduce_sum(one) for one in encoder(x, training=True).values()])

    graph = loss.get_concrete_function(tf.TensorSpec((None, 4))).graph
    return [one.type for one in graph.get_operations()]


def test_the_graph_of_the_trunk_does_not_grow_with_the_number_of_tasks():
    few, many = operations(2), operations(200)
    # Sums by task stand for the heads: each has one operation and a constant.
    for kind in set(few) - {"Sum", "Const"}:
        assert few.count(kind) == many.count(kind), kind
    assert many.count("Sum") - few.count("Sum") == 198
    assert many.count("Const") - few.count("Const") <= 198


def test_an_encoder_is_saved_and_loaded(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, tag_keras.RoutedEncoder(make_trunk(), TASKS)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    features, again = (one.predict(batch(), verbose=0) for one in (model, loaded))
    for task in TASKS:
        np.testing.assert_array_equal(features[task], again[task])


def test_it_is_an_encoder_for_a_multi_task_model():
    encoder = tag_keras.RoutedEncoder(make_trunk(), TASKS)
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in TASKS})
    affinity = tag_keras.FirstOrderAffinity(every=1)
    model.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    model.fit(batch(), {task: np.ones(5) for task in TASKS}, verbose=0)
    # All of the trunk is shared: a kernel and a bias, gamma and beta.
    assert len(model.shared_variables) == 4
    assert model.get_affinity().mean.shape == (3, 3)


@pytest.mark.slow
def test_it_trains_on_several_devices(two_replicas):
    # Equal parts of the batch: the mean of the losses of the parts is that of the batch. Without
    # batch normalization, whose statistics would be those of each part.
    ends = []
    for strategy in (two_replicas, None):
        random.seed(0)
        with strategy.scope() if strategy else contextlib.nullcontext():
            inputs, task_ids = keras.Input((4,)), keras.Input((), dtype="int32")
            x = tag_keras.TaskRouting(3, seed=0)(keras.layers.Dense(6)(inputs), task_ids)
            encoder = tag_keras.RoutedEncoder(keras.Model([inputs, task_ids], x), TASKS)
            model = tag_keras.MultiTaskModel(
                encoder, {task: keras.layers.Dense(1) for task in TASKS}
            )
            model.compile("sgd", "mse", run_eagerly=strategy is None)
        model.fit(batch(6), {task: np.ones(6) for task in TASKS}, batch_size=6, verbose=0)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_trunk_that_does_not_fit_is_an_error():
    inputs = keras.Input((4,))
    message = (
        r"`trunk` should be a Functional model from \[inputs, task ids\], where the task ids are"
    )
    for trunk in (keras.Sequential([inputs, keras.layers.Dense(2)]), keras.layers.Dense(2)):
        with pytest.raises(ValueError, match=message):
            tag_keras.RoutedEncoder(trunk, TASKS)
    message = r"`tasks` should name as many tasks as `trunk` routes, \[3\]\. Received: num_tasks=2"
    with pytest.raises(ValueError, match=message):
        tag_keras.RoutedEncoder(make_trunk(), ["a", "b"])
    with pytest.raises(ValueError, match=r"`tasks` should be unique\. Repeated: \['a'\]"):
        tag_keras.RoutedEncoder(make_trunk(), ["a", "a", "b"])
