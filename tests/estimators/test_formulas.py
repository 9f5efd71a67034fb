"""What a probe computes, against closed forms (quadratic and linear losses), and real steps."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.backend.gradients import StackedGradients, overflowed
from tag_keras.backend.optimizers import lookahead_step
from tag_keras.estimators.cosine import cosine_affinity
from tag_keras.estimators.first_order import first_order_affinity
from tag_keras.estimators.lookahead import lookahead_affinity

optimizers = keras.optimizers


def gradients_of(variables, losses_at):
    """Losses (T,) and their gradients at the values of the variables."""
    with tf.GradientTape(persistent=True) as tape:
        losses = losses_at([variable.value for variable in variables])
    rows = [tape.gradient(loss, [v.value for v in variables]) for loss in losses]
    return tf.stack(losses), rows


def affinities(
    variables, losses_at, optimizer, update="optimizer", baseline=False, first_order=False
):
    """Affinities of `losses_at(values)` at the values of the variables."""
    optimizer.build(variables)
    losses, gradients = gradients_of(variables, losses_at)

    def step(row):
        return lookahead_step(optimizer, row, variables, update)

    def loss_sums(values):
        # Sums over three examples, as it were.
        return tf.stack([3 * tf.stack(losses_at(values)), tf.fill(losses.shape, 3.0)])

    zero_step = step([tf.zeros_like(v) for v in variables]) if baseline else None
    if first_order:
        origin = zero_step or [variable.value for variable in variables]
        return first_order_affinity(losses, gradients, step, origin).numpy()
    return lookahead_affinity(losses, gradients, step, loss_sums, zero_step).numpy()


def set_momentum(optimizer, values):
    (slot,) = [v for v in optimizer.variables if "momentum" in v.path]
    slot.assign(values)


# L_j = |theta - c_j|^2 / 2 at theta = 0: g_i = -c_i, and with d_i = eta g_i - mu v
# Z[i, j] = (g_j . d_i - |d_i|^2 / 2) / L_j.
CENTRES = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def quadratic(values):
    (theta,) = values
    return [tf.reduce_sum((theta - centre) ** 2) / 2 for centre in CENTRES.astype("float32")]


def quadratic_expected(rate, momentum=0.0, slot=(0.0, 0.0)):
    moves = -rate * CENTRES - momentum * np.array(slot)
    return [[(-c @ d - d @ d / 2) / (c @ c / 2) for c in CENTRES] for d in moves]


def first_order_expected(rate, momentum=0.0, slot=(0.0, 0.0)):
    moves = -rate * CENTRES - momentum * np.array(slot)
    return [[-c @ d / (c @ c / 2) for c in CENTRES] for d in moves]


@pytest.mark.parametrize("update", ["optimizer", "sgd"])
def test_quadratic_losses(update):
    theta = keras.Variable([0.0, 0.0])
    values = affinities([theta], quadratic, optimizers.SGD(0.1), update)
    expected = [[0.19, -0.01, -0.21], [-0.01, 0.19, -0.01], [-0.21, -0.01, 0.19]]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_allclose(quadratic_expected(0.1), expected, atol=1e-12)


def test_quadratic_losses_with_momentum():
    theta, optimizer = keras.Variable([0.0, 0.0]), optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([theta])
    set_momentum(optimizer, [0.2, 0.0])
    values = affinities([theta], quadratic, optimizer)
    expected = [
        [0.4816, -0.0784, -0.6384],
        [0.3176, 0.1576, -0.4024],
        [0.1536, -0.0064, -0.1664],
    ]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_allclose(quadratic_expected(0.1, 0.9, (0.2, 0.0)), expected, atol=1e-12)


@pytest.mark.parametrize("update", ["optimizer", "sgd"])
def test_quadratic_losses_to_first_order(update):
    # Gram matrix of the gradients: [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]; times 0.1, by L_j = 1/2.
    theta = keras.Variable([0.0, 0.0])
    values = affinities([theta], quadratic, optimizers.SGD(0.1), update, first_order=True)
    expected = [[0.2, 0.0, -0.2], [0.0, 0.2, 0.0], [-0.2, 0.0, 0.2]]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_allclose(first_order_expected(0.1), expected, atol=1e-12)


def test_quadratic_losses_with_momentum_to_first_order():
    # The step for i moves theta by 0.1 c_i + (0.18, 0): (0.28, 0), (0.18, 0.1) and (0.08, 0).
    theta, optimizer = keras.Variable([0.0, 0.0]), optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([theta])
    set_momentum(optimizer, [0.2, 0.0])
    values = affinities([theta], quadratic, optimizer, first_order=True)
    expected = [[0.56, 0.0, -0.56], [0.36, 0.2, -0.36], [0.16, 0.0, -0.16]]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    np.testing.assert_allclose(first_order_expected(0.1, 0.9, (0.2, 0.0)), expected, atol=1e-12)
    # Without what a zero gradient does, only the gradients are left: as without momentum.
    values = affinities([theta], quadratic, optimizer, baseline=True, first_order=True)
    np.testing.assert_allclose(values, first_order_expected(0.1), atol=1e-6)


def test_baseline_is_the_affinity_of_a_zero_gradient():
    theta, optimizer = keras.Variable([0.0, 0.0]), optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([theta])
    set_momentum(optimizer, [0.2, 0.0])
    values = affinities([theta], quadratic, optimizer, baseline=True)
    # The zero gradient moves theta by mu v = (.18, 0): Z_0[j] = (c_j . mv - |mv|^2 / 2) / L_j.
    zero = [(c @ [0.18, 0.0] - 0.18**2 / 2) / 0.5 for c in CENTRES]
    expected = np.array(quadratic_expected(0.1, 0.9, (0.2, 0.0))) - zero
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("first_order", [False, True])
def test_linear_losses(first_order):
    # L_j = a_j . theta + b_j: Z[i, j] = eta a_i . a_j / L_j exactly.
    rng = np.random.default_rng(0)
    slopes, offsets = rng.normal(size=(4, 3)).astype("float32"), np.arange(5, 9, dtype="float32")
    theta = keras.Variable([0.1, -0.2, 0.3])

    def linear(values):
        return [tf.reduce_sum(a * values[0]) + b for a, b in zip(slopes, offsets, strict=True)]

    values = affinities([theta], linear, optimizers.SGD(0.05), first_order=first_order)
    losses = slopes @ theta.numpy() + offsets
    np.testing.assert_allclose(values, 0.05 * slopes @ slopes.T / losses, atol=1e-6)


def test_scaling_a_target_changes_nothing():
    theta = keras.Variable([0.3, -0.1])
    plain = affinities([theta], quadratic, optimizers.SGD(0.1))
    scaled = affinities(
        [theta],
        lambda values: [*quadratic(values)[:2], 5 * quadratic(values)[2]],
        optimizers.SGD(0.1),
    )
    np.testing.assert_allclose(scaled[:2, 2], plain[:2, 2], atol=1e-6)
    np.testing.assert_allclose(scaled[:2, :2], plain[:2, :2], atol=1e-6)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), float("inf")])
def test_a_loss_that_is_no_divisor_gives_nan_for_its_target_only(loss, first_order):
    theta = keras.Variable([0.3, -0.1])
    values = affinities(
        [theta],
        lambda values: [
            quadratic(values)[0],
            loss + 0 * quadratic(values)[1],
            quadratic(values)[2],
        ],
        optimizers.SGD(0.1),
        first_order=first_order,
    )
    np.testing.assert_array_equal(np.isnan(values), [[False, True, False]] * 3)


def test_an_overflowing_lookahead_gives_nan():
    theta = keras.Variable([1.0])

    def losses_at(values):
        return [tf.reduce_sum(values[0]) * 1e38, tf.exp(-40 * tf.reduce_sum(values[0]))]

    values = affinities([theta], losses_at, optimizers.SGD(1.0))
    assert np.isnan(values[0, 1])


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.05),
    "global_clipnorm": lambda: optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.05),
    "weight_decay": lambda: optimizers.SGD(0.1, weight_decay=0.1),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
    "adam": lambda: optimizers.Adam(0.1),
    "amsgrad": lambda: optimizers.Adam(0.1, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.1, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.5, centered=True),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adamax": lambda: optimizers.Adamax(0.1),
    "nadam": lambda: optimizers.Nadam(0.1),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.1),
    "lamb": lambda: optimizers.Lamb(0.1),
    "adafactor": lambda: optimizers.Adafactor(0.1),
    "muon": lambda: optimizers.Muon(0.1, weight_decay=0.1, rms_rate=0.2),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.1)),
    "loss_scale_factor": lambda: optimizers.Adam(0.1, loss_scale_factor=64.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lookahead_is_the_step_that_the_optimizer_then_takes(name):
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.normal(size=shape).astype("float32")

    shapes = [(4, 3), (3,), (2, 2, 3, 4)]
    variables = [keras.Variable(draw(shape), name=f"v{i}") for i, shape in enumerate(shapes)]
    variables[1].constraint = keras.constraints.NonNeg()
    of_a_head = keras.Variable(draw((5,)), name="head")
    if name == "muon" and "rms_rate" not in inspect.signature(optimizers.Muon).parameters:
        pytest.skip("before Keras 3.13, Muon itself fails with TensorFlow and has no `rms_rate`")
    optimizer = OPTIMIZERS[name]()
    optimizer.build([*variables, of_a_head])
    lookahead = tf.function(lambda row: lookahead_step(optimizer, row, variables))
    for _ in range(3):
        row = [tf.constant(draw(shape)) for shape in shapes]
        state = [v.numpy() for v in [*variables, of_a_head, *optimizer.variables]]
        expected = lookahead(row)
        for before, after in zip(state, [*variables, of_a_head, *optimizer.variables], strict=True):
            np.testing.assert_array_equal(before, after.numpy())
        scale = optimizer.scale_loss(tf.constant(1.0))
        optimizer.apply([gradient * scale for gradient in row], variables)
        for value, variable in zip(expected, variables, strict=True):
            np.testing.assert_allclose(value.numpy(), variable.numpy(), atol=1e-6)


def test_sgd_update_leaves_momentum_out():
    variable, optimizer = keras.Variable([1.0, 2.0]), optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([variable])
    set_momentum(optimizer, [5.0, 5.0])
    (value,) = lookahead_step(optimizer, [tf.constant([1.0, -1.0])], [variable], "sgd")
    np.testing.assert_allclose(value.numpy(), [0.9, 2.1], atol=1e-7)


@pytest.mark.parametrize("kind", ["adam", "nadam", "momentum", "adamw"])
def test_with_accumulated_gradients_the_step_is_that_of_identical_batches(kind):
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=(4, 3)).astype("float32"))]
    make = {
        "adam": optimizers.Adam,
        "nadam": optimizers.Nadam,
        "momentum": lambda rate, **kwargs: optimizers.SGD(rate, momentum=0.9, **kwargs),
        "adamw": lambda rate, **kwargs: optimizers.AdamW(rate, weight_decay=0.1, **kwargs),
    }[kind]
    optimizer = make(0.1, gradient_accumulation_steps=3)
    optimizer.build(variables)
    lookahead = tf.function(lambda row: lookahead_step(optimizer, row, variables))
    for _ in range(3):
        row = [tf.constant(rng.normal(size=(4, 3)).astype("float32"))]
        before = variables[0].numpy()
        (expected,) = lookahead(row)
        for _ in range(2):
            optimizer.apply(row, variables)
            np.testing.assert_array_equal(variables[0].numpy(), before)
        optimizer.apply(row, variables)
        assert np.abs(variables[0].numpy() - before).max() > 0.01
        np.testing.assert_allclose(expected.numpy(), variables[0].numpy(), atol=1e-6)


# Cosines.


def draw_gradients(seed=0, tasks=4, shapes=((3, 2), (5,), (2, 2, 2))):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape).astype("float32") for shape in shapes] for _ in range(tasks)]


def flat(rows):
    return np.stack([np.concatenate([one.ravel() for one in row]) for row in rows]).astype("f8")


def cosines(rows):
    rows = [[tf.constant(one, "float32") for one in row] for row in rows]
    return cosine_affinity(rows).numpy()


def test_cosines_equal_those_of_numpy():
    rows = draw_gradients()
    vectors = flat(rows) / np.linalg.norm(flat(rows), axis=1, keepdims=True)
    values = cosines(rows)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, vectors @ vectors.T, atol=1e-6)
    stacked = StackedGradients([tf.stack(column) for column in zip(*rows, strict=True)])
    np.testing.assert_allclose(cosine_affinity(stacked), values, atol=1e-6)


def test_cosines_worked_out_by_hand():
    # (3, 4) and (4, 3): 24 / 25; (3, 4) and (-8, 6): 0; (4, 3) and (-8, 6): -14 / 50.
    rows = [[[[3.0, 4.0]]], [[[4.0, 3.0]]], [[[-3.0, -4.0]]], [[[-8.0, 6.0]]]]
    expected = [[1, 0.96, -1, 0], [0.96, 1, -0.96, -0.28], [-1, -0.96, 1, 0], [0, -0.28, 0, 1]]
    np.testing.assert_allclose(cosines(rows), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_cosines_are_symmetric_with_a_diagonal_of_one_and_in_range(seed):
    rows = draw_gradients(seed, tasks=5)
    # Two of the same direction, whose cosine must not be 1 and a bit.
    rows[4] = [3 * one for one in rows[0]]
    values = cosines(rows)
    np.testing.assert_array_equal(values, values.T)
    np.testing.assert_allclose(np.diag(values), 1, atol=1e-6)
    assert (np.abs(values) <= 1).all()
    assert values[0, 4] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e6, 1e30])
def test_cosines_do_not_depend_on_the_scale_of_a_loss(scale):
    # Squares of 1e-30 and 1e30 are out of the range of float32.
    rows = draw_gradients()
    scaled = [rows[0], [one * np.float32(scale) for one in rows[1]], *rows[2:]]
    np.testing.assert_allclose(cosines(scaled), cosines(rows), atol=1e-6)
    everything = [[one * np.float32(scale) for one in row] for row in rows]
    np.testing.assert_allclose(cosines(everything), cosines(rows), atol=1e-6)


def test_a_zero_gradient_has_no_cosine():
    rows = draw_gradients()
    expected = cosines(rows)
    rows[1] = [np.zeros_like(one) for one in rows[1]]
    expected[1, :] = expected[:, 1] = np.nan
    np.testing.assert_allclose(cosines(rows), expected, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_has_no_cosine(bad):
    rows = draw_gradients()
    expected = cosines(rows)
    rows[2][1][0] = bad
    expected[2, :] = expected[:, 2] = np.nan
    np.testing.assert_allclose(cosines(rows), expected, atol=1e-6)


def test_cosines_of_low_precision_are_computed_in_float32():
    rows = [[tf.constant(one, "float16") for one in row] for row in draw_gradients()]
    values = cosine_affinity(rows)
    assert values.dtype == "float32"
    expected = cosines([[np.asarray(one, "float32") for one in row] for row in rows])
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("stacked", [False, True])
def test_overflows_are_told_by_task(stacked):
    rows = draw_gradients()
    rows[0][0][2, 1], rows[2][2][0, 0, 0], rows[3][1][4] = np.inf, np.nan, 3e38
    gradients = [[tf.constant(one) for one in row] for row in rows]
    if stacked:
        gradients = StackedGradients([tf.stack(column) for column in zip(*gradients, strict=True)])
    np.testing.assert_array_equal(overflowed(gradients), [True, False, True, False])
