"""Latent factors: tasks that are sparse mixtures of a few hidden features of the inputs.

Source: made here. 9,000 examples with 16 inputs, drawn from a normal distribution. Six hidden
features are the hyperbolic tangents or the absolute values of random directions of the inputs. Each
of seven tasks mixes one to three of these with random weights, and has noise of 0.1 to 1 standard
deviations. So some tasks share features and others none, and some labels are worth more than
others. The seed draws another problem, not only other examples. The split is at random.
"""

import numpy as np

from benchmarks.truth.problems.problem import Problem, split_at_random

NUM_TASKS, NUM_INPUTS, NUM_FEATURES, SIZE = 7, 16, 6, 9000
NOISE = (0.1, 1.0)


def load(seed: int) -> Problem:
    """Makes the problem of a seed."""
    random = np.random.default_rng([19, seed])
    x = random.normal(size=(SIZE, NUM_INPUTS))
    directions = random.normal(size=(NUM_INPUTS, NUM_FEATURES)) / np.sqrt(NUM_INPUTS)
    projected = 2 * x @ directions
    is_odd = np.arange(NUM_FEATURES) % 2 == 0
    features = np.where(is_odd, np.tanh(projected), np.abs(projected))
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    y = {}
    for task in range(NUM_TASKS):
        mixed = random.choice(NUM_FEATURES, size=random.integers(1, 4), replace=False)
        values = features[:, mixed] @ random.normal(size=len(mixed))
        noise = np.exp(random.uniform(*np.log(NOISE)))
        y[f"t{task}"] = values / values.std() + noise * random.normal(size=SIZE)
    return split_at_random(x, y)
