"""Gradients by task, against derivatives worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.backend.gradients import (
    StackedGradients,
    looped_gradients,
    map_tasks,
    of_whole_batch,
    select_variables,
    stack_columns,
    task_gradients,
    weighted_sum,
)


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


# The same in a loop of the graph.

SIZES = (4, 2)


@pytest.fixture
def network():
    """Losses of three tasks by a function of no arguments, and the variables that they know.

    The second loss alone depends on `of_one`, none on `of_none`; the Embedding's gradient comes
    as slices.
    """
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    embedding, dense = keras.layers.Embedding(*SIZES), keras.layers.Dense(3, "tanh")
    embedding.build()
    dense.build((None, SIZES[1]))
    of_one, of_none = keras.Variable([0.5, -1.0]), keras.Variable([[1.0]])
    targets = generator.normal(size=(6, 3)).astype("float32")

    def losses():
        features = dense(embedding(tf.constant([2, 0, 0, 3, 2, 2])))
        errors = tf.reduce_mean((features - targets) ** 2, axis=0)
        return [errors[0], errors[1] + tf.reduce_sum(of_one.value**2), 1e3 * errors[2]]

    return losses, [*embedding.weights, *dense.weights, of_one, of_none]


def both_ways(network, compiled):
    """Gradients of the losses, unrolled and looped: two graphs, as in a training step."""
    losses, variables = network

    def by(function):
        def gradients():
            with tf.GradientTape(persistent=True) as tape:
                values = losses()
            return function(tape, values, variables)

        return compiled(gradients)()

    return by(task_gradients), by(looped_gradients), variables


def test_losses_that_depend_on_no_variable_have_no_gradients_either_way(compiled):
    variable = keras.Variable([1.0])
    rows, looped, _ = both_ways(
        (lambda: [tf.constant(1.0), tf.constant(2.0)], [variable]), compiled
    )
    assert rows == looped == [[None], [None]]
    assert len(of_whole_batch(looped, [variable])) == 2


@pytest.mark.slow
def test_looped_gradients_equal_the_unrolled_ones(network, compiled):
    rows, stacked, variables = both_ways(network, compiled)
    assert isinstance(stacked, StackedGradients)
    assert stacked.columns[-1] is None
    assert [row[-2] is None for row in rows] == [True, False, True]
    for place, (column, variable) in enumerate(zip(stacked.columns, variables, strict=True)):
        if place == len(variables) - 1:
            assert all(row[place] is None for row in rows)
            continue
        assert isinstance(column, tf.Tensor)
        expected = [np.zeros(variable.shape) if row[place] is None else row[place] for row in rows]
        np.testing.assert_allclose(column, expected, rtol=1e-6, atol=1e-6)
    # The Embedding's second row is not looked up, and the loss of the third task is large.
    assert not stacked.columns[0].numpy()[:, 1].any()
    assert np.abs(stacked.columns[0].numpy()[2]).max() > 1


def test_looped_gradients_of_one_task(compiled):
    variable = keras.Variable([1.0, 2.0])

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            losses = [tf.reduce_sum(variable.value**2)]
        return looped_gradients(tape, losses, [variable])

    np.testing.assert_allclose(compiled(gradients)().columns[0], [[2.0, 4.0]], rtol=1e-6)


@pytest.mark.slow
def test_a_loop_keeps_the_graph_small():
    def operations(tasks, function):
        dense = keras.layers.Dense(tasks)
        dense.build((None, 3))

        @tf.function
        def gradients(x):
            with tf.GradientTape(persistent=True) as tape:
                losses = tf.unstack(tf.reduce_mean(tf.tanh(dense(x)) ** 2, axis=0))
            return function(tape, losses, dense.trainable_variables)

        graph = gradients.get_concrete_function(tf.TensorSpec((5, 3))).graph
        return len(graph.as_graph_def(add_shapes=False).node)

    looped = operations(30, looped_gradients) - operations(10, looped_gradients)
    unrolled = operations(30, task_gradients) - operations(10, task_gradients)
    assert looped < unrolled / 10


def as_stacked(rows):
    """Dense rows as columns, in which `None` of all tasks stays."""
    columns = list(zip(*rows, strict=True))
    return StackedGradients([None if c[0] is None else tf.stack(c) for c in columns])


ROWS = [
    [tf.constant([1.0, 2.0]), tf.constant([[4.0]]), None],
    [tf.constant([10.0, 20.0]), tf.constant([[5.0]]), None],
    [tf.constant([100.0, 200.0]), tf.constant([[6.0]]), None],
]


@pytest.mark.parametrize("form", [list, as_stacked])
def test_weighted_sum_of_either_form(form, compiled):
    # 2 * (1, 2) + 1 * (10, 20) + 0.5 * (100, 200), and 2 * 4 + 5 + 0.5 * 6.
    weights = [2.0, 1.0, keras.Variable(0.5)]
    total = compiled(lambda: weighted_sum(form(ROWS), weights))()
    assert_rows(as_arrays([total]), [[[62.0, 124.0], [[16.0]], None]])


def test_weighted_sum_of_stacked_gradients_keeps_their_type():
    stacked = StackedGradients([tf.constant([[1.0], [2.0]], "float16")])
    (total,) = weighted_sum(stacked, [2.0, keras.Variable(0.5)])
    assert total.dtype == "float16"
    np.testing.assert_array_equal(total, [3.0])


@pytest.mark.slow
def test_weighted_sum_of_looped_gradients_equals_that_of_the_unrolled(network, compiled):
    rows, stacked, _ = both_ways(network, compiled)
    weights = [0.5, -2.0, 1.0]
    pairs = zip(weighted_sum(rows, weights), weighted_sum(stacked, weights), strict=True)
    for unrolled, looped in pairs:
        if unrolled is None:
            assert looped is None
        else:
            np.testing.assert_allclose(looped, unrolled, rtol=1e-5, atol=1e-5)


VARIABLES = [tf.Variable(tf.zeros(2)), tf.Variable(tf.zeros((1, 1))), tf.Variable(tf.zeros(3))]


@pytest.mark.parametrize("form", [list, as_stacked])
@pytest.mark.parametrize("scale", [None, 4.0])
def test_gradients_of_the_whole_batch_are_dense_and_unscaled(form, scale):
    factor = 1.0 if scale is None else scale
    scale = None if scale is None else tf.constant(scale)
    result = of_whole_batch(form(ROWS), VARIABLES, scale)
    assert isinstance(result, StackedGradients) == (form is as_stacked)
    matrices = [matrix.numpy() for matrix in stack_columns(result)]
    assert [matrix.shape for matrix in matrices] == [(3, 2), (3, 1), (3, 3)]
    np.testing.assert_array_equal(matrices[0] * factor, [[1, 2], [10, 20], [100, 200]])
    np.testing.assert_array_equal(matrices[1] * factor, [[4], [5], [6]])
    np.testing.assert_array_equal(matrices[2], np.zeros((3, 3)))


def test_a_gradient_that_one_task_lacks_is_zero():
    rows = [[None, tf.constant([[1.0]])], [tf.constant([1.0, 2.0]), None]]
    result = of_whole_batch(rows, VARIABLES[:2])
    assert_rows(as_arrays(result), [[[0.0, 0.0], [[1.0]]], [[1.0, 2.0], [[0.0]]]])


def test_unscaling_keeps_the_type_of_a_gradient():
    variable = keras.Variable([0.0, 0.0], dtype="float16")
    rows = [[tf.constant([8.0, 4.0], "float16")], [None]]
    (first,), (second,) = of_whole_batch(rows, [variable], tf.constant(4.0))
    assert first.dtype == second.dtype == "float16"
    np.testing.assert_array_equal(first, [2.0, 1.0])


@pytest.mark.parametrize("form", [list, as_stacked])
def test_map_tasks_gives_the_results_in_the_order_of_the_tasks(form, compiled):
    gradients = of_whole_batch(form(ROWS), VARIABLES)

    def function(row):
        first, second, third = row
        assert third.shape == (3,)
        return tf.stack([tf.reduce_sum(first), second[0, 0]])

    result = compiled(lambda: map_tasks(function, gradients))()
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, [[3.0, 4.0], [30.0, 5.0], [300.0, 6.0]], rtol=1e-6)


@pytest.mark.parametrize("form", [list, as_stacked])
def test_select_variables(form):
    selected = select_variables(form(ROWS), [True, False, True])
    if form is as_stacked:
        assert selected.columns[1] is None
        np.testing.assert_array_equal(selected.columns[0], [[1, 2], [10, 20], [100, 200]])
    else:
        assert_rows(as_arrays(selected), [[[1, 2], None], [[10, 20], None], [[100, 200], None]])
    with pytest.raises(ValueError, match="zip"):
        select_variables(form(ROWS), [True, False])


def test_columns_are_matrices_of_either_form():
    rows = np.random.default_rng(0).normal(size=(3, 2, 5)).astype("float32")
    gradients = [[tf.constant(row), tf.constant(row[0, 0])] for row in rows]
    for form in (list, as_stacked):
        matrix, of_scalar = stack_columns(form(gradients))
        np.testing.assert_array_equal(matrix, rows.reshape(3, 10))
        np.testing.assert_array_equal(of_scalar, rows[:, :1, 0])


@pytest.mark.parametrize("form", [list, as_stacked])
def test_gradients_of_all_replicas_are_added_up(form, two_replicas):
    def run():
        share = float(tf.distribute.get_replica_context().replica_id_in_sync_group + 1)
        rows = [[None if one is None else share * one for one in row] for row in ROWS]
        return stack_columns(of_whole_batch(form(rows), VARIABLES, tf.constant(2.0)))

    # Shares of 1 and 2, by the scale of 2.
    columns = two_replicas.run(tf.function(run))
    for matrix, expected in zip(columns, ([1, 2], [4], [0, 0, 0]), strict=True):
        for replica in two_replicas.experimental_local_results(matrix):
            np.testing.assert_allclose(replica.numpy()[0], np.array(expected) * 1.5)
