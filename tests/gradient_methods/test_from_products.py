"""Methods that combine gradients by their products: against TorchJD and optimality conditions."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from given_gradients import Pick, Products

import tag_keras
from tag_keras.gradient_methods.base import GradientMethod
from tag_keras.gradient_methods.fairgrad import fair_coefficients
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


def coefficients(name, gradients, jit_compile=None):
    gradients = np.float32(gradients)
    method = {**METHODS, "GradVac": lambda: tag_keras.GradVac(seed=0)}[name]()
    method.start([f"task_{index}" for index in range(len(gradients))])
    function = method.coefficients
    if jit_compile is not None:
        function = tf.function(function, jit_compile=jit_compile, autograph=False)
    return function(tf.matmul(gradients, gradients, transpose_b=True)).numpy()


NAMES = [*METHODS, "GradVac"]


@pytest.mark.parametrize("name", NAMES)
def test_special_gradients(name):
    one = np.array([[3.0, 4.0]])
    assert np.isfinite(coefficients(name, np.zeros((3, 2)))).all()
    assert coefficients(name, one)[0] > 0
    # Equal gradients: all count the same. Opposite ones: the sum is 0.
    equal = coefficients(name, np.repeat(one, 12, axis=0))
    np.testing.assert_allclose(equal, equal[0], rtol=1e-5)
    if name not in POWERS and name != "CAGrad(c=0.4)":
        assert equal[0] == pytest.approx(1, rel=1e-5)
    opposite = coefficients(name, np.concatenate([one, -one]))
    assert np.isfinite(opposite).all()
    np.testing.assert_allclose(opposite[0], opposite[1], rtol=1e-5)
    # Overflowed gradients: the optimizer leaves the step out.
    overflowed = coefficients(name, [[np.nan, 1.0], [np.inf, 0.0], [1.0, 2.0]])
    assert np.isfinite(overflowed).all()


@pytest.mark.parametrize(("alpha", "length"), [(5.0, 1e-6), (10.0, 1e-5), (10.0, 1e-6)])
def test_fairgrad_where_gradients_differ_much_in_size(alpha, length):
    gradients = np.array([[1.0, 0.0], [length, length]])
    gram = tf.constant(gradients @ gradients.T, "float32")
    weights = fair_coefficients(gram, alpha).numpy()
    assert np.isfinite(weights).all()
    products = gradients @ (weights @ gradients)
    # The other weight is too small for float32 in two of the cases.
    assert products[1] == pytest.approx(weights[1] ** (-1 / alpha), rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_task_without_a_gradient_takes_no_part(name):
    gradients = np.array([[1.0, 2.0, 0.0], [-1.0, 1.0, 0.5], [0.5, -1.0, 3.0]])
    expected = coefficients(name, gradients)
    found = coefficients(name, np.insert(gradients, 1, 0.0, axis=0))
    np.testing.assert_allclose(np.delete(found, 1), expected, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_an_order_of_the_tasks_changes_nothing(name):
    rng = np.random.default_rng(3)
    gradients, order = rng.normal(size=(4, 6)), rng.permutation(4)
    found = coefficients(name, gradients[order])
    np.testing.assert_allclose(found, coefficients(name, gradients)[order], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_xla(name):
    gradients = np.random.default_rng(4).normal(size=(3, 2))
    found = coefficients(name, gradients, jit_compile=True)
    np.testing.assert_allclose(found, coefficients(name, gradients), rtol=1e-4)


def test_aligned_mtl_takes_parallel_gradients_for_one():
    # Rounding leaves an eigenvalue that is not 0. With one eigenvalue, along v = (1, 0.3) / |.|,
    # the coefficients are v times the sum of v: (1, 0.3) * 1.3 / 1.09.
    rng = np.random.default_rng(0)
    for _ in range(10):
        gradient = np.float32(rng.normal(size=50))
        found = coefficients("AlignedMTL", np.stack([gradient, np.float32(0.3) * gradient]))
        np.testing.assert_allclose(found, np.array([1, 0.3]) * 1.3 / 1.09, rtol=1e-4)


def test_gradvac_remembers_what_is_usual():
    # Two gradients with the cosine 0.8, then two that are orthogonal: these are turned to the mean
    # of the cosines, which with beta 1 is 0.8. By hand: v = g + 0.8 / 0.6 of the other.
    method = tag_keras.GradVac(beta=1.0, seed=0)
    method.start(("a", "b"))
    first = method.coefficients(tf.constant([[1.0, 0.8], [0.8, 1.0]])).numpy()
    np.testing.assert_array_equal(first, [1.0, 1.0])
    second = method.coefficients(tf.eye(2)).numpy()
    np.testing.assert_allclose(second, 1 + 0.8 / 0.6, rtol=1e-6)
    # An overflow leaves what is usual as it was: orthogonal by now.
    np.testing.assert_array_equal(method.coefficients(tf.fill((2, 2), np.inf)), [1.0, 1.0])
    np.testing.assert_allclose(method.coefficients(tf.eye(2)).numpy(), [1.0, 1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tag_keras.CAGrad(c=1.0), "`c` should be from 0 to below 1, such as 0.4. Received"),
        (lambda: tag_keras.CAGrad(c=-0.1), "Received: c=-0.1"),
        (lambda: tag_keras.DualProj(ridge=0), "`ridge` should be between 1e-6 and 1, such as 1e-4"),
        (lambda: tag_keras.FairGrad(alpha=0), "`alpha` should be from 0.1 to 10, such as 2.0"),
        (lambda: tag_keras.FairGrad(alpha=float("nan")), "Received: alpha=nan"),
        (lambda: tag_keras.GradVac(beta=1.5), "`beta` should be from 0 to 1, such as 0.01"),
        (lambda: tag_keras.GradVac(seed=1.5), "`seed` should be an integer from 0 on"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", NAMES)
def test_configurations(name):
    method = {**METHODS, "GradVac": lambda: tag_keras.GradVac(beta=0.5, seed=7)}[name]()
    again = type(method).from_config(method.get_config())
    assert again.get_config() == method.get_config()
    assert set(method.get_config()) >= {"name"}
