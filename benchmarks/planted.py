"""A multi-task problem with a known answer: clusters of tasks over disjoint latent factors."""

import numpy as np
import numpy.typing as npt

CLUSTERS = (("a0", "a1", "a2"), ("b0", "b1", "b2"), ("c0", "c1", "c2"))
RANDOM = "random"
TASKS = (*(task for cluster in CLUSTERS for task in cluster), RANDOM)


def make_data(
    seed: int, size: int = 1024, factors: int = 3, noise: float = 0.1
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
    """Draws inputs (N, 3 * factors) and labels (N,) by task.

    The inputs are a random rotation of latent factors, a third of them for each cluster. The three
    tasks of a cluster are different mixtures of a nonlinear function of its factors. Nothing
    explains the labels of the task "random".
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(size, len(CLUSTERS) * factors))
    rotation, _ = np.linalg.qr(rng.normal(size=(latent.shape[1], latent.shape[1])))
    labels = {}
    for index, cluster in enumerate(CLUSTERS):
        own = np.tanh(2 * latent[:, index * factors : (index + 1) * factors])
        for task in cluster:
            values = own @ rng.uniform(0.5, 1.5, size=factors)
            labels[task] = values / values.std() + noise * rng.normal(size=size)
    labels[RANDOM] = rng.normal(size=size)
    labels = {task: values.astype("float32") for task, values in labels.items()}
    return (latent @ rotation).astype("float32"), labels


def same_cluster() -> npt.NDArray[np.bool_]:
    """Boolean array (T, T): whether two tasks are different and of the same cluster."""
    cluster_of = {task: index for index, cluster in enumerate(CLUSTERS) for task in cluster}
    owners = [cluster_of.get(task, -1) for task in TASKS]
    same = np.equal.outer(owners, owners) & (np.array(owners) >= 0)
    return same & ~np.eye(len(TASKS), dtype=bool)


def area_under_the_curve(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Share of the pairs of a positive and a negative that the scores order; ties count half."""
    up, down = scores[positive][:, None], scores[~positive][None]
    return float(np.mean((up > down) + 0.5 * (up == down)))
