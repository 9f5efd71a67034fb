"""Training and probes on two replicas, against one device with the same batches."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

layers = keras.layers
TASKS = ("b", "a", "c")
# Six batches: all of 16; the last one of 11, with 6 examples for one replica and 5 for the other;
# or all of 15, with 8 and 7, which are of one shape to be traced.
WHOLE, SHORT, UNEVEN = 96, 91, 90

OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def make_data(size, missing=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5)).astype("float32")
    y = {task: (x[:, i] + rng.normal(size=size)).astype("float32") for i, task in enumerate(TASKS)}
    if missing:
        for values in y.values():
            values[rng.uniform(size=size) < 0.4] = np.nan
        # No label for one of the replicas in the first batch, none at all in the second.
        y["a"][:8] = y["a"][15:30] = np.nan
    return x, y


def make_model(synchronized=False):
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(8, use_bias=False, kernel_regularizer="l2")]
    if synchronized:
        stack.append(layers.BatchNormalization(synchronized=True))
    encoder = keras.Sequential([keras.Input((5,)), *stack, layers.ReLU(), layers.Dense(6)])
    return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})


def train(strategy, data, affinity, optimizer="momentum", synchronized=False, dtype="float32"):
    """One device trains eagerly, because tracing takes longer than its few steps."""
    keras.config.set_dtype_policy(dtype)
    try:
        with strategy.scope():
            model = make_model(synchronized)
            model.compile(
                OPTIMIZERS[optimizer](),
                "mse",
                loss_weights={"a": 2.0},
                metrics={"a": ["mae"]},
                affinity=affinity,
                run_eagerly=strategy.num_replicas_in_sync == 1,
            )
    finally:
        keras.config.set_dtype_policy("float32")
    batch_size = math.ceil(len(data[0]) / 6)
    history = model.fit(*data, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
    return model, model.get_affinity(), history.history


def assert_same(one, two, atol=1e-6, rtol=1e-5):
    (model, affinity, history), (other, measured, logs) = one, two
    np.testing.assert_array_equal(measured.count, affinity.count)
    for name in ("mean", "standard_error", "history"):
        np.testing.assert_allclose(
            getattr(measured, name), getattr(affinity, name), atol=atol, err_msg=name
        )
    for value, expected in zip(other.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=atol)
    assert list(logs) == list(history)
    for name in logs:
        np.testing.assert_allclose(logs[name], history[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize(
    ("optimizer", "synchronized", "size"),
    [
        pytest.param("momentum", False, SHORT, marks=pytest.mark.slow),
        pytest.param("momentum", True, WHOLE, marks=pytest.mark.slow),
        pytest.param("adam", False, SHORT, marks=pytest.mark.slow),
        ("adam", True, UNEVEN),
    ],
)
def test_two_replicas_measure_what_one_device_measures(two_replicas, optimizer, synchronized, size):
    options = tag_keras.LookaheadAffinity(every=2, baseline=True)
    results = [
        train(strategy, make_data(size), options, optimizer, synchronized)
        for strategy in (tf.distribute.get_strategy(), two_replicas)
    ]
    assert_same(*results, atol=2e-6)


@pytest.mark.parametrize(
    "options",
    [
        tag_keras.LookaheadAffinity(every=1, update="sgd"),
        pytest.param(tag_keras.FirstOrderAffinity(every=1, baseline=True), marks=pytest.mark.slow),
        pytest.param(tag_keras.CosineAffinity(every=1), marks=pytest.mark.slow),
    ],
    ids=lambda options: type(options).__name__,
)
def test_every_estimator_with_labels_missing(two_replicas, options):
    data = make_data(UNEVEN, missing=True)
    results = [train(one, data, options) for one in (tf.distribute.get_strategy(), two_replicas)]
    assert_same(*results, atol=2e-6)
    assert results[0][1].count[0, 0] == 12 and results[0][1].count[1, 1] == 10


@pytest.mark.parametrize(
    "as_dataset", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["arrays", "dataset"]
)
def test_held_out_data_of_which_the_replicas_get_parts(two_replicas, as_dataset):
    # Batches of 15, as those of the training: with 8 and 7 examples, and labels missing.
    on = make_data(40, missing=True)
    if as_dataset:
        on = tf.data.Dataset.from_tensor_slices(on).batch(15)
    options = tag_keras.LookaheadAffinity(every=1, baseline=True, on=on)
    data = make_data(UNEVEN, missing=True)
    results = [train(one, data, options) for one in (tf.distribute.get_strategy(), two_replicas)]
    assert_same(*results, atol=2e-6)
    assert results[0][1].count[0, 0] == 12 and results[0][1].count[1, 0] == 10


@pytest.mark.parametrize(
    "kind",
    [
        tag_keras.LookaheadAffinity,
        pytest.param(tag_keras.FirstOrderAffinity, marks=pytest.mark.slow),
    ],
)
def test_a_loop_over_the_tasks(two_replicas, monkeypatch, kind):
    options = kind(every=2, baseline=True)
    unrolled = train(tf.distribute.get_strategy(), make_data(WHOLE), options)
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
    assert_same(unrolled, train(two_replicas, make_data(WHOLE), options), atol=2e-6)


def test_many_tasks_are_unrolled_where_a_loop_would_have_to_communicate(two_replicas, monkeypatch):
    # A probe in each step: one function to be traced.
    options = tag_keras.LookaheadAffinity(every=1)
    one_device = tf.distribute.get_strategy()
    expected = train(one_device, make_data(WHOLE), options, synchronized=True)
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
    measured = train(two_replicas, make_data(WHOLE), options, synchronized=True)
    assert_same(expected, measured, atol=2e-6)


@pytest.mark.parametrize(
    "dtype", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(two_replicas, dtype):
    options = tag_keras.LookaheadAffinity(every=10**6)
    exact = train(tf.distribute.get_strategy(), make_data(WHOLE), options)[1].mean
    measured = train(two_replicas, make_data(WHOLE), options, dtype=dtype)[1].mean
    np.testing.assert_allclose(measured, exact, atol=0.02 * np.abs(exact).max())


def test_a_model_is_evaluated_saved_and_loaded_as_on_one_device(two_replicas, tmp_path):
    model, affinity, _ = train(two_replicas, make_data(WHOLE), tag_keras.LookaheadAffinity(every=1))
    model.save(tmp_path / "model.keras")
    # On one device: the file says nothing of where it was trained.
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_affinity().mean, affinity.mean)
    x, y = make_data(SHORT)
    logs = [one.evaluate(x, y, verbose=0, return_dict=True) for one in (model, loaded)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    predictions = [one.predict(x, verbose=0) for one in (model, loaded)]
    for task in TASKS:
        np.testing.assert_allclose(predictions[0][task], predictions[1][task], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"steps_per_execution": 2}, "steps_per_execution=2"),
        ({"jit_compile": True}, "jit_compile=True"),
        (
            {"optimizer": keras.optimizers.SGD(gradient_accumulation_steps=2)},
            "gradient_accumulation_steps=2",
        ),
    ],
)
@pytest.mark.parametrize("affinity", [None, tag_keras.LookaheadAffinity()])
def test_what_keras_cannot_do_with_several_replicas(two_replicas, arguments, received, affinity):
    message = rf"Keras cannot train 2 replicas with {received}\. Leave the argument out, or"
    with two_replicas.scope(), pytest.raises(ValueError, match=message):
        make_model().compile(**{"optimizer": "sgd", "loss": "mse", **arguments}, affinity=affinity)


def test_a_model_made_outside_of_the_scope(two_replicas):
    message = "made outside of the scope of the strategy"
    model = make_model()
    with two_replicas.scope(), pytest.raises(ValueError, match=message):
        model.compile("sgd", "mse")
    model.compile("sgd", "mse")
    with two_replicas.scope(), pytest.raises(ValueError, match=message):
        model.fit(*make_data(WHOLE), verbose=0)


def test_layers_made_outside_of_the_scope(two_replicas):
    encoder = keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    with two_replicas.scope():
        model = tag_keras.MultiTaskModel(encoder, {"a": layers.Dense(1)})
        with pytest.raises(ValueError, match="Make the layers and the model, and compile it"):
            model.compile("sgd", "mse")


def test_a_strategy_whose_replicas_do_not_train_in_step():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["/cpu:0"], "/cpu:0")
    message = "CentralStorageStrategy has no replicas that train in step. Use MirroredStrategy"
    with strategy.scope(), pytest.raises(ValueError, match=message):
        make_model().compile("sgd", "mse")


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_model_that_is_not_built_with_batches_that_do_not_part_evenly(two_replicas, batch_size):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            encoder = layers.Dense(4, "tanh")
            model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
            model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=1))
        history = model.fit(*make_data(9), batch_size=batch_size, shuffle=False, verbose=0).history
        results.append((model.get_affinity().mean, history["loss"]))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
