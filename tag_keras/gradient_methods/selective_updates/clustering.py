"""Groups of tasks from proximal inter-task affinities, by affinity propagation."""

import importlib.util
import warnings

import numpy as np
import numpy.typing as npt

# The authors' settings. After so many iterations without a change it has converged.
_CONVERGENCE_ITERATIONS, _MOST_ITERATIONS, _DAMPING = 50, 200, 0.5


def check_clustering() -> None:
    """Raises an `ImportError` that says how to install scikit-learn, if it is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "Selective task group updates form their groups with scikit-learn. "
            'Install it with: pip install "tag_keras[clustering]".'
        )


def similarities(affinity: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
    """Similarities of tasks: affinities relative to the target's own, mean of both directions.

        (X + X') / 2, where X[s, t] = affinity[s, t] / affinity[t, t]

    The authors' code (`X[:, t] /= X[t, t]` in torch) divides in place, by an entry that becomes 1
    on the way: affinities below the diagonal stay as they are, and groups depend on the order of
    the tasks. This is the quotient that is meant; in half of random maps, the groups differ.

    Args:
        affinity: Array (T, T), [source, target].

    Returns:
        Symmetric array (T, T), or `None` if it is not finite: affinity[t, t] is 0 until an update
        of task t lowers the task's own loss.
    """
    own = np.diag(affinity).astype(np.float64)
    if not (own > 0).all() or not np.isfinite(affinity).all():
        return None
    with np.errstate(over="ignore"):
        relative = affinity / own
    result = (relative + relative.T) / 2
    return result if np.isfinite(result).all() else None


def cluster_tasks(
    affinity: npt.NDArray[np.floating], preference: float | None = None, seed: int = 0
) -> npt.NDArray[np.int64] | None:
    """Affinity propagation (Frey and Dueck 2007, Science 315) on the similarities of tasks.

    Args:
        affinity: Proximal affinities, array (T, T), [source, target].
        preference: Similarity of a task to itself: the higher, the more groups. Defaults to the
            median of all similarities, including the 1 of each task to itself.
        seed: Seed of the tiny noise that breaks ties: either task of a pair can be its centre.

    Returns:
        Array (T,): index of each task's group; the groups are in the order of their first tasks.
        `None` if there are no similarities yet, or if the propagation does not converge.
    """
    matrix = similarities(affinity)
    if matrix is None:
        return None
    if len(matrix) == 1:
        return np.zeros(1, np.int64)
    from sklearn.cluster import affinity_propagation

    with warnings.catch_warnings():
        # It warns if it does not converge, which the iterations tell, and if all similarities are
        # alike.
        warnings.simplefilter("ignore")
        _, labels, iterations = affinity_propagation(
            matrix,
            preference=preference,
            convergence_iter=_CONVERGENCE_ITERATIONS,
            max_iter=_MOST_ITERATIONS,
            damping=_DAMPING,
            random_state=seed,
            return_n_iter=True,
        )
    if iterations >= _MOST_ITERATIONS or (labels < 0).any():
        return None
    # The same groups must have the same numbers.
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], np.int64)
