"""A network leaves nothing behind in its process, and gradients stay what they were."""

import collections
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import make_data
from tensorflow.python.framework import ops

import tag_keras
from tag_keras.backend.traces import release_graphs
from tag_keras.sweep import job, sweep
from tag_keras.sweep import network as training

TASKS = ("a", "b")


def alive():
    """Numbers of what a network is made of, and the names of the gradients in the registry."""
    gc.collect()
    # Whatever an object is, `type` does not look into it.
    kinds = [type(one) for one in gc.get_objects()]
    wanted = (tf.Graph, keras.layers.Layer, keras.Variable, keras.optimizers.Optimizer, tf.Tensor)
    counts = collections.Counter(kind.__name__ for kind in kinds if issubclass(kind, wanted))
    return counts, set(ops.gradient_registry._registry)


@pytest.mark.slow
@pytest.mark.parametrize("affinity", [None, tag_keras.LookaheadAffinity(every=2)])
def test_networks_of_a_run_leave_nothing_behind(tmp_path, affinity):
    def build_model(tasks):
        # The gradient of silu is a custom one, as is the sum of gradients over replicas.
        encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "silu")])
        model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
        model.compile("adam", dict.fromkeys(tasks, "mse"), affinity=affinity)
        return model

    data = make_data(8)

    def train(seed):
        network = training.Network("joint", TASKS, seed)
        one = job.Job(network, build_model, {"verbose": 0}, measures=affinity is not None)
        sweep.run_sweep(tmp_path, [one], {"train": data, "test": data}, processes=0)

    # TensorFlow and Keras make some things once.
    train(0)
    before, known = alive()
    train(1)
    after, found = alive()
    assert not after - before
    assert found <= known


@tf.custom_gradient
def cube(x):
    # Another factor than 3, to see whose gradient it is.
    return x**3, lambda upstream: 5 * upstream * x**2


def looped(x):
    return tf.while_loop(lambda i, _: i < 1, lambda i, y: (i + 1, cube(y)), (0, x))[1]


def one_more(function):
    return tf.function(lambda x: function(x) + 1.0)


@pytest.mark.parametrize("function", [cube, looped])
def test_custom_gradients_live_as_long_as_a_graph_that_may_ask_for_them(function):
    known = alive()[1]
    inner = tf.function(function)
    outer = one_more(inner)
    x = tf.constant(2.0)
    # Without a tape there are no gradients yet: TensorFlow looks them up later.
    assert outer(x) == 9
    release_graphs()
    del outer
    gc.collect()
    release_graphs()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = inner(x)
    np.testing.assert_allclose(tape.gradient(y, x), 5 * 2**2)
    assert alive()[1] - known
    del inner, tape, y
    release_graphs()
    assert not alive()[1] - known
