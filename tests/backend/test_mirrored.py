"""Training and probes on two replicas, against one device with the same batches."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras
from tag_keras.multitask.backward_passes import is_looped

layers = keras.layers
TASKS = ("b", "a")
# Three batches: all of 16; the last one of 11, with 6 examples for one replica and 5 for the other;
# or all of 15, with 8 and 7, which are of one shape to be traced.
WHOLE, SHORT, UNEVEN = 48, 43, 45

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


def make_model(synchronized=False, is_built=True):
    keras.utils.set_random_seed(0)
    # No bias before BatchNorm, where its gradient is 0 but for rounding.
    stack = [layers.Dense(6, use_bias=not synchronized, kernel_regularizer="l2")]
    if synchronized:
        stack.append(layers.BatchNormalization(synchronized=True))
    inputs = [keras.Input((5,))] if is_built else []
    encoder = keras.Sequential([*inputs, *stack, layers.ReLU()])
    return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})


def train(
    strategy,
    data,
    affinity,
    optimizer="momentum",
    synchronized=False,
    dtype="float32",
    epochs=2,
    batches=3,
    is_built=True,
):
    """One device trains eagerly, because tracing takes longer than its few steps."""
    keras.config.set_dtype_policy(dtype)
    try:
        with strategy.scope():
            model = make_model(synchronized, is_built)
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
    batch_size = math.ceil(len(data[0]) / batches)
    history = model.fit(*data, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "synchronized", "size"),
    [
        # Whole batches are in the test of a loop.
        ("momentum", False, SHORT),
        ("adam", True, UNEVEN),
    ],
)
def test_two_replicas_measure_what_one_device_measures(
    two_replicas, monkeypatch, optimizer, synchronized, size
):
    options = tag_keras.LookaheadAffinity(every=2, baseline=True)
    data = make_data(size, missing=size == UNEVEN)
    expected = train(tf.distribute.get_strategy(), data, options, optimizer, synchronized)
    if synchronized:
        # Too many tasks to be unrolled; but a loop over them could not synchronise.
        monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
    measured = train(two_replicas, data, options, optimizer, synchronized)
    with two_replicas.scope():
        assert not is_looped(measured[0])
    assert_same(expected, measured, atol=2e-6)


# Lookaheads measure with labels missing above, and with plain SGD on held-out data below.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "most_unrolled"),
    [
        (tag_keras.FirstOrderAffinity(every=1, baseline=True), 0),
        (tag_keras.CosineAffinity(every=1), 2),
        (tag_keras.FeatureAffinity(every=1), 2),
    ],
    ids=["first order in a loop", "cosine", "features"],
)
def test_estimators_without_lookaheads_and_with_labels_missing(
    two_replicas, monkeypatch, options, most_unrolled
):
    data = make_data(UNEVEN, missing=True)
    unrolled = train(tf.distribute.get_strategy(), data, options)
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", most_unrolled)
    measured = train(two_replicas, data, options)
    with two_replicas.scope():
        assert is_looped(measured[0]) == (most_unrolled == 0)
    assert_same(unrolled, measured, atol=2e-6)
    assert unrolled[1].count[0, 0] == 6 and unrolled[1].count[1, 1] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("as_dataset", "update"),
    [(False, "sgd"), (True, "optimizer")],
    ids=["arrays", "dataset"],
)
def test_held_out_data_of_which_the_replicas_get_parts(two_replicas, as_dataset, update):
    # Batches of 15, as in the training: with 8 and 7 examples, and labels missing. The model is not
    # built before the batches show the shapes.
    on = make_data(40, missing=True)
    if as_dataset:
        on = tf.data.Dataset.from_tensor_slices(on).batch(15)
    options = tag_keras.LookaheadAffinity(every=1, update=update, baseline=True, on=on)
    data = make_data(UNEVEN, missing=True)
    strategies = (tf.distribute.get_strategy(), two_replicas)
    results = [train(one, data, options, is_built=False) for one in strategies]
    assert_same(*results, atol=2e-6)
    assert results[0][1].count[0, 0] == 6 and results[0][1].count[1, 0] == 4


@pytest.fixture(scope="module")
def looped(two_replicas):
    """A training on two replicas with a loop over the tasks."""
    # A probe in each step: one function to be traced.
    options = tag_keras.LookaheadAffinity(every=1, baseline=True)
    with pytest.MonkeyPatch.context() as patch, two_replicas.scope():
        patch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
        assert is_looped(make_model())
        return train(two_replicas, make_data(WHOLE), options)


@pytest.mark.slow
def test_a_loop_over_the_tasks(looped):
    options = tag_keras.LookaheadAffinity(every=1, baseline=True)
    unrolled = train(tf.distribute.get_strategy(), make_data(WHOLE), options)
    assert_same(unrolled, looped, atol=2e-6)


@pytest.mark.slow
def test_mixed_precision(two_replicas):
    # One step, before which all weights are the same.
    step = {"data": make_data(16), "affinity": tag_keras.LookaheadAffinity(), "epochs": 1}
    exact = train(tf.distribute.get_strategy(), **step, batches=1)[1].mean
    measured = train(two_replicas, **step, batches=1, dtype="mixed_float16")[1].mean
    np.testing.assert_allclose(measured, exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.slow
def test_a_model_is_evaluated_saved_and_loaded_as_on_one_device(looped, tmp_path):
    model, affinity, _ = looped
    model.save(tmp_path / "model.keras")
    # On one device: the file says nothing of where it was trained.
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
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


class Spare(layers.Layer):
    """Has a layer that is never called, and so never built."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = layers.Dense(3), layers.Dense(3)

    def call(self, inputs):
        return self.used(inputs)


# Keras says so, too, and goes on.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unbuilt state:UserWarning")
def test_an_encoder_with_a_layer_that_is_never_built(two_replicas):
    x, y = make_data(16)
    means = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = tag_keras.MultiTaskModel(Spare(), {task: layers.Dense(1) for task in TASKS})
            options = {"run_eagerly": strategy is not two_replicas}
            model.compile("sgd", "mse", affinity=tag_keras.CosineAffinity(every=1), **options)
        model.fit(x, y, batch_size=16, verbose=0)
        means.append(model.get_affinity().mean)
    np.testing.assert_allclose(*means, atol=1e-6)


@pytest.mark.slow
def test_a_model_that_is_not_built_with_batches_of_one_example(two_replicas):
    # Batches of 15 are in the test of held-out data.
    data, options = make_data(3), tag_keras.LookaheadAffinity(every=1)
    strategies = (tf.distribute.get_strategy(), two_replicas)
    results = [train(one, data, options, is_built=False) for one in strategies]
    assert_same(*results, atol=2e-6)


class MovingScale(keras.losses.Loss):
    """Squared errors by their moving mean."""

    def __init__(self):
        super().__init__(reduction="sum_over_batch_size")
        self.scale = keras.Variable(1.0, trainable=False, aggregation="mean")

    def call(self, y_true, y_pred):
        errors = keras.ops.mean((y_true - y_pred) ** 2, axis=-1)
        self.scale.assign(0.9 * self.scale + 0.1 * keras.ops.mean(errors))
        return errors / self.scale


class Counter(layers.Layer):
    """Counts its calls in a `tf.Variable`."""

    def build(self, shape):
        self.calls = tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.MEAN)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


def make_with(two_replicas, stack=(), loss="mse"):
    with two_replicas.scope():
        encoder = keras.Sequential([keras.Input((5,)), *stack, layers.Dense(3)])
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
        loss = loss if isinstance(loss, str) else loss()
        model.compile("sgd", loss, affinity=tag_keras.LookaheadAffinity(every=1))
    return model, loss


@pytest.mark.slow
def test_a_probe_does_not_move_the_state_of_a_loss(two_replicas):
    model, loss = make_with(two_replicas, loss=MovingScale)
    x, y = make_data(16)
    y = {task: values[:, None] for task, values in y.items()}
    # One step, in which the loss is called once for each task.
    expected = 1.0
    for task, predicted in model.predict(x, batch_size=16, verbose=0).items():
        expected = 0.9 * expected + 0.1 * np.mean((y[task] - predicted) ** 2)
    model.fit(x, y, batch_size=16, verbose=0)
    assert abs(expected - 1) > 0.01
    assert loss.scale.numpy() == pytest.approx(expected, abs=1e-6)
    assert (model.get_affinity().count == 1).all()


def test_a_variable_that_a_probe_could_not_set_back_on_the_replicas_is_refused(two_replicas):
    message = (
        "changes variables or random generators that Keras does not know, .* several replicas. "
        r"Make them with `add_weight\(trainable=False\)`"
    )
    with two_replicas.scope():
        counter = Counter()
    model, _ = make_with(two_replicas, [counter])
    with pytest.raises(ValueError, match=message):
        model.fit(*make_data(16), batch_size=16, verbose=0)
