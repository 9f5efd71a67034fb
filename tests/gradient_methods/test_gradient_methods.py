"""Training with gradient methods, against steps worked out with one tape and numpy."""

import itertools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import by_scipy, projected
from small_models import in_batches

import tag_keras
from tag_keras.gradient_methods.base import GradientMethod

layers = keras.layers
TASKS = ("b", "a", "c")
WEIGHTS = {"a": 2.0, "c": 0.5}
SIZE = 32


class Half(GradientMethod):
    """Half of every task's gradient."""

    def coefficients(self, gram):
        return tf.fill(gram.shape[:1], 0.5)


class Both(GradientMethod):
    """The sum of both methods, so that one graph tests both."""

    def __init__(self, order="authors", **kwargs):
        super().__init__(**kwargs)
        self.order = order
        self.methods = (tag_keras.PCGrad(order, seed=1), tag_keras.UPGrad())

    def start(self, tasks):
        for method in self.methods:
            method.start(tasks)

    def coefficients(self, gram):
        return sum(method.coefficients(gram) for method in self.methods)

    def get_config(self):
        return {**super().get_config(), "order": self.order}


def make_data(conflict=True):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, size=(SIZE, 2))
    signs = (1, -1, 1) if conflict else (1, 1, 1)
    noise = rng.normal(size=(3, SIZE)) if conflict else np.zeros((3, SIZE))
    labels = [
        (2 * s * (x[:, 0] - 2) + n).astype("float32") for s, n in zip(signs, noise, strict=True)
    ]
    return x, dict(zip(TASKS, labels, strict=True))


def make_model(tasks=TASKS):
    random.seed(0)
    # An Embedding, whose gradient comes as slices, and a regulariser, which belongs to no task.
    stack = [
        layers.Embedding(6, 3),
        layers.Flatten(),
        layers.Dense(4, "tanh", kernel_regularizer="l2"),
    ]
    encoder = keras.Sequential([keras.Input((2,), dtype="int32"), *stack])
    heads = {task: layers.Dense(1, kernel_initializer="ones") for task in tasks}
    model = tag_keras.MultiTaskModel(encoder, heads)
    model(np.zeros((1, 2)))
    return model


def train(method, optimizer=None, model=None, data=None, batch_size=SIZE, epochs=1, **kwargs):
    model = model or make_model()
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(optimizer, "mse", gradient_method=method, **{"loss_weights": WEIGHTS, **kwargs})
    data = in_batches(*(data or make_data()), batch_size)
    history = model.fit(data, epochs=epochs, shuffle=False, verbose=0).history
    return model, history


def assert_same(one, two, atol=1e-6):
    for value, expected in zip(one[0].trainable_variables, two[0].trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=atol)
    assert list(one[1]) == list(two[1])
    for name in one[1]:
        np.testing.assert_allclose(one[1][name], two[1][name], rtol=1e-5)


def gradients_by_hand(model, x, y):
    """Weighted gradients of the tasks over the shared variables (T, P), of the regulariser, and
    of the joint loss with respect to all variables."""
    shared, variables = model.encoder.trainable_variables, model.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        out = model(x, training=True)
        losses = [WEIGHTS.get(t, 1.0) * tf.reduce_mean((out[t][:, 0] - y[t]) ** 2) for t in TASKS]
        own = tf.add_n(model.losses)
        total = tf.add_n([*losses, own])

    def flat(loss):
        found = tape.gradient(loss, [v.value for v in shared])
        dense = [
            np.zeros(v.shape) if one is None else tf.convert_to_tensor(one).numpy()
            for one, v in zip(found, shared, strict=True)
        ]
        return np.concatenate([one.ravel() for one in dense])

    joint = tape.gradient(total, [v.value for v in variables])
    return (
        np.stack([flat(one) for one in losses]),
        flat(own),
        [tf.convert_to_tensor(one).numpy() for one in joint],
    )


def combined(method, rows):
    if method == "both":
        return combined("pcgrad", rows) + combined("upgrad", rows)
    if method == "upgrad":
        return by_scipy(rows @ rows.T, 1e-4) @ rows
    if method == "half":
        return 0.5 * rows.sum(axis=0)
    # The order of the authors, which is the same for all tasks and steps.
    return sum(projected(rows, i, range(len(rows)), with_itself=True) for i in range(len(rows)))


METHODS = {
    "pcgrad": lambda: tag_keras.PCGrad(order="authors"),
    "upgrad": tag_keras.UPGrad,
    "half": Half,
    "both": Both,
}


def step_by_hand(model, method, batches):
    """What a step of SGD with the rate 0.1 and the mean over the batches leads to."""
    moves = []
    for x, y in batches:
        rows, own, joint = gradients_by_hand(model, x, y)
        joint = [one.copy() for one in joint]
        flat, start = combined(method, rows) + own, 0
        for index, variable in enumerate(model.encoder.trainable_variables):
            size = variable.numpy().size
            joint[index] = flat[start : start + size].reshape(variable.shape)
            start += size
        moves.append(joint)
    means = [np.mean(one, axis=0) for one in zip(*moves, strict=True)]
    variables = model.trainable_variables
    return [v.numpy() - 0.1 * one for v, one in zip(variables, means, strict=True)]


@pytest.fixture(scope="module")
def plain():
    """What the plain step leads to."""
    return train(None, run_eagerly=True)


# `test_several_steps_at_once` shows that a graph without XLA does the same as the eager steps.
@pytest.mark.slow_cases
@pytest.mark.parametrize(
    ("method", "jit_compile"),
    [("half", False), ("pcgrad", False), ("upgrad", False), ("both", True)],
)
def test_a_step_by_hand(method, jit_compile, plain):
    expected = step_by_hand(make_model(), method, [make_data()])
    ways = {"run_eagerly": not jit_compile, "jit_compile": jit_compile}
    model, history = train(METHODS[method](), **ways)
    for value, wanted in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, atol=2e-5)
    plain, logs = plain
    assert {name: pytest.approx(value, rel=1e-5) for name, value in logs.items()} == history
    # There was something to be combined.
    kernels = model.encoder.trainable_variables[1], plain.encoder.trainable_variables[1]
    assert np.abs(kernels[0].numpy() - kernels[1].numpy()).max() > 1e-3


def test_random_orders_are_drawn_for_every_task_and_step():
    method = tag_keras.PCGrad(seed=3)
    method.start(("a", "b", "c"))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 2)).astype("float32")
    possible = [
        sum(projected(rows, i, order, False) for i, order in enumerate(orders))
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)
    ]
    seen = set()
    for _ in range(20):
        found = method.coefficients(tf.constant(rows @ rows.T)).numpy() @ rows
        distances = np.abs(np.array(possible) - found).max(axis=1)
        assert distances.min() < 1e-5
        seen.add(tuple(np.round(found, 4)))
    assert len(seen) > 1


def test_seeds():
    def draws(seed):
        method = tag_keras.PCGrad(seed=seed)
        method.start(("a", "b"))
        return np.array(method.weights[0])

    np.testing.assert_array_equal(draws(5), [5, 0])
    random.seed(1)
    one = draws(None)
    assert (draws(None) != one).any()
    random.seed(1)
    np.testing.assert_array_equal(draws(None), one)


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_without_conflict_it_is_the_plain_step(optimizer):
    data = make_data(conflict=False)
    rows, _, _ = gradients_by_hand(make_model(), *data)
    assert (rows @ rows.T).min() > 0
    pcgrad, upgrad, plain = (
        train(one, optimizer(0.1), data=data, run_eagerly=True)
        for one in (tag_keras.PCGrad(), tag_keras.UPGrad(), None)
    )
    assert_same(pcgrad, plain)
    assert_same(upgrad, plain)


def test_one_task():
    x, y = make_data()
    pcgrad, upgrad, plain = (
        train(
            one,
            model=make_model(("a",)),
            data=(x, {"a": y["a"]}),
            loss_weights={"a": 2.0},
            run_eagerly=True,
        )
        for one in (tag_keras.PCGrad(), tag_keras.UPGrad(), None)
    )
    assert_same(pcgrad, plain)
    assert_same(upgrad, plain)


def test_one_task_of_an_encoder_that_gives_a_dict():
    inputs = keras.Input((2,))
    outputs = {"a": layers.Dense(1, name="a")(inputs)}
    results = []
    for method in (tag_keras.PCGrad(), None):
        random.seed(0)
        single = keras.models.clone_model(keras.Model(inputs, outputs))
        model = tag_keras.MultiTaskModel.from_functional(single)
        assert not model.shared_variables
        x, y = make_data()
        results.append(
            train(method, model=model, data=(x, {"a": y["a"]}), loss_weights={}, run_eagerly=True)
        )
    assert len(results) == 2


def batches(size):
    x, y = make_data()
    return [(x[i : i + size], {t: y[t][i : i + size] for t in TASKS}) for i in range(0, SIZE, size)]


def test_accumulated_gradients_are_combined_batch_by_batch():
    expected = step_by_hand(make_model(), "both", batches(16))
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model, _ = train(Both(), optimizer, batch_size=16, run_eagerly=True)
    for value, wanted in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, atol=2e-5)


@pytest.mark.slow
def test_several_steps_at_once():
    method = Both("random")
    one_by_one = train(method, batch_size=8, run_eagerly=True)
    several = train(method, batch_size=8, steps_per_execution=4, jit_compile=False)
    assert_same(one_by_one, several, atol=1e-5)


@pytest.mark.slow
def test_a_loop_over_the_tasks(monkeypatch):
    method = Both("random")
    unrolled = train(method, run_eagerly=True)
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
    assert_same(unrolled, train(method, jit_compile=False), atol=1e-5)


def mixed(dtype, loss="mse"):
    keras.config.set_dtype_policy(dtype)
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, loss, gradient_method=tag_keras.UPGrad(), run_eagerly=True)
    start = [v.numpy() for v in model.trainable_variables]
    x, y = make_data()
    model.fit(x, {task: 0.1 * y[task] for task in y}, SIZE, shuffle=False, verbose=0)
    end = [v.numpy() for v in model.trainable_variables]
    return model, start, end


def test_mixed_precision():
    _, start, exact = mixed("float32")
    model, _, end = mixed("mixed_float16")
    assert float(model.optimizer.dynamic_scale) == 2.0**15
    for value, wanted, first in zip(end, exact, start, strict=True):
        np.testing.assert_allclose(value, wanted, atol=0.02 * np.abs(wanted - first).max() + 1e-6)


def huge(y_true, y_pred):
    return 1e30 * tf.reduce_mean((y_true - y_pred) ** 2, axis=-1)


def test_a_step_that_overflows_is_skipped():
    model, start, end = mixed("mixed_float16", huge)
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    for value, first in zip(end, start, strict=True):
        np.testing.assert_array_equal(value, first)


@pytest.mark.slow
def test_a_model_that_is_not_built():
    random.seed(0)
    encoder = keras.Sequential([layers.Embedding(6, 3), layers.Flatten()])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS[:2]})
    train(tag_keras.UPGrad(), model=model, loss_weights={}, jit_compile=False)
    assert model.built and np.isfinite(model.encoder.get_weights()[0]).all()


def frozen(**kwargs):
    model = make_model()
    model.encoder.trainable = False
    return train(tag_keras.PCGrad(), model=model, run_eagerly=True, **kwargs)


class OwnStep(GradientMethod):
    def make_step(self, model):
        return model.train_step


def compile_with(**kwargs):
    return lambda: make_model().compile("sgd", "mse", **kwargs)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: tag_keras.PCGrad(order="fixed"), 'should be "random" or "authors". Received: or'),
        (lambda: tag_keras.PCGrad(seed=1.5), "`seed` should be an integer from 0 on. Received: se"),
        (lambda: tag_keras.UPGrad(ridge=0), "`ridge` should be between 1e-6 and 1, such as 1e-4"),
        (lambda: tag_keras.UPGrad(ridge=float("nan")), "Received: ridge=nan"),
        (compile_with(gradient_method="pcgrad"), "`gradient_method` should be a method, such as"),
        (compile_with(gradient_method=tag_keras.PCGrad), "`gradient_method` should be a method"),
        (
            # What all have in common is none by itself.
            compile_with(gradient_method=GradientMethod()),
            "`gradient_method` should be a method, such as .* Received: gradient_method=<Gradient",
        ),
        (
            compile_with(gradient_method=OwnStep(), loss_weighting="equal"),
            "`loss_weighting` should be a weighting",
        ),
        (frozen, "nothing that a gradient method could combine. Give several tasks a common layer"),
        (
            compile_with(gradient_method=OwnStep(), affinity=tag_keras.LookaheadAffinity()),
            "OwnStep has training steps of its own, in which `affinity` has no part. "
            "Leave one of the two out. Received: affinity=LookaheadAffinity.",
        ),
        (
            compile_with(gradient_method=OwnStep(), loss_weighting=tag_keras.GradNorm("dense")),
            "Received: loss_weighting=GradNorm.",
        ),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_a_method_with_steps_of_its_own():
    assert_same(train(OwnStep(), run_eagerly=True), train(None, run_eagerly=True))
