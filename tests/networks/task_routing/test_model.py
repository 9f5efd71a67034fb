import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from restarts import restart, start_of
from small_models import in_batches

import tag_keras

TASKS = ("b", "a", "c")


def make_trunk(num_tasks=3, width=8, dtype=None):
    """Without convolutions, so that it is traced in no time."""
    inputs, task_ids = keras.Input((4,)), keras.Input((), dtype="int32")
    x = keras.layers.Dense(width, dtype=dtype)(inputs)
    x = tag_keras.TaskRouting(num_tasks, seed=0, dtype=dtype)(x, task_ids)
    return keras.Model([inputs, task_ids], keras.layers.ReLU(dtype=dtype)(x))


def make_model(num_tasks=3, optimizer=None, loss="mse", sampling="one", metrics=None, **kwargs):
    random.seed(0)
    tasks = TASKS if num_tasks == 3 else [f"t{i}" for i in range(num_tasks)]
    trunk = make_trunk(num_tasks, 8 if num_tasks == 3 else 700)
    model = tag_keras.TaskRoutingModel(trunk, tasks, sampling=sampling, seed=1)
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss, metrics, **kwargs)
    return model


# Few steps are made sooner than a graph of them.
EAGER = {"run_eagerly": True}


@pytest.fixture(scope="module")
def traced_models():
    """By options, a model whose steps are traced once for all tests, and how it begins."""
    return {}


@pytest.fixture
def traced(traced_models):
    def model_of(**options):
        key = tuple(sorted(options.items()))
        if key not in traced_models:
            model = make_model(metrics=["mae"], **options)
            traced_models[key] = model, start_of(model)
        return restart(*traced_models[key])

    return model_of


def make_data(size=16, num_tasks=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 4)).astype("float32")
    return x, rng.normal(size=(size, num_tasks)).astype("float32")


def step(model, x, y, weights=None):
    """Makes a step with a batch; always with weights, because a graph is traced with or without."""
    weights = np.ones_like(y) if weights is None else weights
    return model.train_on_batch(x, y, sample_weight=weights, return_dict=True)


def values(model):
    return [variable.numpy() for variable in model.trainable_variables]


def after_a_step(model, tasks, x, y):
    """Values after gradient descent with 0.1 on the mean of the losses of `tasks`, by hand."""
    with tf.GradientTape() as tape:
        losses = []
        for task in tasks:
            features = model.trunk([x, np.full(len(x), task)], training=True)
            prediction = features @ model.head.kernel[task] + model.head.bias[task]
            losses.append(tf.reduce_mean(tf.square(prediction[:, 0] - y[:, task])))
        loss = tf.add_n(losses) / len(tasks)
    variables = model.trainable_variables
    gradients = [tf.convert_to_tensor(one) for one in tape.gradient(loss, variables)]
    return float(loss), [v.numpy() - 0.1 * g for v, g in zip(variables, gradients, strict=True)]


def changed(model, before):
    """The tasks whose heads have moved."""
    moved = model.head.bias.numpy() != before
    return np.flatnonzero(moved.any(axis=1)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_is_one_of_the_task_that_was_drawn(traced, jit_compile):
    model, (x, y) = traced(jit_compile=jit_compile), make_data()
    candidates = [after_a_step(model, [task], x, y) for task in range(3)]
    before = model.head.bias.numpy()
    loss = step(model, x, y)["loss"]
    (task,) = changed(model, before)
    np.testing.assert_allclose(loss, candidates[task][0], rtol=1e-5)
    for value, expected in zip(values(model), candidates[task][1], strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_for_all_tasks_follows_the_mean_of_their_losses(jit_compile):
    model, (x, y) = make_model(sampling="all", jit_compile=jit_compile), make_data()
    loss, expected = after_a_step(model, range(3), x, y)
    logs = step(model, x, y)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    for value, one in zip(values(model), expected, strict=True):
        np.testing.assert_allclose(value, one, atol=1e-6)


def test_a_step_uses_the_channels_of_its_task_alone(traced):
    model, (x, y) = traced(jit_compile=False), make_data()
    kernel, before = model.trunk.trainable_variables[0], values(model)[0]
    bias = model.head.bias.numpy()
    step(model, x, y)
    (task,) = changed(model, bias)
    (mask,) = (v.numpy() for v in model.trunk.variables if v.name == "mask")
    moved = (kernel.numpy() != before).any(axis=0)
    assert moved.any()
    assert not moved[mask[task] == 0].any()


def drawn(model, steps):
    batch = tf.zeros([1, 3]), tf.ones([1, 3])
    sample = tf.function(lambda: model._sampled_tasks(*batch)[0], autograph=False)
    ids = [int(sample()) for _ in range(steps)]
    assert set(ids) <= {0, 1, 2}
    return ids


def test_every_task_is_as_likely_to_be_drawn(traced):
    ids = drawn(traced(jit_compile=False), 600)
    # A deviation of sqrt(600 * 1/3 * 2/3) = 11.5.
    np.testing.assert_allclose(np.bincount(ids), 200, atol=40)
    assert drawn(traced(jit_compile=False), 20) == ids[:20]
    other = tag_keras.TaskRoutingModel(make_trunk(), TASKS, seed=2)
    assert drawn(other, 20) != ids[:20]


@pytest.mark.slow
def test_a_loaded_model_draws_what_would_have_come(traced, tmp_path):
    ids = drawn(traced(jit_compile=False), 20)
    model, (x, y) = traced(jit_compile=False), make_data()
    batches = in_batches(x, y, 4)
    model.fit(batches, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert drawn(loaded, 16) == ids[4:]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    # It is compiled, and trains on.
    loaded.run_eagerly = True
    loaded.fit(batches, shuffle=False, verbose=0)
    assert loaded.optimizer.iterations == 8


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    x, y = make_data()
    ends = []
    for epochs in ([3], [2, 3]):
        for last in epochs:
            model = make_model(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), **EAGER)
            folder = tmp_path / str(len(epochs))
            backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
            data = in_batches(x, y, 8)
            model.fit(data, epochs=last, shuffle=False, callbacks=[backup], verbose=0)
        ends.append(values(model))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_predictions_are_those_of_a_loop_over_the_tasks(traced):
    model, (x, _) = traced(jit_compile=False), make_data()
    predictions = model.predict(x, batch_size=5, verbose=0)
    assert predictions.shape == (16, 3, 1)
    for task in range(3):
        features = model.trunk([x, np.full(16, task)])
        expected = features @ model.head.kernel[task] + model.head.bias[task]
        np.testing.assert_allclose(predictions[:, task], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(x, training=True), predictions, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_evaluation_is_over_all_tasks_and_the_labels_present(traced):
    # Numbers of NumPy: the mean of each task over its labels; the metric over all labels.
    model, (x, y) = traced(jit_compile=False), make_data()
    y[:4, 0] = np.nan
    logs = model.evaluate(x, y, batch_size=16, return_dict=True, verbose=0)
    errors = model.predict(x, verbose=0)[..., 0] - y
    assert list(logs) == ["loss", "mae", "b_loss", "a_loss", "c_loss"]
    by_task = np.nanmean(errors**2, axis=0)
    np.testing.assert_allclose([logs[f"{task}_loss"] for task in TASKS], by_task, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], by_task.mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["mae"], np.nanmean(np.abs(errors)), rtol=1e-5)
    # In batches, the losses of the tasks are still means over their labels.
    listed = model.evaluate(x, y, batch_size=8, verbose=0)
    np.testing.assert_allclose(listed[2:], by_task, rtol=1e-5)
    history = model.fit(x, y, validation_data=(x, y), shuffle=False, verbose=0).history
    assert {"loss", "mae", "val_loss", "val_mae", "val_a_loss"} <= set(history)
    assert "a_loss" not in history


def test_metrics_of_classification_count_the_labels_of_all_tasks():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    random.seed(0)
    model = tag_keras.TaskRoutingModel(make_trunk(), TASKS, units=4)
    model.compile("sgd", loss, metrics=["accuracy"], **EAGER)
    x = make_data()[0]
    y = np.random.default_rng(1).integers(0, 4, (16, 3))
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    predictions = model.predict(x, verbose=0)
    assert predictions.shape == (16, 3, 4)
    accuracy = np.mean(predictions.argmax(-1) == y)
    np.testing.assert_allclose(logs["accuracy"], accuracy, rtol=1e-6)


@pytest.mark.parametrize("missing", ["label", "weight"])
def test_missing_labels_add_nothing(missing):
    # What a step does with the labels left must not depend on the others.
    x, y = make_data()
    model = make_model(sampling="all", **EAGER)
    start, ends = start_of(model), []
    for garbage in (100.0, np.nan if missing == "label" else -100.0):
        labels, weights = y.copy(), np.ones_like(y)
        weights[:4] = 0
        labels[:4] = garbage
        restart(model, start)
        model.fit(x, labels, sample_weight=weights, batch_size=16, shuffle=False, verbose=0)
        ends.append(values(model))
    restart(model, start)
    model.fit(x[4:], y[4:], batch_size=16, shuffle=False, verbose=0)
    for one, other, expected in zip(*ends, values(model), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("missing", ["label", "weight"])
def test_tasks_without_labels_in_the_batch_are_not_drawn(traced, missing, jit_compile):
    model, (x, y) = traced(jit_compile=jit_compile), make_data()
    weights = np.ones_like(y)
    if missing == "label":
        y[:, 1] = np.nan
        # One label is enough.
        y[:-1, 2] = np.nan
    else:
        weights[:, 1] = weights[:-1, 2] = 0
    seen = set()
    for _ in range(20):
        before = model.head.bias.numpy()
        step(model, x, y, weights)
        (task,) = changed(model, before)
        seen.add(task)
    assert seen == {0, 2}


def test_a_batch_without_labels_moves_nothing(traced):
    model, (x, y) = traced(jit_compile=False), make_data()
    before = values(model)
    step(model, x, np.full_like(y, np.nan))
    for value, was in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(value, was)


def test_labels_by_task_equal_an_array():
    x, y = make_data()
    model = make_model(metrics=["mae"], **EAGER)
    start, ends = start_of(model), []
    for labels in (y, {task: y[:, i] for i, task in enumerate(TASKS)}):
        restart(model, start)
        model.fit(in_batches(x, labels, 4), shuffle=False, verbose=0)
        ends.append(values(model))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def operations(model, step, num_tasks):
    """Operations of a graph and of the functions that it calls, such as bodies of loops."""
    model.optimizer.build(model.trainable_variables)
    specs = tf.TensorSpec((None, 4)), tf.TensorSpec((None, num_tasks))
    function = tf.function(lambda x, y: step((x, y)), autograph=False)
    graph = function.get_concrete_function(*specs).graph.as_graph_def()
    return len(graph.node) + sum(len(one.node_def) for one in graph.library.function)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["one", "all"])
def test_the_graph_has_the_same_size_for_2_and_for_312_tasks(sampling):
    # 312 are the attributes of the birds of Caltech-UCSD, on which the paper trains. The step of
    # an evaluation does not depend on the sampling.
    sizes = []
    for num_tasks in (2, 312):
        model = make_model(num_tasks, "adam", sampling=sampling, metrics=["mae"])
        steps = (model.train_step, model.test_step)[: 2 if sampling == "one" else 1]
        sizes.append([operations(model, step, num_tasks) for step in steps])
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_several_steps_in_one_execution_draw_anew(traced):
    model, (x, y) = make_model(steps_per_execution=4), make_data()
    before = model.head.bias.numpy()
    model.fit(in_batches(x, y, 4), shuffle=False, verbose=0)
    assert changed(model, before) == sorted(set(drawn(traced(jit_compile=False), 4)))


def test_it_is_exported(traced, tmp_path):
    model, (x, _) = traced(jit_compile=False), make_data()
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(
        served.serve(tf.constant(x)), model.predict(x, verbose=0), rtol=1e-5, atol=1e-7
    )


def test_mixed_precision_trains():
    trunk = make_trunk(dtype="mixed_float16")
    model = tag_keras.TaskRoutingModel(trunk, TASKS)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model.compile(optimizer, "mse", **EAGER)
    before = values(model)
    x, y = make_data()
    model.fit(in_batches(x, y, 4), shuffle=False, verbose=0)
    assert all((now != was).any() for now, was in zip(values(model), before, strict=True))
    assert model(x).dtype == "float32"


def test_regularizers_are_part_of_the_loss():
    model, (x, y) = make_model(**EAGER), make_data()
    plain = model.evaluate(x, y, batch_size=16, verbose=0)[0]
    model.trunk.layers[1].kernel.regularizer = keras.regularizers.L2(0.5)
    model.compile("sgd", "mse", **EAGER)
    penalty = 0.5 * np.sum(model.trunk.trainable_variables[0].numpy() ** 2)
    with_penalty = model.evaluate(x, y, batch_size=16, verbose=0)[0]
    np.testing.assert_allclose(with_penalty, plain + penalty, rtol=1e-5)


@pytest.mark.slow
def test_a_strategy_of_one_device_is_supported_and_several_replicas_are_refused(two_replicas):
    # Keras then builds the metrics ahead, from the labels and predictions of all tasks.
    x, y = make_data()
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = make_model(metrics=["mae"])
        model.fit(in_batches(x, y, 4), shuffle=False, verbose=0)
    message = (
        "TaskRoutingModel trains on one device. For several, use MultiTaskModel with "
        "task_routing_encoder. Received: replicas=2"
    )
    with two_replicas.scope(), pytest.raises(ValueError, match=message):
        make_model()


def test_arguments_that_do_not_fit_are_errors():
    message = r"`trunk` should be a Functional model from \[inputs, task ids\]"
    with pytest.raises(ValueError, match=message):
        tag_keras.TaskRoutingModel(keras.layers.Dense(1), TASKS)
    with pytest.raises(ValueError, match=r"`tasks` should name as many tasks as `trunk` routes"):
        tag_keras.TaskRoutingModel(make_trunk(), ["a", "b"])
    with pytest.raises(ValueError, match='`sampling` should be "one" or "all"'):
        tag_keras.TaskRoutingModel(make_trunk(), TASKS, sampling="two")
    with pytest.raises(ValueError, match=r"`units` should be at least 1\. Received: units=0"):
        tag_keras.TaskRoutingModel(make_trunk(), TASKS, units=0)
    with pytest.raises(ValueError, match="`seed` should be an integer from 0 on"):
        tag_keras.TaskRoutingModel(make_trunk(), TASKS, seed=-1)
    message = "`loss` should be one loss, and `metrics` a list, for all tasks alike. For tasks of"
    for arguments in (
        {"loss": {"a": "mse"}},
        {"loss": None},
        {"loss": ()},
        {"metrics": "mae"},
        {"metrics": {"a": ["mae"]}},
        {"loss_weights": {"a": 1.0}},
        {"weighted_metrics": ["mae"]},
    ):
        with pytest.raises(ValueError, match=message):
            make_model(**arguments)
    model, (x, y) = make_model(), make_data()
    with pytest.raises(ValueError, match=r"Labels should be an array \(B, 3, \.\.\.\), or a dict"):
        model.fit(x, y[:, :2], shuffle=False, verbose=0)
