"""Methods that combine gradients by their products: against TorchJD and optimality conditions."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.gradvac import gradvac_coefficients

VALUES = json.loads(pathlib.Path(__file__).with_name("torchjd_values.json").read_text())
METHODS = {
    "CAGrad(c=0.4)": lambda: tag_keras.CAGrad(c=0.4),
    "MGDA": tag_keras.MGDA,
    "IMTLG": tag_keras.IMTLG,
    "AlignedMTL": tag_keras.AlignedMTL,
    "DualProj": tag_keras.DualProj,
    "ConFIG": tag_keras.ConFIG,
    "NashMTL": tag_keras.NashMTL,
    "FairGrad(alpha=2.0)": lambda: tag_keras.FairGrad(alpha=2.0),
    "FairGrad(alpha=0.5)": lambda: tag_keras.FairGrad(alpha=0.5),
}
# Of these TorchJD gives the mean, or weights with the sum 1, which are T times smaller.
MEANS = ("CAGrad(c=0.4)", "MGDA", "IMTLG", "AlignedMTL", "DualProj")
# How the length of the result grows with the length of the gradients: by default as these do.
POWERS = {"NashMTL": 0.0, "FairGrad(alpha=2.0)": -1 / 3, "FairGrad(alpha=0.5)": 1 / 3}
SIZE = 120


class Record(GradientMethod):
    """Takes the plain sum, and keeps the coefficients of all methods: one graph tests all."""

    needs_scale = True

    def start(self, tasks):
        self.methods = {name: make() for name, make in METHODS.items()}
        self.found = self.add_zeros("found", (len(METHODS), len(tasks)), "float32")

    def coefficients(self, gram, scale):
        found = [
            method.coefficients(gram, **({"scale": scale} if method.needs_scale else {}))
            for method in self.methods.values()
        ]
        self.found.assign(tf.stack(found))
        return tf.ones_like(found[0])


class Products(keras.layers.Layer):
    """Products of T inputs each (B, T, P) with one vector: their gradients are the inputs."""

    def build(self, shape):
        self.vector = self.add_weight(shape=shape[-1:], initializer="zeros")

    def call(self, inputs):
        return tf.linalg.matvec(inputs, self.vector)


class Pick(keras.layers.Layer):
    def __init__(self, index):
        super().__init__()
        self.index = index

    def call(self, inputs):
        return inputs[:, self.index]


def identity(y_true, y_pred):
    return y_pred


class Tasks:
    """A compiled model of T tasks, whose gradients are given."""

    def __init__(self, number, **kwargs):
        self.number = number
        encoder = keras.Sequential([keras.Input((number, SIZE)), Products()])
        heads = {f"task_{index}": Pick(index) for index in range(number)}
        self.model = tag_keras.MultiTaskModel(encoder, heads)
        self.model.compile("sgd", identity, gradient_method=Record(), **kwargs)

    def coefficients(self, gradients):
        """Coefficients (T,) by method. Tasks beyond the gradients have none."""
        tasks, size = gradients.shape
        rows = np.zeros((1, self.number, SIZE), "float32")
        rows[0, :tasks, :size] = gradients
        self.model.train_on_batch(rows, {task: np.zeros(1) for task in self.model.tasks})
        return dict(zip(METHODS, self.model.gradient_method.found.numpy()[:, :tasks], strict=True))


@pytest.fixture(scope="module")
def six():
    return Tasks(6, jit_compile=False)


@pytest.fixture(scope="module")
def forty():
    return Tasks(40, jit_compile=False)


def difference(coefficients, gradients, expected):
    """Largest difference of the sum from what is expected, relative to its largest entry."""
    terms = coefficients.astype("float64")[:, None] * gradients
    # Opposite gradients have a sum of 0.
    size = np.abs(expected).max() or np.abs(terms).max() or 1.0
    return np.abs(terms.sum(axis=0) - expected).max() / size


def check_torchjd(tasks, names):
    """Asserts that results are TorchJD's, at three scales; returns the differences by method."""
    largest = {}
    for name in names:
        case = VALUES["cases"][name]
        gradients = np.array(case["gradients"])
        for scale in (1e-10, 1.0, 1e10):
            found = tasks.coefficients(gradients * scale)
            for method, expected in case["results"].items():
                expected = np.array(expected) * scale ** POWERS.get(method, 1.0)
                expected *= len(gradients) if method in MEANS else 1
                error = difference(found[method], gradients * scale, expected)
                assert error < 1e-5, (name, method, scale)
                largest[method] = max(largest.get(method, 0.0), error)
    return largest


def test_torchjd(six):
    names = [name for name in VALUES["cases"] if name not in ("random 12", "random 40")]
    assert len(check_torchjd(six, names)) == len(METHODS) - 1


@pytest.mark.slow
def test_torchjd_with_forty_tasks(forty):
    check_torchjd(forty, ["random 40", "random 12", "random 2"])


def exactly(gradients):
    gradients = np.float64(gradients)
    return gradients @ gradients.T


def conditions(name, gram, found):
    """Asserts the conditions of optimality of a method's coefficients (T,), on products (T, T)."""
    products, size = gram @ found, np.sqrt(np.diag(gram))
    if name == "MGDA":
        weights = found / len(gram)
        assert weights.sum() == pytest.approx(1, rel=1e-6) and weights.min() >= 0
        # No gradient has a smaller product with the shortest vector than this with itself.
        square = weights @ gram @ weights
        assert (gram @ weights).min() > square * (1 - 1e-5)
    if name == "CAGrad(c=0.4)":
        added, total = found - 1, gram.sum()
        assert np.sqrt(added @ gram @ added) == pytest.approx(0.4 * np.sqrt(total), rel=1e-5)
        assert added.min() >= -1e-6
        # The worst tasks are those whose gradients are added.
        is_added = added * size > 1e-4 * (added * size).max()
        worst = products[is_added]
        np.testing.assert_allclose(worst, worst.min(), atol=1e-5 * np.abs(products).max())
        assert products.min() > worst.min() - 1e-5 * np.abs(products).max()
    if name == "NashMTL":
        np.testing.assert_allclose(products * found, 1, rtol=1e-5)
    if name.startswith("FairGrad"):
        alpha = float(name[len("FairGrad(alpha=") : -1])
        np.testing.assert_allclose(products * found ** (1 / alpha), 1, rtol=1e-5)
    if name == "IMTLG":
        np.testing.assert_allclose(products / size, (products / size).mean(), rtol=1e-4)
    if name == "ConFIG":
        np.testing.assert_allclose(products / size, (products / size).mean(), rtol=1e-5)
        # As long as the projections of all gradients on it.
        length = np.sqrt(found @ products)
        assert products.sum() / length == pytest.approx(length, rel=1e-5)


def check_conditions(tasks, seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        number = int(rng.integers(2, tasks.number + 1))
        gradients = rng.normal(size=(number, SIZE)) + rng.normal(size=SIZE) * rng.uniform(0, 1)
        # Of lengths that differ by a factor of about a hundred; and of all sizes.
        gradients *= np.exp(rng.uniform(-2.3, 2.3, size=(number, 1)))
        gradients = np.float32(gradients * 10.0 ** rng.uniform(-8, 8))
        for name, found in tasks.coefficients(gradients).items():
            conditions(name, exactly(gradients), found.astype("float64"))


def test_conditions_of_optimality(six):
    check_conditions(six, range(20))


@pytest.mark.slow
def test_conditions_of_optimality_with_forty_tasks(forty):
    check_conditions(forty, range(10))


def test_gradvac_as_torchjd():
    given = VALUES["GradVac"]
    targets = tf.zeros((4, 4), "float64")
    for step in given["steps"]:
        gradients = np.array(step["gradients"], "float64")
        # The last place is for the task itself.
        orders = [[*order, i] for i, order in enumerate(step["orders"])]
        gram = tf.constant(exactly(gradients))
        found, targets = gradvac_coefficients(gram, tf.constant(orders), targets, given["beta"])
        expected = np.array(step["result"])
        np.testing.assert_allclose(found.numpy() @ gradients, expected, rtol=1e-6)
    assert np.abs(targets).max() > 0.1
