"""Groups by affinity propagation, on METHODS' values and by what any clustering has to hold."""

import importlib.util

import numpy as np
import pytest

from tag_keras.gradient_methods.selective_updates import clustering as task_clustering
from tag_keras.gradient_methods.selective_updates.clustering import (
    check_clustering,
    cluster_tasks,
    similarities,
)

PAIRS = np.array(
    [[1, 0.8, -0.2, -0.1], [0.8, 1, -0.1, -0.3], [-0.2, -0.1, 1, 0.7], [-0.1, -0.3, 0.7, 1]]
)


def test_similarities_are_relative_to_the_targets_own_and_symmetric():
    affinity = np.array([[0.2, 0.1], [0.4, 0.5]])
    # X = [[1, .2], [2, 1]].
    np.testing.assert_allclose(similarities(affinity), [[1.0, 1.1], [1.1, 1.0]])


def test_the_unit_of_a_target_does_not_count():
    rng = np.random.default_rng(0)
    affinity = rng.normal(size=(4, 4)) + 3 * np.eye(4) + 3
    scaled = affinity * [1.0, 10.0, 0.01, 5.0]
    np.testing.assert_allclose(similarities(scaled), similarities(affinity), rtol=1e-12)


def test_two_pairs():
    assert cluster_tasks(PAIRS).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("preference", "expected"), [(-5.0, [0, 0, 0]), (0.9, [0, 1, 2])])
def test_a_higher_preference_gives_more_groups(preference, expected):
    affinity = np.array([[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]])
    assert cluster_tasks(affinity, preference).tolist() == expected


def test_the_median_as_preference_groups_also_tasks_that_harm_each_other():
    affinity = np.array([[1, -0.1, -0.2], [-0.1, 1, -0.3], [-0.2, -0.3, 1]])
    assert cluster_tasks(affinity).tolist() == [0, 0, 1]


@pytest.mark.parametrize("seed", range(10))
def test_every_task_is_in_one_group(seed):
    rng = np.random.default_rng(seed)
    num_tasks = int(rng.integers(2, 9))
    affinity = rng.normal(size=(num_tasks, num_tasks))
    np.fill_diagonal(affinity, rng.uniform(0.1, 1, num_tasks))
    labels = cluster_tasks(affinity, seed=seed)
    assert labels is None or (labels.shape == (num_tasks,) and labels[0] == 0)
    if labels is not None:
        # The numbers are those of the groups in the order of their first tasks.
        first = [labels.tolist().index(label) for label in np.unique(labels)]
        assert np.unique(labels).tolist() == list(range(labels.max() + 1))
        assert first == sorted(first)
        again = cluster_tasks(affinity, seed=seed)
        np.testing.assert_array_equal(again, labels)


def together(labels):
    return labels[:, None] == labels[None, :]


def test_permuting_the_tasks_permutes_the_groups():
    rng = np.random.default_rng(0)
    # Three groups that no noise could hide.
    kinds = np.array([0, 1, 2, 0, 1, 2, 0])
    affinity = np.where(together(kinds), 0.8, -0.5) + rng.uniform(-0.1, 0.1, (7, 7))
    np.fill_diagonal(affinity, 1.0)
    np.testing.assert_array_equal(together(cluster_tasks(affinity)), together(kinds))
    order = rng.permutation(7)
    permuted = cluster_tasks(affinity[np.ix_(order, order)])
    np.testing.assert_array_equal(together(permuted), together(kinds[order]))


def test_the_same_seed_gives_the_same_groups_where_centres_tie():
    for seed in range(5):
        affinity = np.eye(6) + np.random.default_rng(seed).uniform(-0.5, 0.5, (6, 6))
        one, other = (cluster_tasks(affinity, seed=3) for _ in range(2))
        assert (one is None) == (other is None)
        assert one is None or one.tolist() == other.tolist()


@pytest.mark.parametrize(("between", "expected"), [(0.5, [0, 1]), (1.5, [0, 0])])
def test_two_tasks_are_together_only_if_they_help_each_other_more_than_themselves(
    between, expected
):
    # All similarities are equal, and the preference, (1 + x) / 2, is above x where x < 1.
    assert cluster_tasks(np.array([[1, between], [between, 1]])).tolist() == expected


def test_one_task():
    assert cluster_tasks(np.array([[0.1]])).tolist() == [0]


@pytest.mark.parametrize("own", [0.0, np.nan])
def test_no_groups_before_a_task_has_gained_by_its_own_updates(own):
    affinity = PAIRS.copy()
    affinity[2, 2] = own
    assert similarities(affinity) is None and cluster_tasks(affinity) is None


def test_no_groups_where_a_similarity_is_not_finite():
    affinity = np.array([[1e-300, 0.1], [1e300, 1.0]])
    assert cluster_tasks(affinity) is None


def test_no_groups_where_the_propagation_does_not_converge(monkeypatch):
    monkeypatch.setattr(task_clustering, "_MOST_ITERATIONS", 5)
    assert cluster_tasks(PAIRS) is None


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r'with scikit-learn\. Install it with: pip install "tag_keras\[clustering\]"'
    with pytest.raises(ImportError, match=message):
        check_clustering()
