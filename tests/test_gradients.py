"""Gradients by task, against derivatives worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.gradients import task_gradients, weighted_sum


@pytest.fixture(params=["eager", "compiled", "compiled by XLA"])
def compiled(request):
    """Runs a function in each of the ways in which a training step may run."""
    if request.param == "eager":
        return lambda function: function
    return lambda function: tf.function(function, jit_compile=request.param == "compiled by XLA")


def as_arrays(rows):
    return [[None if one is None else np.asarray(one) for one in row] for row in rows]


def assert_rows(rows, expected):
    for row, wanted in zip(rows, expected, strict=True):
        for gradient, value in zip(row, wanted, strict=True):
            if value is None:
                assert gradient is None
            else:
                np.testing.assert_allclose(gradient, value, rtol=1e-6)


def test_gradients_equal_their_closed_forms(compiled):
    # With weights w and bias b, over samples x with labels y and z:
    #   L_0 = mean (x w + b - y)^2,  dL_0/dw = 2 x^T e / n,  dL_0/db = 2 sum e / n,  e = x w + b - y
    #   L_1 = sum (x w - z),         dL_1/dw = sum over samples of x,  none for b
    #   L_2 = 3 b,                   none for w,  dL_2/db = 3
    generator = np.random.default_rng(0)
    x, y, z = generator.normal(size=(3, 5, 4)).astype("float32")
    w, b = keras.Variable(generator.normal(size=4), dtype="float32"), keras.Variable(0.5)

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            prediction = tf.linalg.matvec(x, w)
            losses = [
                tf.reduce_mean((prediction + b - y[:, 0]) ** 2),
                tf.reduce_sum(prediction - z[:, 0]),
                3 * tf.convert_to_tensor(b),
            ]
        return task_gradients(tape, losses, [w, b])

    error = x @ np.asarray(w) + 0.5 - y[:, 0]
    expected = [[2 * x.T @ error / 5, 2 * error.sum() / 5], [x.sum(axis=0), None], [None, 3.0]]
    assert_rows(as_arrays(compiled(gradients)()), expected)


def test_variables_come_in_the_order_given():
    a, b = tf.Variable(1.0), tf.Variable(1.0)
    with tf.GradientTape(persistent=True) as tape:
        losses = [2 * a + 3 * b]
    assert_rows(task_gradients(tape, losses, (b, a)), [[3.0, 2.0]])
    assert_rows(task_gradients(tape, losses, []), [[]])


def test_the_gradient_of_an_embedding_is_dense(compiled):
    # Rows 2 (once) and 0 (twice) of four are looked up; row 1 and row 3 are not touched.
    embedding = keras.layers.Embedding(4, 2)
    embedding.build()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(embedding(tf.constant([2, 0, 0])))
    assert isinstance(tape.gradient(loss, embedding.embeddings.value), tf.IndexedSlices)

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            vectors = embedding(tf.constant([2, 0, 0]))
            losses = [tf.reduce_sum(vectors), tf.reduce_sum(vectors[0] * [10.0, 20.0])]
        return task_gradients(tape, losses, embedding.trainable_variables)

    rows = compiled(gradients)()
    assert all(isinstance(gradient, tf.Tensor) for (gradient,) in rows)
    of_all = [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    of_one = [[0.0, 0.0], [0.0, 0.0], [10.0, 20.0], [0.0, 0.0]]
    assert_rows(as_arrays(rows), [[of_all], [of_one]])


def test_weighted_sum_by_hand(compiled):
    gradients = [
        [tf.constant([1.0, 2.0]), None, None],
        [tf.constant([10.0, 20.0]), tf.constant(5.0), None],
        [tf.constant([100.0, 200.0]), None, None],
    ]
    # 2 * (1, 2) + 1 * (10, 20) + 0.5 * (100, 200), and 1 * 5.
    weights = [2.0, 1.0, keras.Variable(0.5)]
    total = compiled(lambda: weighted_sum(gradients, weights))()
    assert_rows(as_arrays([total]), [[[62.0, 124.0], 5.0, None]])


@pytest.mark.parametrize("one", [1.0, 1, np.float32(1.0)])
def test_a_weight_of_one_gives_the_gradient_itself(one):
    gradient = tf.constant([1.0, 2.0])
    np.testing.assert_array_equal(weighted_sum([[gradient]], [one])[0], gradient)


def test_a_variable_weight_follows_assign_even_if_it_was_one():
    weight = keras.Variable(1.0, trainable=False)
    total = tf.function(lambda gradient: weighted_sum([[gradient]], [weight])[0])
    assert float(total(tf.constant(3.0))) == 3.0
    weight.assign(0.5)
    assert float(total(tf.constant(3.0))) == 1.5


def test_weighted_sum_is_the_gradient_of_the_weighted_loss():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 8, 3)).astype("float32")
    shared, head = keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)
    head(shared(x))
    variables = [*shared.trainable_variables, *head.trainable_variables]
    weights = [0.5, 1.0, tf.constant(-2.0)]
    with tf.GradientTape(persistent=True) as tape:
        features = shared(x)
        errors = tf.reduce_mean((head(features) - y) ** 2, axis=0)
        losses = [errors[0], errors[1], tf.reduce_sum(features)]
        joint = tf.add_n([weight * loss for weight, loss in zip(weights, losses, strict=True)])
    total = weighted_sum(task_gradients(tape, losses, variables), weights)
    expected = tape.gradient(joint, [variable.value for variable in variables])
    for gradient, wanted in zip(total, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [[[tf.constant(1.0)], []], [[None, None], [None]]])
def test_rows_of_different_lengths_are_refused(rows):
    with pytest.raises(ValueError, match="zip"):
        weighted_sum(rows, [1.0, 1.0])


def test_one_weight_for_each_task_is_wanted():
    with pytest.raises(ValueError, match="zip"):
        weighted_sum([[tf.constant(1.0)], [tf.constant(1.0)]], [1.0])
