"""Digits: six questions about each of scikit-learn's images of handwritten digits.

Source: bundled with scikit-learn (BSD-3-Clause): the digits of Alpaydin and Kaynak (1998), with the
tasks of digits/data.py.

1,797 images of 8 x 8. The inputs are their pixels in a row, so that a perceptron takes them. The
tasks are whether the digit is even, at least five, or has a loop, whether most of the ink lies on
the left, the amount of ink, and the slant. The split is at random.
"""

import numpy as np

from benchmarks.options import load_lazily
from benchmarks.truth.problems.problem import Problem, split_at_random

# With TensorFlow, which the names of problems do without.
data = load_lazily("digits.data")

TASKS = ("is_even", "at_least_five", "has_loop", "left_heavy", "ink", "slant")


def load() -> Problem:
    """Loads the problem."""
    # It takes a second to load, which the names of problems do without.
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    labels = data.make_labels(bunch.images / 16, bunch.target)
    y = {task: labels[task].astype(np.float64) for task in TASKS}
    classes = [task for task in TASKS if task in data.CLASSIFICATION]
    return split_at_random(bunch.data.astype(float), y, classes)
