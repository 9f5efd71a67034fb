"""A multi-task problem whose answer is known: clusters of tasks over disjoint latent factors."""

import numpy as np
import numpy.typing as npt

CLUSTERS = (("a0", "a1", "a2"), ("b0", "b1", "b2"), ("c0", "c1", "c2"))
RANDOM = "random"
TASKS = (*(task for cluster in CLUSTERS for task in cluster), RANDOM)


def make_data(
    seed: int, size: int = 1024, factors: int = 3, noise: float = 0.1
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[np.float32]]]:
    """Inputs (N, 3 * factors) and labels (N,) by task.

    Each cluster has latent factors of its own, which are a third of the inputs after a random
    rotation. Its three tasks are different mixtures of one nonlinear function per factor. The
    task "random" has labels that nothing explains.
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
    """Boolean (T, T): whether two different tasks are of the same cluster."""
    cluster_of = {task: index for index, cluster in enumerate(CLUSTERS) for task in cluster}
    owners = [cluster_of.get(task, -1) for task in TASKS]
    same = np.equal.outer(owners, owners) & (np.array(owners) >= 0)
    return same & ~np.eye(len(TASKS), dtype=bool)


def area_under_the_curve(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Share of pairs (positive, negative) that the scores order rightly; ties count half."""
    up, down = scores[positive][:, None], scores[~positive][None]
    return float(np.mean((up > down) + 0.5 * (up == down)))
