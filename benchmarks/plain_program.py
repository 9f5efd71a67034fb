"""The plain integer program of network selection: what a user of SciPy would write."""

import numpy as np
import scipy.optimize
import scipy.sparse

import tag_keras


def plain_program(table: tag_keras.NetworkTable, budget: float) -> float:
    """The largest mean score within the budget, by one call of `scipy.optimize.milp`.

    The p-median problem: a variable for each network, and one for each of its tasks.
    """
    network, task = np.nonzero(~np.isnan(table.scores))
    pairs, ones = np.arange(len(network)), np.ones(len(network))
    num_networks, num_tasks = table.scores.shape
    nothing = scipy.sparse.csr_array((num_tasks, num_networks))
    served = scipy.sparse.csr_array((ones, (task, pairs)), (num_tasks, len(pairs)))
    chosen = scipy.sparse.csr_array((-ones, (pairs, network)), (len(pairs), num_networks))
    constraint = scipy.optimize.LinearConstraint
    result = scipy.optimize.milp(
        np.append(np.zeros(num_networks), -table.scores[network, task]),
        integrality=np.arange(num_networks + len(pairs)) < num_networks,
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            constraint(scipy.sparse.hstack([nothing, served]), 1, 1),
            constraint(scipy.sparse.hstack([chosen, scipy.sparse.eye(len(pairs))]), -np.inf, 0),
            constraint(np.append(table.costs, np.zeros(len(pairs)))[None], -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    return -float(result.fun) / num_tasks
