"""Probes in every way in which Keras trains: steps at once, accumulation, XLA, low precision."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
import tag_keras.model
from tag_keras import CosineAffinity, FeatureAffinity, FirstOrderAffinity, LookaheadAffinity
from tag_keras.multitask.backward_passes import is_looped

layers = keras.layers
TASKS = ("b", "a")
SIZE, BATCH = 20, 4


def make_data(missing=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SIZE, 5)).astype("float32")
    y = {task: (x[:, i] + rng.normal(size=SIZE)).astype("f4") for i, task in enumerate(TASKS)}
    if missing:
        y["a"][rng.uniform(size=SIZE) < 0.5] = np.nan
    return x, y


def make_model(normalized=False, regularizer=None):
    keras.utils.set_random_seed(0)
    # No bias: before BatchNorm its gradient is 0 but for rounding.
    stack = [layers.Dense(6, use_bias=not normalized, kernel_regularizer=regularizer)]
    stack += [layers.BatchNormalization()] if normalized else []
    encoder = keras.Sequential([keras.Input((5,)), *stack, layers.ReLU()])
    return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})


def train(model, options, optimizer="sgd", epochs=1, batch_size=BATCH, data=None, **kwargs):
    model.compile(optimizer, kwargs.pop("loss", "mse"), affinity=options, **kwargs)
    data = tf.data.Dataset.from_tensor_slices(data or make_data()).batch(batch_size)
    return model, model.fit(data, epochs=epochs, verbose=0, shuffle=False).history


def assert_same(one, two, atol=1e-6):
    (model, history), (other, logs) = one, two
    affinity, measured = model.get_affinity(), other.get_affinity()
    np.testing.assert_array_equal(measured.count, affinity.count)
    for name in ("mean", "standard_error", "history"):
        np.testing.assert_allclose(
            getattr(measured, name), getattr(affinity, name), atol=atol, err_msg=name
        )
    for value, expected in zip(other.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=atol)
    assert list(logs) == list(history)
    for name in logs:
        np.testing.assert_allclose(logs[name], history[name], rtol=1e-5, err_msg=name)


def momentum(rate=0.05):
    return keras.optimizers.SGD(rate, momentum=0.9)


# Several steps at once. Epochs of 5 batches: probes at 0, 3 | 6, 9.


def several(at_once, **kwargs):
    """Trains with missing labels, weights of losses and a regulariser."""
    return train(
        make_model(regularizer="l2"),
        LookaheadAffinity(3, baseline=True),
        momentum(0.02),
        epochs=2,
        data=make_data(missing=True),
        loss_weights={"a": 2.0, "b": 0.5},
        steps_per_execution=at_once,
        **kwargs,
    )


@pytest.fixture(scope="module")
def one_by_one():
    return several(1, run_eagerly=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "arguments"),
    # More than an epoch has, one by one on the host: only the number matters there.
    [(4, {"jit_compile": True}), (30, {"run_eagerly": True})],
)
def test_several_steps_at_once_measure_what_single_ones_measure(one_by_one, at_once, arguments):
    found = several(at_once, **arguments)
    assert_same(one_by_one, found)
    # One of the four probes is of a batch without a label of "a".
    np.testing.assert_array_equal(found[0].get_affinity().count, [[4, 3], [3, 3]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_several_steps_at_once_without_xla_and_over_data_of_unknown_length(one_by_one):
    model, history = several(4, jit_compile=False)
    assert_same(one_by_one, (model, history))
    # The same functions once more, from the same start.
    start = make_model(regularizer="l2")
    start(make_data()[0])
    model.set_weights(start.get_weights() + model.get_weights()[len(start.get_weights()) :])
    for variable in model.optimizer.variables:
        if "momentum" in variable.path:
            variable.assign(tf.zeros_like(variable))
    model._statistics.start()
    data = tf.data.Dataset.from_tensor_slices(make_data(missing=True)).batch(BATCH)
    history = model.fit(data.filter(lambda x, y: True), epochs=2, shuffle=False, verbose=0).history
    assert_same(one_by_one, (model, history))


# Gradients of two batches accumulated: a step of the optimizer is two of Keras.


def losses_by_hand(model, x, y):
    predictions = model(x, training=True)
    return [tf.reduce_mean((y[task][:, None] - predictions[task]) ** 2) for task in TASKS]


def probe_by_hand(model, x, y):
    """Affinities by real steps of the optimizer, each of which is then undone."""
    variables, shared = model.variables, model.encoder.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        before = losses_by_hand(model, x, y)
    rows = []
    state = [variable.numpy() for variable in [*variables, *model.optimizer.variables]]
    for loss in before:
        model.optimizer.apply(tape.gradient(loss, [v.value for v in shared]), shared)
        rows.append([float(one) for one in losses_by_hand(model, x, y)])
        for variable, value in zip([*variables, *model.optimizer.variables], state, strict=True):
            variable.assign(value)
    return 1 - np.array(rows) / np.array([float(one) for one in before])


@pytest.fixture(scope="module")
def accumulated_by_hand():
    """Probes of steps 0 and 2 of the optimizer, on their first batches, and the weights then.

    Each step is two batches.
    """
    x, y = make_data()
    batches = [
        (x[i : i + BATCH], {task: y[task][i : i + BATCH] for task in y})
        for i in range(0, SIZE, BATCH)
    ]
    oracle = make_model()
    oracle.compile(keras.optimizers.Adam(0.02), "mse")
    oracle(x[:1])
    variables = oracle.trainable_variables
    oracle.optimizer.build(variables)
    probes = [probe_by_hand(oracle, *batches[0])]
    for start in (0, 2):
        with tf.GradientTape() as tape:
            both = [tf.add_n(losses_by_hand(oracle, *batch)) for batch in batches[start:][:2]]
            loss = tf.add_n(both) / 2
        oracle.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
    return [*probes, probe_by_hand(oracle, *batches[4])], [v.numpy() for v in variables]


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3])
def test_accumulated_gradients_make_one_step(accumulated_by_hand, at_once):
    probes, weights = accumulated_by_hand
    model, _ = train(
        make_model(),
        LookaheadAffinity(2),
        keras.optimizers.Adam(0.02, gradient_accumulation_steps=2),
        steps_per_execution=at_once,
        run_eagerly=True,
    )
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, np.full((2, 2), 2))
    np.testing.assert_allclose(affinity.replicates, probes, atol=2e-5)
    for value, expected in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-5)


# Loops over the tasks and XLA.

ESTIMATORS = {
    "lookahead": LookaheadAffinity(1, baseline=True),
    "first order": FirstOrderAffinity(1, baseline=True),
    "cosine": CosineAffinity(1, kernels_only=False),
}


def run(kind, most_unrolled, jit_compile, run_eagerly=False):
    model = make_model(regularizer="l2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", most_unrolled)
        assert is_looped(model) == (most_unrolled == 0)
        return train(
            model,
            ESTIMATORS[kind],
            momentum(),
            batch_size=SIZE // 2,
            data=make_data(missing=True),
            loss_weights={"a": 2.0, "b": 0.5},
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
        )


@functools.cache
def unrolled(kind):
    return run(kind, most_unrolled=2, jit_compile=False, run_eagerly=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_loop_over_the_tasks_measures_what_copies_measure(kind):
    # The graphs of the others, one of steps and one of gradients, are compiled by XLA below.
    eagerly = kind != "first order"
    assert_same(unrolled(kind), run(kind, most_unrolled=0, jit_compile=False, run_eagerly=eagerly))
    affinity = unrolled(kind)[0].get_affinity()
    assert (affinity.count == 2).all() and np.abs(affinity.mean).min() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lookahead", "cosine"])
def test_a_loop_over_the_tasks_under_xla(kind):
    assert_same(unrolled(kind), run(kind, most_unrolled=0, jit_compile=True), atol=2e-6)


# Low precision.


@functools.cache
def measured_with(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model(normalized=True)
    finally:
        keras.config.set_dtype_policy("float32")
    # One batch of all examples: the weights of all policies are still the same. A small step
    # changes the losses by less than float16 and bfloat16 resolve.
    options = {"batch_size": SIZE, "run_eagerly": policy != "mixed_float16"}
    model, _ = train(model, LookaheadAffinity(1), keras.optimizers.SGD(0.002), **options)
    return model.get_affinity().mean, [layer.dtype_policy.name for layer in model.encoder.layers]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_affinities_of_low_precision_are_those_of_float32(policy):
    exact, _ = measured_with("float32")
    mean, policies = measured_with(policy)
    np.testing.assert_allclose(mean, exact, atol=0.01 * np.abs(exact).max())
    # It was measured with the policy, which is set back afterwards.
    assert set(policies) == {policy}
    assert (mean != exact).any()


@pytest.mark.parametrize("kind", ["first order", "cosine", "features"])
def test_gradients_of_low_precision(kind):
    means = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = make_model()
        finally:
            keras.config.set_dtype_policy("float32")
        estimator = {**ESTIMATORS, "features": FeatureAffinity(1)}[kind]
        train(model, estimator, batch_size=SIZE, run_eagerly=True)
        means.append(model.get_affinity().mean)
    np.testing.assert_allclose(means[1], means[0], atol=0.02 * np.abs(means[0]).max())


def huge(y_true, y_pred):
    return 1e30 * tf.reduce_mean((y_true - y_pred) ** 2, axis=-1)


def nothing(y_true, y_pred):
    return 0 * y_pred[:, 0]


def test_probes_of_which_all_overflow():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    before = model.encoder.get_weights()
    told = r"left out by target: \{'b': 4, 'a': 4\}\. Overflows by source: \{'b': 2, 'a': 2\}\."
    with pytest.warns(UserWarning, match=told):
        train(model, LookaheadAffinity(3), loss=huge, run_eagerly=True)
    for value, start in zip(model.encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, start)
    with pytest.raises(ValueError, match=f"^{OVERFLOWED}$"):
        model.get_affinity()


OVERFLOWED = (
    "All 2 probes were left out, because the gradients, times the loss scale of the optimizer, "
    'overflowed. Use losses of smaller values; under float16, the policy "mixed_bfloat16"; under '
    "float32, an optimizer without a loss scale."
)


@pytest.mark.filterwarnings("ignore:Some probe values were left out")
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mse", f"{OVERFLOWED}$"),
        # The row of "b" overflows, and no loss is above 0.
        (
            {"b": lambda *batch: -huge(*batch), "a": nothing},
            "times the loss scale of the optimizer, overflowed or a loss was not positive or not "
            "finite, or .* large. Use losses of smaller values; .* without a loss scale. Check the "
            "losses and the learning rate.$",
        ),
    ],
)
def test_float16_is_not_blamed_for_a_loss_scale_in_float32(loss, message):
    scale = float("inf") if loss == "mse" else 1e30
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=scale)
    model, _ = train(make_model(), LookaheadAffinity(3), optimizer, loss=loss, run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        model.get_affinity()


# A ReLU takes NaN for 0, and these optimizers infinity for a number: there are losses after steps.
@pytest.mark.parametrize(
    ("optimizer", "compiled"),
    [
        (lambda: keras.optimizers.SGD(0.01), True),
        (lambda: keras.optimizers.SGD(0.01), False),
        (lambda: keras.optimizers.SGD(0.01, clipvalue=1.0), False),
        (lambda: keras.optimizers.Lion(1e-4), False),
    ],
)
def test_one_task_that_overflows_spoils_its_own_row_only(optimizer, compiled):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    told = r"left out by target: \{'b': 2, 'a': 2\}\. Overflows by source: \{'a': 2\}\."
    loss = {"b": "mse", "a": huge}
    with pytest.warns(UserWarning, match=told):
        train(model, LookaheadAffinity(3), optimizer(), loss=loss, run_eagerly=not compiled)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, [[2, 2], [0, 0]])


def test_probes_of_which_no_loss_is_positive():
    model = make_model()
    with pytest.warns(UserWarning, match="because a loss was not positive"):
        train(model, LookaheadAffinity(3), loss=nothing, run_eagerly=True)
    message = (
        "All 2 probes were left out, because a loss was not positive or not finite, or a step made "
        "it more than 1e15 times as large. Check the losses and the learning rate."
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        model.get_affinity()


def test_losses_that_explode_are_left_out_and_the_learning_rate_is_named():
    model = make_model()
    optimizer = keras.optimizers.SGD(1e12)
    with pytest.warns(UserWarning, match="made it more than 1e15 times as large"):
        train(model, LookaheadAffinity(10), optimizer=optimizer, run_eagerly=True)
    with pytest.raises(ValueError, match="Check the losses and the learning rate"):
        model.get_affinity()
