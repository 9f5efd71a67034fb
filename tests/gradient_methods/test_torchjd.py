"""PCGrad and UPGrad against TorchJD (Quinton and Rey), where it is installed."""

import numpy as np
import pytest
import tensorflow as tf

from tag_keras.gradient_methods.pcgrad import pcgrad_coefficients
from tag_keras.gradient_methods.upgrad import upgrad_coefficients

torch = pytest.importorskip("torch")
aggregation = pytest.importorskip("torchjd.aggregation")


def gradients_of(tasks, size, number=20):
    return np.random.default_rng(tasks).normal(size=(number, tasks, size)).astype("float32")


def relative(found, expected):
    """Largest difference of coefficients, relative to the largest coefficient."""
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("tasks", "size"), [(2, 5), (3, 2), (6, 4), (12, 100)])
def test_pcgrad(tasks, size, monkeypatch):
    rng = np.random.default_rng(1)
    for gradients in gradients_of(tasks, size):
        orders = np.array([rng.permutation(tasks) for _ in range(tasks)])
        draws = iter(orders)
        monkeypatch.setattr(torch, "randperm", lambda _, draws=draws: torch.tensor(next(draws)))
        gram = gradients @ gradients.T
        expected = aggregation.PCGrad().gramian_weighting(torch.tensor(gram)).numpy()
        found = pcgrad_coefficients(tf.constant(gram), tf.constant(orders)).numpy()
        assert relative(found, expected) < 1e-6


@pytest.mark.parametrize(("tasks", "size"), [(2, 5), (3, 2), (6, 4), (12, 100), (30, 10)])
def test_upgrad(tasks, size):
    for gradients in gradients_of(tasks, size):
        gram = (gradients @ gradients.T).astype("float32")
        # Of the mean, not of the sum.
        weights = aggregation.UPGrad().gramian_weighting(torch.tensor(gram, dtype=torch.float64))
        found = upgrad_coefficients(tf.constant(gram)).numpy()
        assert relative(found, tasks * weights.numpy()) < 1e-6
