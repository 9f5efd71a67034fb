"""Gradient methods, by the definitions, that their tests compare with."""

import numpy as np
import scipy.optimize


def projected(gradients, i, order, with_itself=False):
    """Algorithm 1 of Yu et al. (arXiv 2001.06782), line by line on one vector."""
    v = gradients[i].astype("float64")
    for j in order:
        if (with_itself or j != i) and v @ gradients[j] < 0:
            v = v - (v @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
    return v


def regular(gram, ridge):
    return gram / np.trace(gram) + ridge * np.eye(len(gram))


def by_scipy(gram, ridge):
    """Minimise v' G v over v >= e_i, by non-negative least squares on a square root of G."""
    root = np.linalg.cholesky(regular(np.float64(gram), ridge)).T
    tasks = len(gram)
    return sum(
        np.eye(tasks)[i] + scipy.optimize.nnls(root, -root[:, i], maxiter=1000)[0]
        for i in range(tasks)
    )


def attribute(before, after, group, present=None):
    """The same as `group_affinity`, pair by pair, from the definition. NaN for no value."""
    num_tasks = len(before)
    present = np.ones(num_tasks, bool) if present is None else present
    group = [task for task in range(num_tasks) if group[task] and present[task]]
    values = np.full((num_tasks, num_tasks), np.nan)

    def gain(task):
        return (1 - after[task] / before[task]) / len(group)

    for source in group:
        for target in range(num_tasks):
            if not present[target] or not before[target] > 0 or not np.isfinite(after[target]):
                continue
            if target not in group:
                values[source, target] = gain(target)
            elif source == target:
                if gain(target) >= 0:
                    values[source, target] = gain(target)
            elif before[source] > 0 and np.isfinite(after[source]):
                if gain(source) * gain(target) >= 0:
                    values[source, target] = gain(target)
                else:
                    values[source, target] = -max(gain(source), gain(target))
    return values
