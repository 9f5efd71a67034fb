"""PCGrad's coefficients, against projections of vectors and the values of the specification."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import projected

from tag_keras.gradient_methods.pcgrad import pcgrad_coefficients


def rows(gradients, orders, with_itself=False):
    """What the coefficients make of the gradients."""
    gradients = np.asarray(gradients, "float32")
    coefficients = pcgrad_coefficients(
        tf.constant(gradients @ gradients.T), tf.constant(orders), with_itself
    )
    return coefficients.numpy() @ gradients


def test_two_gradients_by_hand():
    # g1 = (1, 0), g2 = (-1, 1): products -1, so v1 = (1, 0) + (-1, 1) / 2 = (.5, .5) and
    # v2 = (-1, 1) + (1, 0) = (0, 1), with the sum (.5, 1.5).
    np.testing.assert_allclose(rows([[1, 0], [-1, 1]], [[0, 1], [0, 1]]), [0.5, 1.5], rtol=1e-6)


def test_the_order_matters():
    # g1 = (1, 0) with g2 = (-1, 1) and g3 = (-2, -1): v1 = (-.1, .2) for the order 2, 3 and
    # (-.1, -.1) for 3, 2. The other two stay as they are if they meet nobody that they conflict
    # with, which a zero gradient as the first task's stand-in would not show; so the differences.
    gradients = [[1, 0], [-1, 1], [-2, -1]]
    orders = [[0, 1, 2]] * 3
    other = [[0, 2, 1], *orders[1:]]
    difference = rows(gradients, orders) - rows(gradients, other)
    np.testing.assert_allclose(difference, [0.0, 0.3], atol=1e-6)


def test_the_authors_project_a_gradient_on_its_own_normal_plane():
    # In the order (-1, 1), (-2, -1), (1, 0), the third one's v is (0, .2) with itself, and
    # (-.1, .2) without.
    gradients, orders = [[-1, 1], [-2, -1], [1, 0]], [[0, 1, 2]] * 3
    vectors = np.array(gradients)
    for with_itself, third in ((True, [0.0, 0.2]), (False, [-0.1, 0.2])):
        np.testing.assert_allclose(projected(vectors, 2, range(3), with_itself), third, atol=1e-12)
        expected = sum(projected(vectors, i, range(3), with_itself) for i in range(3))
        np.testing.assert_allclose(rows(gradients, orders, with_itself), expected, atol=1e-6)


@pytest.mark.parametrize("with_itself", [False, True])
@pytest.mark.parametrize(("tasks", "size"), [(2, 3), (3, 2), (5, 4), (8, 20)])
def test_random_gradients_and_orders_against_vectors(tasks, size, with_itself):
    rng = np.random.default_rng(tasks)
    function = tf.function(pcgrad_coefficients, jit_compile=tasks == 3)
    for _ in range(20):
        gradients = rng.normal(size=(tasks, size)).astype("float32")
        orders = np.array([rng.permutation(tasks) for _ in range(tasks)])
        found = function(tf.constant(gradients @ gradients.T), tf.constant(orders), with_itself)
        vectors = [projected(gradients, i, orders[i], with_itself) for i in range(tasks)]
        np.testing.assert_allclose(found.numpy() @ gradients, sum(vectors), atol=2e-5)


def test_gradients_without_conflict_are_added_up():
    gradients = np.abs(np.random.default_rng(0).normal(size=(4, 6)).astype("float32"))
    for orders in itertools.islice(itertools.permutations(range(4)), 6):
        found = pcgrad_coefficients(tf.constant(gradients @ gradients.T), tf.constant([orders] * 4))
        np.testing.assert_array_equal(found, np.ones(4))


@pytest.mark.parametrize("with_itself", [False, True])
def test_gradients_of_zero_change_nothing(with_itself):
    gram = tf.constant([[0.0, 0.0, 0.0], [0.0, 1.0, -1.0], [0.0, -1.0, 2.0]])
    found = pcgrad_coefficients(gram, tf.constant([[0, 1, 2]] * 3), with_itself)
    # As of two gradients: 1 + 1 for g2 and 1 + 1 / 2 for g3.
    np.testing.assert_allclose(found, [1.0, 2.0, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(
        pcgrad_coefficients(tf.zeros((2, 2)), tf.constant([[0, 1]] * 2), with_itself), [1.0, 1.0]
    )


def test_the_scale_of_all_gradients_does_not_matter():
    gradients = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    gram, order = gradients @ gradients.T, tf.constant([[2, 0, 3, 1]] * 4)
    one, other = (pcgrad_coefficients(tf.constant(c * gram), order) for c in (1.0, 1e-6))
    np.testing.assert_allclose(one, other, rtol=1e-5)
