import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import TASKS, in_batches, make_data, make_deep_model, make_model

import tag_keras
from tag_keras.train_step import ProbeStep

layers = keras.layers


def state(model):
    weights = [v for v in model.weights if "probe_statistics" not in v.path]
    return [v.numpy() for v in [*weights, *model.optimizer.variables]]


def fit(model, epochs=2, batch_size=16, **kwargs):
    return model.fit(
        in_batches(*make_data(), batch_size), epochs=epochs, shuffle=False, verbose=0, **kwargs
    )


# Measuring, which touches the state, is compiled; the plain training need not be. With XLA, which
# draws dropout in its own way, Adam's state is compared in test_held_out_affinity.py.
def test_probes_leave_no_trace_in_training():
    ends, logs = [], []
    options = tag_keras.LookaheadAffinity(every=2, baseline=True)
    for affinity in (None, options):
        model = make_deep_model(regularizer="l2")
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            "mse",
            loss_weights={"a": 2.0},
            metrics={"a": ["mae"]},
            affinity=affinity,
            jit_compile=False,
            run_eagerly=affinity is None,
        )
        validation = in_batches(*make_data(seed=1), 32)
        logs.append(fit(model, batch_size=32, validation_data=validation).history)
        ends.append(state(model))
    for without, with_probes in zip(*ends, strict=True):
        np.testing.assert_allclose(with_probes, without, atol=1e-6)
    assert list(logs[0]) == list(logs[1])
    for name in logs[0]:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-5)


@pytest.mark.slow
def test_probes_leave_no_trace_in_embeddings():
    # Three words, each many times in a batch: Adam's slices of one row.
    words = np.random.default_rng(0).integers(0, 3, (32, 4))
    labels = {task: np.random.default_rng(i).normal(size=32) for i, task in enumerate(TASKS)}
    ends = []
    for affinity in (None, tag_keras.LookaheadAffinity(every=1)):
        keras.utils.set_random_seed(0)
        # Without and with the gradient of a regularizer, which is dense.
        inputs = keras.Input((4,), dtype="int32")
        parts = [layers.Embedding(3, 4), layers.Embedding(3, 4, embeddings_regularizer="l2")]
        features = layers.Concatenate()([part(inputs) for part in parts])
        encoder = keras.Model(inputs, layers.Flatten()(features))
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
        model.compile("adam", "mse", affinity=affinity, run_eagerly=True)
        model.fit(in_batches(words, labels, 16), shuffle=False, verbose=0)
        ends.append(state(model))
    for without, with_probes in zip(*ends, strict=True):
        np.testing.assert_allclose(with_probes, without, atol=1e-6)


def test_training_equals_a_plain_keras_model():
    x, y = make_data()
    model = make_deep_model(dropout=0.0, regularizer="l2")
    inputs = keras.Input((5,))
    twin = make_deep_model(dropout=0.0, regularizer="l2")
    twin = keras.Model(inputs, twin(inputs))
    model(x)
    twin.set_weights(model.get_weights())
    losses, weights = dict.fromkeys(TASKS, "mse"), {"b": 1.0, "a": 2.0, "c": 1.0}
    histories = []
    for one in (model, twin):
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        one.compile(optimizer, losses, weights, run_eagerly=True)
        labels = {task: y[task] for task in TASKS}
        histories.append(
            one.fit(in_batches(x, labels, 32), epochs=2, shuffle=False, verbose=0).history
        )
    assert set(histories[0]) == {"loss", "a_loss", "b_loss", "c_loss"}
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)


def real_step_losses(model, x, y, source):
    """Losses of all tasks after a real step for `source` (None: a zero gradient), then undone."""
    weights, slots = model.get_weights(), [v.numpy() for v in model.optimizer.variables]
    shared = model.encoder.trainable_variables
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        task = source or TASKS[0]
        loss = tf.reduce_mean((y[task][:, None] - predictions[task]) ** 2)
    gradients = tape.gradient(loss, shared)
    if source is None:
        gradients = [gradient * 0 for gradient in gradients]
    model.optimizer.apply(gradients, shared)
    predictions = model(x, training=True)
    losses = [np.mean((y[t][:, None] - predictions[t].numpy()) ** 2) for t in TASKS]
    model.set_weights(weights)
    for variable, value in zip(model.optimizer.variables, slots, strict=True):
        variable.assign(value)
    return np.array(losses)


def probe_by_hand(model, x, y):
    """Affinities without and with the baseline."""
    predictions = model(x, training=True)
    before = np.array([np.mean((y[t][:, None] - predictions[t].numpy()) ** 2) for t in TASKS])
    rows = [1 - real_step_losses(model, x, y, source) / before for source in (*TASKS, None)]
    return np.array(rows[:-1]), np.array(rows[:-1]) - rows[-1]


# 5 batches: probes at steps 0, 2 and 4.
PROBED = make_data(80)


@pytest.fixture(scope="module")
def probes_by_hand():
    """Probes (3, 2, T, T) of a training: without and with the baseline."""
    x, y = PROBED
    oracle = make_deep_model(dropout=0.0)
    oracle(x[:1])
    oracle.compile(keras.optimizers.Adam(0.02), "mse", run_eagerly=True)
    oracle.optimizer.build(oracle.trainable_variables)
    probes = []
    for step in range(5):
        rows = slice(16 * step, 16 * step + 16)
        batch = x[rows], {task: y[task][rows] for task in y}
        if step % 2 == 0:
            weights = oracle.get_weights()
            probes.append(probe_by_hand(oracle, *batch))
            oracle.set_weights(weights)
        oracle.train_on_batch(*batch)
    return np.array(probes)


@pytest.mark.parametrize("baseline", [False, True])
def test_affinities_equal_real_steps_undone(probes_by_hand, baseline):
    model = make_deep_model(dropout=0.0)
    options = tag_keras.LookaheadAffinity(every=2, baseline=baseline)
    model.compile(keras.optimizers.Adam(0.02), "mse", affinity=options, run_eagerly=True)
    model.fit(in_batches(*PROBED, 16), shuffle=False, verbose=0)
    probes = probes_by_hand[:, int(baseline)]
    affinity = model.get_affinity()
    np.testing.assert_allclose(affinity.mean, probes.mean(axis=0), atol=2e-5)
    error = probes.std(axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(affinity.standard_error, error, atol=2e-5)
    np.testing.assert_array_equal(affinity.count, np.full((3, 3), 3))
    assert affinity.tasks == TASKS


def test_affinities_do_not_depend_on_loss_weights_or_regularisers():
    means = []
    for weights, regularizer in ((None, None), ({"a": 5.0}, "l2")):
        model = make_model(regularizer=regularizer)
        options = tag_keras.LookaheadAffinity(every=10**6)
        model.compile("sgd", "mse", loss_weights=weights, affinity=options, run_eagerly=True)
        # Only the first step is probed.
        fit(model, epochs=1, batch_size=48)
        means.append(model.get_affinity().mean)
    np.testing.assert_allclose(means[0], means[1], atol=1e-6)


@pytest.fixture(scope="module")
def measuring():
    """A compiled model, traced once for several tests, its 6 batches, and its probes traced."""
    traced, original = [], ProbeStep.__call__
    model = make_model()
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ProbeStep, "__call__", lambda *given: (traced.append("probe"), original(*given))[1]
        )
        yield model, tf.data.Dataset.from_tensor_slices(make_data()).batch(16), traced


def test_cadence_and_history(measuring):
    model, batches, _ = measuring
    model._statistics.start()
    # 6 steps an epoch: probes at 0, 4 | 8 | 12, 16, and in the second call 20 | 24, 28.
    model.fit(batches, epochs=3, shuffle=False, verbose=0)
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, np.full((3, 3), 8))
    assert affinity.history.shape == (5, 3, 3)
    weighted = np.tensordot([2, 1, 2, 1, 2], affinity.history, axes=1) / 8
    np.testing.assert_allclose(affinity.mean, weighted, atol=1e-7)


def test_fit_chooses_the_compiled_function_in_python(measuring):
    model, batches, traced = measuring
    model._statistics.start()
    model.fit(batches, epochs=2, shuffle=False, verbose=0)
    # Traced once, run several times; a step without a probe never comes here. Data of unknown
    # length, in the next test, are traced anew.
    assert traced == ["probe"]
    np.testing.assert_array_equal(model.get_affinity().count, np.full((3, 3), 3))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_cadence_over_data_of_unknown_length(measuring):
    model, batches, _ = measuring
    model._statistics.start()
    # As above: probes at 0, 4 | 8 | 12, 16. That an epoch has ended shows at its seventh step.
    model.fit(batches.filter(lambda x, y: True), epochs=3, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count, np.full((3, 3), 5))


@pytest.mark.slow
def test_steps_without_a_probe_hold_no_trace_of_it():
    x, y = make_data(16)
    data = (tf.constant(x), {task: tf.constant(y[task]) for task in y})

    def operations(affinity, probes=False):
        model = make_model()
        model.compile("sgd", "mse", affinity=affinity)
        model(x)
        model.optimizer.build(model.trainable_variables)
        step = ProbeStep(model, affinity, model._statistics) if probes else model.train_step
        function = tf.function(lambda data: step(data), autograph=False)
        function = function.get_concrete_function(data)
        return [operation.type for operation in function.graph.get_operations()]

    plain = operations(tag_keras.LookaheadAffinity())
    assert plain == operations(None)
    assert len(plain) < len(operations(tag_keras.LookaheadAffinity(), probes=True))


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_a_plain_step_is_traced_once(steps_per_execution):
    traces = []

    class Counted(layers.Dense):
        def call(self, inputs, training=None):
            traces.append(training)
            return super().call(inputs)

    # The other variables are new: of the heads, the optimizer and the metrics.
    encoder = keras.Sequential([keras.Input(make_data()[0].shape[1:]), Counted(2)])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    optimizer = keras.optimizers.SGD(momentum=0.9)
    model.compile(optimizer, "mse", metrics={"a": ["mae"]}, steps_per_execution=steps_per_execution)
    fit(model, batch_size=32)
    assert traces.count(True) == 1


@pytest.mark.slow
def test_a_step_of_ones_own_and_ragged_inputs_train_as_they_did():
    class Own(tag_keras.MultiTaskModel):
        def train_step(self, data):
            x, y, _, _ = data
            return super().train_step((x, y))

    x, y = make_data()
    encoder = keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(2)])
    model = Own(encoder, {task: layers.Dense(1) for task in TASKS})
    model.compile("sgd", "mse")
    batches = tf.data.Dataset.from_tensors((x, y, x, y))
    assert np.isfinite(model.fit(batches, shuffle=False, verbose=0).history["loss"]).all()

    class ToDense(layers.Layer):
        def call(self, inputs):
            return inputs.to_tensor(shape=(None, 3))

    model = tag_keras.MultiTaskModel(ToDense(), {task: layers.Dense(1) for task in TASKS})
    model.compile("sgd", "mse")
    ragged = tf.RaggedTensor.from_row_lengths(tf.ones(6), [1, 2, 3])
    batches = tf.data.Dataset.from_tensors((ragged, {task: tf.ones(3) for task in TASKS}))
    assert np.isfinite(model.fit(batches, shuffle=False, verbose=0).history["loss"]).all()


@pytest.mark.slow
def test_a_layer_for_training_only_may_come_with_the_first_step():
    class Helped(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.helper = layers.Dense(2), layers.Dense(2)

        def call(self, inputs, training=False):
            found = self.dense(inputs)
            return found + self.helper(inputs) if training else found

    model = tag_keras.MultiTaskModel(Helped(), {task: layers.Dense(1) for task in TASKS})
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    history = fit(model, epochs=1, batch_size=32).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [("a",), ("c", "a", "b")])
def test_logs_for_any_number_of_tasks(tasks):
    model = make_model(tasks)
    metrics = {"metrics": ["mae"], "weighted_metrics": {"a": ["mse"]}}
    # Of one task Keras treats the output apart, in its graphs as well.
    model.compile("sgd", "mse", **metrics, run_eagerly=len(tasks) > 1)
    x, y = make_data()
    batches = in_batches(x, y, 32)
    history = model.fit(batches, validation_data=batches, shuffle=False, verbose=0).history
    names = {"loss", "a_mse", *(f"{t}_loss" for t in tasks), *(f"{t}_mae" for t in tasks)}
    assert set(history) == names | {f"val_{name}" for name in names}
    logs = model.evaluate(batches, verbose=0, return_dict=True)
    assert set(logs) == names
    np.testing.assert_allclose(logs["loss"], sum(logs[f"{t}_loss"] for t in tasks), rtol=1e-5)
    predictions = model.predict(x, verbose=0)
    assert tuple(predictions) == tasks
    errors = {t: np.mean((predictions[t][:, 0] - y[t]) ** 2) for t in tasks}
    for task in tasks:
        np.testing.assert_allclose(logs[f"{task}_loss"], errors[task], rtol=1e-4)


def test_metric_objects_of_a_model_that_is_built_are_logged_once():
    model = make_model()
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, epochs=1, batch_size=96)
    metrics = {"a": [keras.metrics.MeanAbsoluteError()], "b": keras.metrics.MeanAbsoluteError()}
    model.compile("sgd", "mse", metrics=metrics, run_eagerly=True)
    logs = fit(model, batch_size=96).history
    losses = {"loss", *(f"{task}_loss" for task in TASKS)}
    assert set(logs) == losses | {"a_mean_absolute_error", "b_mean_absolute_error"}


def test_names_that_cannot_be_sorted_are_told():
    model = make_model()
    model.compile("sgd", "mse")
    x = np.zeros((4, 8), "float32")
    labels = {1: x[:, 0], **dict.fromkeys(model.tasks, x[:, 0])}
    wanted = "names in a dict should be strings, such as the tasks of the labels.* 'str' and 'int'"
    for action in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=wanted):
            action(x, labels, verbose=0)


def test_sample_weights_by_task():
    model = make_model()
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = make_data()
    y = {task: y[task] for task in TASKS}
    weights = {task: np.random.default_rng(i).uniform(size=96) for i, task in enumerate(TASKS)}
    logs = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    predictions = model.predict(x, verbose=0)
    for task in TASKS:
        error = np.mean(weights[task] * (predictions[task][:, 0] - y[task]) ** 2)
        np.testing.assert_allclose(logs[f"{task}_loss"], error, rtol=1e-4)


@pytest.mark.slow
def test_save_and_load(tmp_path):
    # Without Dropout, whose seeds Keras does not save.
    model = make_model()
    options = tag_keras.LookaheadAffinity(every=2, update="sgd", baseline=True)
    weights = {"a": 2.0}
    model.compile(
        "adam",
        dict.fromkeys(TASKS, "mse"),
        weights,
        {"a": ["mae"]},
        affinity=options,
        run_eagerly=True,
    )
    fit(model, batch_size=48)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    x, y = make_data()
    assert loaded.tasks == TASKS
    predictions = model.predict(x, verbose=0)
    for task, values in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(values, predictions[task])
    for name in ("mean", "standard_error", "count", "history"):
        np.testing.assert_array_equal(
            getattr(loaded.get_affinity(), name), getattr(model.get_affinity(), name)
        )
    # Both go on in the same way, probes and optimizer included.
    for one in (model, loaded):
        keras.utils.set_random_seed(1)
        one.fit(in_batches(x, y, 48), shuffle=False, verbose=0)
    assert (loaded.get_affinity().count == model.get_affinity().count).all()
    np.testing.assert_allclose(loaded.get_affinity().mean, model.get_affinity().mean, atol=1e-6)


@pytest.mark.slow
def test_compile_again_starts_measuring_anew():
    model = make_model()
    for every in (1, 2):
        model.compile(
            "sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=every), run_eagerly=True
        )
        fit(model, epochs=1, batch_size=32)
    np.testing.assert_array_equal(model.get_affinity().count, np.full((3, 3), 2))


def test_early_stopping_and_checkpoints_see_the_logs(tmp_path):
    model = make_model()
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=1), run_eagerly=True)
    callbacks = [
        keras.callbacks.EarlyStopping("val_a_loss", mode="min", patience=0, min_delta=1e9),
        keras.callbacks.ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True),
    ]
    history = fit(
        model, epochs=9, batch_size=48, callbacks=callbacks, validation_data=make_data(seed=1)
    ).history
    assert len(history["loss"]) == 2
    other = make_model()
    other.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=1))
    other(make_data()[0])
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.get_affinity().mean, model.get_affinity().mean)


def test_a_list_of_callbacks_that_is_made_already():
    model = make_model()
    affinity = tag_keras.LookaheadAffinity(every=1, on=make_data(seed=1))
    model.compile("sgd", "mse", affinity=affinity, run_eagerly=True)
    fit(model, batch_size=96, callbacks=keras.callbacks.CallbackList(model=model, add_history=True))
    assert model.get_affinity().history.shape == (2, 3, 3)


@pytest.mark.slow
def test_the_rest_of_the_data_in_a_small_batch_is_not_measured():
    model = make_model()
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=1), run_eagerly=True)
    x, y = make_data(97)
    model.fit(x, y, batch_size=48, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_affinity().count, np.full((3, 3), 4))


@pytest.mark.slow
def test_embeddings_of_integers_through_fit_and_export(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten()]
    )
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    model.compile("adam", "mse", affinity=tag_keras.LookaheadAffinity(every=1), run_eagerly=True)
    x = np.random.default_rng(0).integers(0, 9, size=(96, 4)).astype("int32")
    model.fit(x, make_data()[1], epochs=1, shuffle=False, verbose=0)
    assert (model.get_affinity().count == 3).all()
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    served, expected = loaded.serve(tf.constant(x)), model.predict(x, verbose=0)
    (signature,) = loaded.signatures["serving_default"].structured_input_signature[1].values()
    assert signature.dtype == tf.int32
    for task in TASKS:
        np.testing.assert_allclose(served[task], expected[task], atol=1e-6)


@pytest.mark.slow
def test_an_encoder_may_give_features_by_task():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    shared = layers.Dense(4, activation="relu")(inputs)
    encoder = keras.Model(inputs, {task: layers.Dense(3)(shared) for task in TASKS})
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(every=1), run_eagerly=True)
    fit(model, batch_size=48)
    assert (model.get_affinity().count == 4).all()


def test_probes_of_a_bad_loss_are_left_out_counted_and_reported():
    model = make_model()
    zero = {"a": lambda y, p: 0 * p[:, 0], "b": "mse", "c": "mse"}
    model.compile("sgd", zero, affinity=tag_keras.LookaheadAffinity(every=2), run_eagerly=True)
    with pytest.warns(UserWarning, match=r"left out by target: \{'a': 9\}"):
        fit(model, batch_size=32)
    affinity = model.get_affinity()
    np.testing.assert_array_equal(affinity.count[:, 1], 0)
    np.testing.assert_array_equal(affinity.skipped, 3 * np.array([[0, 1, 0]] * 3))
    assert np.isnan(affinity.mean[:, 1]).all() and np.isfinite(affinity.mean[:, [0, 2]]).all()
