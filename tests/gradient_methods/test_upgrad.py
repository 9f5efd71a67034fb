"""UPGrad's coefficients, against scipy's least squares and the conditions of optimality."""

import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import by_scipy

from tag_keras.gradient_methods.upgrad import upgrad_coefficients


def random_gram(rng, tasks, size):
    gradients = rng.normal(size=(tasks, size)).astype("float32")
    # Of lengths that differ by a factor of about a hundred.
    gradients *= np.exp(rng.uniform(-2.3, 2.3, size=(tasks, 1))).astype("float32")
    return gradients @ gradients.T


@pytest.mark.parametrize(
    ("tasks", "size", "jit_compile"),
    [(2, 1, False), (3, 2, True), (5, 3, False), (12, 30, False), (12, 4, False), (40, 20, False)],
)
def test_random_gradients_against_scipy(tasks, size, jit_compile):
    rng = np.random.default_rng(tasks)
    ridge = 10.0 ** -rng.integers(1, 6)
    function = tf.function(upgrad_coefficients, jit_compile=jit_compile)
    for _ in range(10):
        gram = random_gram(rng, tasks, size)
        found = function(tf.constant(gram), ridge)
        np.testing.assert_allclose(found, by_scipy(gram, ridge), rtol=2e-5)


def test_two_gradients_by_hand():
    # g1 = (1, 0), g2 = (-1, 1), no ridge: for two gradients the dual cone is that of the normal
    # planes, so this is PCGrad: (.5, .5) + (0, 1). The coefficients are 1 + 1 and 1 + .5. The ridge
    # moves them: lambda_2 = 1 / 2 becomes (1 / 3) / (2 / 3 + ridge), 3 being the trace.
    found = upgrad_coefficients(tf.constant([[1.0, -1.0], [-1.0, 2.0]]), ridge=1e-6)
    np.testing.assert_allclose(found, [2.0, 1.5], atol=1e-5)
    found = upgrad_coefficients(tf.constant([[1.0, -1.0], [-1.0, 2.0]]), ridge=0.1)
    expected = [1 + (1 / 3) / (1 / 3 + 0.1), 1 + (1 / 3) / (2 / 3 + 0.1)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_sum_conflicts_with_no_gradient_where_that_of_pcgrad_may():
    rng = np.random.default_rng(0)
    for _ in range(30):
        gradients = rng.normal(size=(4, 3)).astype("float32")
        gram = gradients @ gradients.T
        products = gram @ upgrad_coefficients(tf.constant(gram), 1e-6).numpy()
        assert products.min() > -1e-4 * np.trace(gram)


def test_gradients_without_conflict_are_added_up():
    gradients = np.abs(np.random.default_rng(0).normal(size=(4, 6)).astype("float32"))
    found = upgrad_coefficients(tf.constant(gradients @ gradients.T))
    np.testing.assert_array_equal(found, np.ones(4))


def test_an_order_of_the_tasks_changes_nothing():
    gram = random_gram(np.random.default_rng(3), 6, 4)
    order = np.random.default_rng(4).permutation(6)
    found = upgrad_coefficients(tf.constant(gram)).numpy()
    permuted = upgrad_coefficients(tf.constant(gram[np.ix_(order, order)])).numpy()
    np.testing.assert_allclose(permuted, found[order], rtol=1e-6)


@pytest.mark.parametrize(
    ("gram", "expected"),
    [
        (np.zeros((3, 3)), [1.0, 1.0, 1.0]),
        # A zero gradient takes no part: as by hand.
        ([[0.0, 0.0, 0.0], [0.0, 1.0, -1.0], [0.0, -1.0, 2.0]], [1.0, 2.0, 1.5]),
        ([[1.0]], [1.0]),
        # Gradients that overflowed: the step is skipped, and must not fail.
        ([[np.inf, np.nan], [np.nan, 1.0]], [1.0, 1.0]),
    ],
)
def test_gradients_that_are_no_proper_ones(gram, expected):
    found = upgrad_coefficients(tf.constant(gram, "float32"), ridge=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_opposite_and_equal_gradients():
    # g and -g: the only vector that conflicts with neither is 0.
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]], "float32")
    coefficients = upgrad_coefficients(tf.constant(gram)).numpy()
    np.testing.assert_allclose(coefficients @ gram @ coefficients, 0.0, atol=1e-6)
    # The same gradient for 12 tasks: dependent, and in no conflict.
    np.testing.assert_array_equal(upgrad_coefficients(tf.ones((12, 12))), np.ones(12))
