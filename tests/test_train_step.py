"""Lookahead against closed forms (quadratic and linear losses), and against real steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras import train_step

optimizers = keras.optimizers


def affinities(variables, losses_at, optimizer, update="optimizer", baseline=False):
    """Lookahead affinities of `losses_at(values)` at the values of the variables."""
    optimizer.build(variables)
    with tf.GradientTape(persistent=True) as tape:
        losses = losses_at([variable.value for variable in variables])
    gradients = [tape.gradient(loss, [v.value for v in variables]) for loss in losses]
    values = train_step.lookahead_affinity(
        losses,
        gradients,
        lambda row: train_step.lookahead_step(optimizer, row, variables, update),
        losses_at,
        baseline,
    )
    return values.numpy()


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


def test_baseline_is_the_affinity_of_a_zero_gradient():
    theta, optimizer = keras.Variable([0.0, 0.0]), optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([theta])
    set_momentum(optimizer, [0.2, 0.0])
    values = affinities([theta], quadratic, optimizer, baseline=True)
    # The zero gradient moves theta by mu v = (.18, 0): Z_0[j] = (c_j . mv - |mv|^2 / 2) / L_j.
    zero = [(c @ [0.18, 0.0] - 0.18**2 / 2) / 0.5 for c in CENTRES]
    expected = np.array(quadratic_expected(0.1, 0.9, (0.2, 0.0))) - zero
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_linear_losses():
    # L_j = a_j . theta + b_j: Z[i, j] = eta a_i . a_j / L_j exactly.
    rng = np.random.default_rng(0)
    slopes, offsets = rng.normal(size=(4, 3)).astype("float32"), np.arange(5, 9, dtype="float32")
    theta = keras.Variable([0.1, -0.2, 0.3])

    def linear(values):
        return [tf.reduce_sum(a * values[0]) + b for a, b in zip(slopes, offsets, strict=True)]

    values = affinities([theta], linear, optimizers.SGD(0.05))
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


@pytest.mark.parametrize(
    ("loss", "bad"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1)]
)
def test_a_loss_that_is_no_divisor_gives_nan_for_its_target_only(loss, bad):
    theta = keras.Variable([0.3, -0.1])
    values = affinities(
        [theta],
        lambda values: [
            quadratic(values)[0],
            loss + 0 * quadratic(values)[1],
            quadratic(values)[2],
        ],
        optimizers.SGD(0.1),
    )
    np.testing.assert_array_equal(np.isnan(values[0]), [False, True, False])
    np.testing.assert_array_equal(np.isnan(values[2]), [False, True, False])


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
    optimizer = OPTIMIZERS[name]()
    optimizer.build([*variables, of_a_head])
    lookahead = tf.function(lambda row: train_step.lookahead_step(optimizer, row, variables))
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
    (value,) = train_step.lookahead_step(optimizer, [tf.constant([1.0, -1.0])], [variable], "sgd")
    np.testing.assert_allclose(value.numpy(), [0.9, 2.1], atol=1e-7)


def test_source_gradients_are_unscaled_and_dense():
    shared, head = keras.Variable([1.0, 2.0]), keras.Variable([3.0])
    optimizer = optimizers.SGD(0.1, loss_scale_factor=4.0)
    rows = [[tf.constant([8.0]), tf.constant([4.0, 8.0])], [tf.constant([1.0]), None]]
    sources = train_step.source_gradients(optimizer, rows, [head, shared], [shared])
    np.testing.assert_allclose([s[0].numpy() for s in sources], [[1.0, 2.0], [0.0, 0.0]])
