"""Groups of tasks by affinity propagation on proximal inter-task affinities."""

import importlib.util
import warnings

import numpy as np
import numpy.typing as npt

# As the authors have it. More than so many iterations without a change count as convergence.
_CONVERGENCE_ITERATIONS, _MOST_ITERATIONS, _DAMPING = 50, 200, 0.5


def check_clustering() -> None:
    """Checks that scikit-learn is there.

    Raises:
        ImportError: If it is not.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "Selective task group updates form their groups with scikit-learn. "
            'Install it with: pip install "tag_keras[clustering]".'
        )


def similarities(affinity: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
    """Symmetric similarities of tasks: affinities relative to each target's own, both directions.

        (X + X') / 2, where X[s, t] = affinity[s, t] / affinity[t, t]

    Args:
        affinity: Array (T, T), [source, target].

    Returns:
        Array (T, T); `None` where a diagonal entry is 0, as long as no update of the task lowered
        its own loss.
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
    """Affinity propagation (Frey and Dueck 2007, Science 315) on `similarities(affinity)`.

    Args:
        affinity: Proximal affinities, array (T, T), [source, target].
        preference: Similarity of a task to itself: the higher, the more groups. Defaults to the
            median of all similarities, the ones on the diagonal included.
        seed: Of the tiny noise that decides between groups that are equally good, as each of two
            tasks is as the centre of a pair.

    Returns:
        Index of its group by task, array (T,), in the order of the first task of each group.
        `None` if there are no similarities yet, or if the propagation does not converge.
    """
    matrix = similarities(affinity)
    if matrix is None:
        return None
    if len(matrix) == 1:
        return np.zeros(1, np.int64)
    from sklearn.cluster import affinity_propagation

    with warnings.catch_warnings():
        # That it does not converge, which the number of iterations tells; and that all are alike,
        # where it compares them with the preference.
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
    # Numbered anew, so that the same groups have the same numbers.
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], np.int64)
