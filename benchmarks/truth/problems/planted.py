"""Planted clusters: tasks that belong together by construction, and one that nothing explains.

Source: made by benchmarks/planted.py. 9,000 examples with 9 inputs, a rotation of three latent
factors for each of three clusters. The tasks are three of the first cluster, two of the second, and
random labels. The noise is 0.6 standard deviations. The split is at random.
"""

import numpy as np

from benchmarks import planted
from benchmarks.truth.problems.problem import Problem, split_at_random

TASKS = ("a0", "a1", "a2", "b0", "b1", planted.RANDOM)
SIZE = 9000


def load() -> Problem:
    """Makes the problem."""
    x, labels = planted.make_data(seed=0, size=SIZE, noise=0.6)
    y = {task: labels[task].astype(np.float64) for task in TASKS}
    return split_at_random(x.astype(np.float64), y)
