"""What `compile(affinity=...)` takes: options, files, and what is measured in `fit`."""

import dataclasses
import functools
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras import CosineAffinity, FeatureAffinity, FirstOrderAffinity, LookaheadAffinity
from tag_keras.backend.gradients import map_tasks
from tag_keras.estimators.base import AffinityEstimator, Probe

TASKS = ("b", "a", "c")
STEPS = [LookaheadAffinity, FirstOrderAffinity]
ALL = [*STEPS, CosineAffinity, FeatureAffinity]


@keras.saving.register_keras_serializable(package="test_estimators")
@dataclasses.dataclass(frozen=True)
class GradientRatio(AffinityEstimator):
    """An estimator as a user writes it: |g_i| by |g_j|, to a power."""

    power: float = 1.0

    def measure(self, probe):
        def squares(row):
            return tf.add_n([tf.reduce_sum(one**2) for one in row])

        norms = tf.sqrt(map_tasks(squares, probe.gradients))
        return (norms[:, None] / norms[None, :]) ** self.power


# Options.


def test_options_are_those_of_the_paper_and_cannot_change():
    steps, defaults = (None, 0.1, "optimizer", False), (None, 0.1)
    wanted = [(*steps, None), steps, (*defaults, True), defaults]
    for kind, values in zip(ALL, wanted, strict=True):
        options = kind()
        assert dataclasses.astuple(options) == values
        with pytest.raises(dataclasses.FrozenInstanceError, match="every"):
            options.every = 3
    assert LookaheadAffinity(1, "sgd", True) == LookaheadAffinity(
        every=1, update="sgd", baseline=True
    )
    assert LookaheadAffinity() != FirstOrderAffinity()


@pytest.mark.parametrize("kind", [*ALL, GradientRatio])
@pytest.mark.parametrize("every", [0, -1, True, 2.0, "10"])
def test_every_is_an_integer_of_at_least_one(kind, every):
    message = rf"`every` should be (an integer|at least 1)\. Received: every={every!r}\."
    with pytest.raises(ValueError, match=message):
        kind(every=every)


@pytest.mark.parametrize("overhead", [0, -0.1, True, "0.1", None, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [*ALL, GradientRatio])
def test_overhead_is_a_number_above_zero(kind, overhead):
    message = rf"`overhead` should be a number above 0\. Received: overhead={overhead!r}\."
    with pytest.raises(ValueError, match=message):
        kind(overhead=overhead)


@pytest.mark.parametrize("kind", [*ALL, GradientRatio])
def test_the_settings_of_a_run_have_what_decides(kind):
    assert "overhead" not in kind(every=3).settings()
    assert kind(overhead=1).settings().items() >= {"every": None, "overhead": 1.0}.items()


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("update", ["adam", "SGD", None, ["sgd"]])
def test_update_is_one_of_two(kind, update):
    message = f'`update` should be "optimizer" or "sgd". Received: update={update!r}.'
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(update=update)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("baseline", ["no", None, 1])
def test_baseline_is_a_bool(kind, baseline):
    message = f"`baseline` should be a bool. Received: baseline={baseline!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(baseline=baseline)


@pytest.mark.parametrize("kernels_only", ["no", None, 1])
def test_kernels_only_is_a_bool(kernels_only):
    message = f"`kernels_only` should be a bool. Received: kernels_only={kernels_only!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        CosineAffinity(kernels_only=kernels_only)


@pytest.mark.parametrize(
    "options",
    [
        LookaheadAffinity(),
        LookaheadAffinity(3, "sgd", True),
        FirstOrderAffinity(1, "sgd", True),
        CosineAffinity(7, kernels_only=False),
        FeatureAffinity(3),
        GradientRatio(2, power=0.5),
    ],
    ids=repr,
)
def test_options_come_back_from_a_configuration(options):
    assert type(options).from_config(options.get_config()) == options
    written = json.dumps(keras.saving.serialize_keras_object(options))
    read = keras.saving.deserialize_keras_object(json.loads(written))
    assert type(read) is type(options)
    assert read == options


def test_measuring_is_left_to_subclasses():
    with pytest.raises(NotImplementedError):
        AffinityEstimator().measure(None)


# What is measured, in `fit`.


def make_data(size=32, seed=0):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(size, 5)), rng.normal(size=(3, size))
    y = {task: (x[:, i] + labels[i]).astype("float32") for i, task in enumerate(TASKS)}
    return x.astype("float32"), y


def make_model(make_encoder):
    keras.utils.set_random_seed(0)
    return tag_keras.MultiTaskModel(make_encoder(), {task: keras.layers.Dense(1) for task in TASKS})


def linear():
    return keras.layers.Dense(4)


def curved():
    return keras.layers.Dense(4, "tanh")


def measure(options, optimizer="sgd", make_encoder=linear, batch_size=32):
    model = make_model(make_encoder)
    # Eagerly, because tracing a function takes longer than a few steps.
    model.compile(optimizer, "mse", affinity=options, run_eagerly=True)
    model.fit(*make_data(), batch_size=batch_size, shuffle=False, verbose=0)
    return model.get_affinity()


OPTIMIZERS = {
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate: keras.optimizers.Adam(rate),
}


@dataclasses.dataclass(frozen=True)
class Several(AffinityEstimator):
    """Lookaheads, and besides all that the other estimators measure on the same probes."""

    others: tuple = ()
    found: list = dataclasses.field(default_factory=list, compare=False)

    def measure(self, probe):
        values = [one.measure(probe) for one in (LookaheadAffinity(), *self.others)]
        self.found.append([one.numpy() for one in values[1:]])
        return values[0]


SETTINGS = [("sgd", False), ("optimizer", False), ("optimizer", True)]


@functools.cache
def measured_on_the_same_probes(optimizer, rate):
    """Means of two probes, by setting: lookahead and first order."""
    others = tuple(kind(1, *setting) for setting in SETTINGS for kind in STEPS)
    options = Several(every=1, others=others)
    affinity = measure(options, OPTIMIZERS[optimizer](rate), curved, batch_size=16)
    assert (affinity.count == 2).all() and len(options.found) == 2
    means = np.mean(options.found, axis=0)
    # What `fit` makes of the probes of one of them.
    np.testing.assert_allclose(affinity.mean, means[2], atol=1e-7)
    return dict(zip(SETTINGS, means.reshape(3, 2, 3, 3), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("update", "optimizer", "baseline"),
    [
        ("sgd", "momentum", False),
        ("optimizer", "momentum", False),
        ("optimizer", "momentum", True),
        ("optimizer", "adam", True),
    ],
)
def test_first_order_tends_to_lookahead_with_the_learning_rate(update, optimizer, baseline):
    # What first order leaves out goes with the square of the step, that is, ten times less of
    # it is ten times less of a difference in relation to the affinities.
    differences = []
    for rate in (0.01, 0.001):
        lookahead, first_order = measured_on_the_same_probes(optimizer, rate)[update, baseline]
        differences.append(np.abs(lookahead - first_order).max() / np.abs(lookahead).max())
    assert 0.003 < differences[0] < 0.3
    assert differences[1] == pytest.approx(differences[0] / 10, rel=0.3)


def gradients_by_hand(kernel, bias, heads, x, y):
    """Losses, and gradients of the kernel and the bias, of mean (((x W + b) v + c) - y)^2."""
    losses, of_kernel, of_bias = [], [], []
    for (v, c), label in zip(heads, y.values(), strict=True):
        error = ((x @ kernel + bias) @ v + c)[:, 0] - label
        losses.append(np.mean(error**2))
        of_kernel.append(2 * np.outer(x.T @ error, v[:, 0]) / len(x))
        of_bias.append(2 * error.sum() * v[:, 0] / len(x))
    return np.array(losses), np.array(of_kernel), np.array(of_bias)


@pytest.fixture(scope="module")
def by_hand():
    """Losses and gradients of `make_model(linear)` at its start."""
    model, (x, y) = make_model(linear), make_data()
    model(x)
    values = [variable.numpy() for variable in model.encoder.weights]
    heads = [[variable.numpy() for variable in head.weights] for head in model.heads.values()]
    return gradients_by_hand(*values, heads, x, y)


@pytest.mark.parametrize("kernels_only", [False, True])
def test_cosines_of_one_batch_equal_those_by_hand(by_hand, kernels_only):
    _, of_kernel, of_bias = by_hand
    vectors = of_kernel.reshape(3, -1)
    if not kernels_only:
        vectors = np.concatenate([vectors, of_bias], axis=1)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    affinity = measure(CosineAffinity(1, kernels_only))
    np.testing.assert_allclose(affinity.mean, vectors @ vectors.T, atol=1e-5)
    assert (affinity.count == 1).all()


def test_first_order_of_one_batch_equals_that_by_hand(by_hand):
    losses, of_kernel, of_bias = by_hand
    vectors = np.concatenate([of_kernel.reshape(3, -1), of_bias], axis=1)
    affinity = measure(FirstOrderAffinity(1), keras.optimizers.SGD(0.1))
    np.testing.assert_allclose(affinity.mean, 0.1 * vectors @ vectors.T / losses, rtol=1e-4)


def test_lookahead_of_one_batch_equals_that_by_hand(by_hand):
    losses, of_kernel, of_bias = by_hand
    model, (x, y) = make_model(linear), make_data()
    model(x)
    kernel, bias = (variable.numpy() for variable in model.encoder.weights)
    heads = [[variable.numpy() for variable in head.weights] for head in model.heads.values()]
    after = [
        gradients_by_hand(kernel - 0.1 * one, bias - 0.1 * other, heads, x, y)[0]
        for one, other in zip(of_kernel, of_bias, strict=True)
    ]
    affinity = measure(LookaheadAffinity(1), keras.optimizers.SGD(0.1))
    np.testing.assert_allclose(affinity.mean, 1 - np.array(after) / losses, atol=1e-5)


def test_cosines_need_a_variable_with_two_axes():
    message = (
        "`CosineAffinity` found no shared variable with two or more axes: measure with "
        "`CosineAffinity(kernels_only=False)`."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        measure(CosineAffinity(), make_encoder=keras.layers.BatchNormalization)
    affinity = measure(
        CosineAffinity(kernels_only=False), make_encoder=keras.layers.BatchNormalization
    )
    np.testing.assert_allclose(np.diag(affinity.mean), 1, atol=1e-6)


def test_cosines_leave_out_a_task_that_does_not_touch_the_shared_kernels():
    class OnlyFeatures(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(5, 4))
            self.bias = self.add_weight(shape=(4,))

        def call(self, x):
            shared = x @ self.kernel
            return {"b": shared, "a": 0 * x[:, :4] + self.bias, "c": shared}

    with pytest.warns(UserWarning, match=r"because a gradient was 0 .* \{'b': 1, 'a': 3, 'c': 1\}"):
        affinity = measure(CosineAffinity(), make_encoder=OnlyFeatures)
    without = np.array([[False, True, False], [True, True, True], [False, True, False]])
    np.testing.assert_array_equal(np.isnan(affinity.mean), without)
    np.testing.assert_array_equal(affinity.skipped, without)


def test_an_estimator_of_a_user(by_hand, tmp_path):
    _, of_kernel, of_bias = by_hand
    vectors = np.concatenate([of_kernel.reshape(3, -1), of_bias], axis=1)
    norms = np.linalg.norm(vectors, axis=1)
    model = make_model(linear)
    model.compile("sgd", "mse", affinity=GradientRatio(every=2, power=2.0))
    model.fit(*make_data(), batch_size=32, epochs=2, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    assert (affinity.count == 1).all()
    np.testing.assert_allclose(affinity.mean, (norms[:, None] / norms) ** 2, rtol=1e-4)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded._affinity_options == GradientRatio(every=2, power=2.0)
    np.testing.assert_array_equal(loaded.get_affinity().mean, affinity.mean)


# What a probe gives them.


def make_probe(**changes):
    variable = keras.Variable([[1.0, 2.0]])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([variable])
    fields = {
        "losses": tf.constant([1.0, 2.0]),
        "gradients": [[tf.constant([[3.0, 4.0]])], [tf.constant([[4.0, 3.0]])]],
        "variables": [variable],
        "optimizer": optimizer,
        "loss_sums": lambda values: tf.stack([[6.0, tf.reduce_sum(values[0])], [4.0, 2.0]]),
    }
    return Probe(**{**fields, **changes})


@pytest.mark.parametrize("options", [FirstOrderAffinity(baseline=True), CosineAffinity()])
def test_these_need_no_forward_pass(options):
    def loss_sums(values):
        raise AssertionError

    values = options.measure(make_probe(loss_sums=loss_sums)).numpy()
    expected = [[2.5, 1.2], [2.4, 1.25]] if isinstance(options, FirstOrderAffinity) else None
    if expected is None:
        np.testing.assert_allclose(values, [[1, 0.96], [0.96, 1]], atol=1e-6)
    else:
        np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("low_precision", [False, True])
def test_losses_of_low_precision_are_computed_again(low_precision):
    probe = make_probe(low_precision=low_precision)
    # (6 / 4, (1 + 2) / 2).
    expected = [1.5, 1.5] if low_precision else [1.0, 2.0]
    np.testing.assert_allclose(probe.exact_losses(), expected)
    # After the steps the sums of the values are 3 - 0.7, and those of the losses 6 and 2.3.
    after = np.array([[1.5, 1.15], [1.5, 1.15]])
    np.testing.assert_allclose(LookaheadAffinity().measure(probe), 1 - after / expected, atol=1e-6)
