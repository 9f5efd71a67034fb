import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import in_batches

import tag_keras

layers = keras.layers
TASKS = ("b", "a", "c")
from_functional = tag_keras.MultiTaskModel.from_functional


def make_data(size=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5)).astype("float32")
    noise = rng.normal(size=(3, size)).astype("float32")
    return x, {task: x[:, i] + noise[i] for i, task in enumerate(sorted(TASKS))}


def make_functional(seed=0, tasks=TASKS):
    """All tasks are on the trunk, and "a" and "b" on the branch, too."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    trunk = layers.Dense(8, "tanh", name="trunk")(inputs)
    branch = layers.Dense(6, "tanh", name="branch")(trunk)
    sources = {"a": branch, "b": branch, "c": trunk}
    outputs = {task: layers.Dense(1, name=f"head_{task}")(sources[task]) for task in tasks}
    return keras.Model(inputs, outputs, name="network")


def variables_of(model, *names):
    return [variable for name in names for variable in model.get_layer(name).variables]


def same(variables, others):
    return [id(variable) for variable in variables] == [id(other) for other in others]


def fit(model, data=None, **kwargs):
    return model.fit(in_batches(*(data or make_data()), 16), shuffle=False, verbose=0, **kwargs)


def measure_all(model, optimizer=None, run_eagerly=True, **options):
    """Compiles, eagerly because tracing takes longer than a few steps."""
    model.compile(
        optimizer or keras.optimizers.SGD(0.05, momentum=0.9),
        "mse",
        affinity=tag_keras.LookaheadAffinity(every=1, **options),
        run_eagerly=run_eagerly,
    )


def predict(model, x):
    """Predictions in a graph, as those are that they have to equal exactly."""
    model.run_eagerly = False
    return model.predict(x, verbose=0)


@pytest.mark.slow
def test_it_keeps_the_layers_and_the_weights():
    functional = make_functional()
    model = from_functional(functional)
    assert isinstance(model, tag_keras.MultiTaskModel) and model.tasks == TASKS
    assert model.encoder is functional
    assert same(model.trainable_variables, functional.trainable_variables)
    assert same(model.shared_variables, variables_of(functional, "trunk", "branch"))
    measure_all(model)
    fit(model)
    x, _ = make_data()
    predictions = predict(model, x)
    for task, values in functional.predict(x, verbose=0).items():
        np.testing.assert_array_equal(predictions[task], values)


def test_training_equals_that_of_the_functional_model():
    results = []
    for wrap in (lambda model: model, from_functional):
        functional = make_functional()
        model = wrap(functional)
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            dict.fromkeys(TASKS, "mse"),
            loss_weights={"a": 2.0, "b": 1.0, "c": 1.0},
            run_eagerly=True,
        )
        history = fit(model, make_data(16), epochs=2).history
        results.append((functional.get_weights(), history["loss"], history["a_loss"]))
    for one, other in zip(*results, strict=True):
        for expected, value in zip(one, other, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def affinity_of(model):
    """Measured from the weights that the model has; afterwards they are as before."""
    weights = model.get_weights()
    measure_all(model, baseline=True)
    fit(model)
    affinity = model.get_affinity()
    for variable, value in zip(model.weights, weights, strict=False):
        variable.assign(value)
    return affinity


@pytest.mark.slow
def test_affinities_equal_those_of_an_encoder_and_heads_with_the_same_layers():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    trunk = layers.Dense(6, "tanh")(layers.Dense(8, "tanh")(inputs))
    heads = {task: layers.Dense(1) for task in TASKS}
    functional = keras.Model(inputs, {task: head(trunk) for task, head in heads.items()})
    split = tag_keras.MultiTaskModel(keras.Model(inputs, trunk), heads)
    split(make_data()[0])
    model = from_functional(functional)
    assert same(model.shared_variables, split.shared_variables)
    expected, affinity = affinity_of(split), affinity_of(model)
    assert np.abs(expected.mean).max() > 1e-3
    np.testing.assert_allclose(affinity.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(affinity.standard_error, expected.standard_error, atol=1e-6)
    np.testing.assert_array_equal(affinity.count, expected.count)


def losses_of(functional, x, y):
    predictions = functional(x, training=True)
    return np.array([np.mean((y[t][:, None] - predictions[t].numpy()) ** 2) for t in TASKS])


def real_step_losses(functional, optimizer, x, y, source, shared):
    """Losses after a real step for `source` on the shared variables, which is then undone."""
    kept = [(v, v.numpy()) for v in [*functional.variables, *optimizer.variables]]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((y[source][:, None] - functional(x, training=True)[source]) ** 2)
    gradients = tape.gradient(loss, shared)
    # Momentum moves what the task does not touch, too.
    zeros = [tf.zeros_like(variable.value) for variable in shared]
    dense = [zero if g is None else g for g, zero in zip(gradients, zeros, strict=True)]
    optimizer.apply(dense, shared)
    losses = losses_of(functional, x, y)
    for variable, value in kept:
        variable.assign(value)
    return losses, [gradient is None for gradient in gradients]


@pytest.mark.slow
@pytest.mark.parametrize("names", [("trunk", "branch"), ("branch",)])
def test_affinities_equal_real_steps_undone(names):
    x, y = make_data(32)
    functional, model = make_functional(), from_functional(make_functional(), list(names))
    shared = variables_of(functional, *names)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    functional.compile(optimizer, dict.fromkeys(TASKS, "mse"), run_eagerly=True)
    optimizer.build(functional.trainable_variables)
    probes, untouched = [], []
    for start in (0, 16):
        batch = x[start : start + 16], {task: y[task][start : start + 16] for task in TASKS}
        before = losses_of(functional, *batch)
        rows = []
        for source in TASKS:
            after, none = real_step_losses(functional, optimizer, *batch, source, shared)
            rows.append(1 - after / before)
            untouched.append(any(none))
        probes.append(rows)
        functional.train_on_batch(*batch)
    measure_all(model, run_eagerly=len(names) == 1)
    fit(model, (x, y))
    # "c" touches no variable of the branch.
    assert untouched == [task == "c" for task in TASKS] * 2
    np.testing.assert_allclose(model.get_affinity().mean, np.mean(probes, axis=0), atol=2e-6)


def test_what_an_embedding_shares():
    """Its gradient is sparse, and of type tf.IndexedSlices."""
    keras.utils.set_random_seed(0)
    words = keras.Input((4,), dtype="int32")
    embedded = layers.Flatten()(layers.Embedding(9, 3, name="embedding")(words))
    functional = keras.Model(words, {task: layers.Dense(1)(embedded) for task in TASKS})
    model = from_functional(functional)
    assert same(model.shared_variables, variables_of(functional, "embedding"))
    x = np.random.default_rng(0).integers(0, 9, size=(16, 4)).astype("int32")
    y = {task: value[:16] for task, value in make_data()[1].items()}
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(functional.trainable_variables)
    before, rows = losses_of(functional, x, y), []
    for source in TASKS:
        after, _ = real_step_losses(
            functional, optimizer, x, y, source, variables_of(functional, "embedding")
        )
        rows.append(1 - after / before)
    measure_all(model, keras.optimizers.SGD(0.1))
    fit(model, (x, y))
    np.testing.assert_allclose(model.get_affinity().mean, rows, atol=2e-6)


def make_of_two_inputs(structure):
    keras.utils.set_random_seed(0)
    words = keras.Input((3,), dtype="int32", name="words")
    pixels = keras.Input((5,), name="pixels")
    read = layers.Flatten()(layers.Embedding(7, 2, name="embedding")(words))
    seen = layers.Dense(4, "relu", name="seen")(pixels)
    both = layers.Dense(4, "relu", name="both")(layers.Concatenate()([read, seen]))
    outputs = {
        "b": layers.Dense(1)(both),
        "a": layers.Dense(1)(seen),
        "c": layers.Dense(1)(read),
    }
    inputs = {"words": words, "pixels": pixels} if structure is dict else [words, pixels]
    return keras.Model(inputs, outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("structure", [dict, list])
def test_several_inputs_through_fit_save_and_export(structure, tmp_path):
    functional = make_of_two_inputs(structure)
    model = from_functional(functional)
    expected = variables_of(functional, "embedding", "seen")
    assert {id(v) for v in model.shared_variables} == {id(v) for v in expected}
    pixels, y = make_data()
    words = np.random.default_rng(0).integers(0, 7, size=(32, 3)).astype("int32")
    x = {"words": words, "pixels": pixels} if structure is dict else [words, pixels]
    measure_all(model)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert (model.get_affinity().count == 2).all()
    predictions = predict(model, x)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.shared_variables] == [v.path for v in model.shared_variables]
    model.export(tmp_path / "saved", verbose=False)
    exported = tf.saved_model.load(tmp_path / "saved")
    served = exported.serve(keras.tree.map_structure(tf.constant, x))
    loaded_predictions = predict(loaded, x)
    for task in TASKS:
        np.testing.assert_array_equal(loaded_predictions[task], predictions[task])
        np.testing.assert_allclose(served[task], predictions[task], atol=1e-6)


@pytest.mark.parametrize(
    ("shared", "names"),
    [
        ("branch", ["branch"]),
        (["head_a", "trunk"], ["trunk", "head_a"]),
        (lambda model: model.get_layer("trunk"), ["trunk"]),
        (lambda model: model.get_layer("branch").variables, ["branch"]),
        (lambda model: (model.get_layer("trunk"), "branch"), ["trunk", "branch"]),
        (lambda model: model, ["trunk", "branch", "head_a", "head_b", "head_c"]),
    ],
)
def test_the_user_names_what_is_shared(shared, names):
    functional = make_functional()
    model = from_functional(functional, shared(functional) if callable(shared) else shared)
    expected = {id(variable) for variable in variables_of(functional, *names)}
    assert {id(variable) for variable in model.shared_variables} == expected


@pytest.mark.parametrize("shared", [None, "branch"])
def test_save_and_load(shared, tmp_path):
    model = from_functional(make_functional(), shared)
    data = make_data(16)
    measure_all(model)
    fit(model, data)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.tasks == TASKS
    assert [v.path for v in loaded.shared_variables] == [v.path for v in model.shared_variables]
    np.testing.assert_array_equal(loaded.get_affinity().mean, model.get_affinity().mean)
    loaded.run_eagerly = True
    for one in (model, loaded):
        fit(one, data)
    np.testing.assert_allclose(loaded.get_affinity().mean, model.get_affinity().mean, atol=1e-6)
    assert (loaded.get_affinity().count == 2).all()


def enable_lora(functional):
    functional.get_layer("trunk").enable_lora(2)


def quantize(functional):
    functional.get_layer("trunk").quantize("int8")
    enable_lora(functional)


@pytest.mark.slow_cases
@pytest.mark.parametrize("change", [enable_lora, quantize])
@pytest.mark.parametrize("shared", ["trunk", lambda model: model.get_layer("trunk"), None])
def test_what_a_layer_replaces_and_adds_later_is_shared(shared, change, tmp_path):
    names = ["trunk"] if shared else ["trunk", "branch"]

    def choose(functional):
        return shared(functional) if callable(shared) else shared

    functional = make_functional()
    model = from_functional(functional, choose(functional))
    change(functional)
    expected = [v for v in variables_of(functional, *names) if v.trainable]
    assert len(expected) == 2 * len(names) + 1
    assert same(model.shared_variables, expected)
    if shared is None:
        # As if the layers had been changed before the model was made. It has the same variables
        # as a model whose layer was named, so that once is enough.
        other = make_functional()
        change(other)
        other.set_weights(functional.get_weights())
        assert_same_affinity(model, from_functional(other))

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.shared_variables] == [v.path for v in expected]


def assert_same_affinity(model, other):
    one, two = affinity_of(model), affinity_of(other)
    np.testing.assert_allclose(one.mean, two.mean, atol=1e-6)
    assert np.abs(one.mean).max() > 1e-3


def test_a_loaded_model_knows_the_layers_that_were_named(tmp_path):
    functional = make_functional()
    shared = ["trunk", functional.get_layer("branch").kernel]
    from_functional(functional, shared).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    enable_lora(loaded.encoder)
    trunk, branch = (loaded.encoder.get_layer(name) for name in ("trunk", "branch"))
    assert same(loaded.shared_variables, [*trunk.trainable_variables, branch.kernel])


def test_a_choice_of_version_0_1_is_read():
    # Indices of variables: the bias of the trunk, and the kernel of the branch.
    functional = make_functional()
    config = {**from_functional(functional, "trunk").get_config(), "shared": [1, 2]}
    loaded = tag_keras.MultiTaskModel.from_config(config)
    assert same(loaded.shared_variables, loaded.encoder.variables[1:3])


def test_a_model_whose_layers_were_taken_stands_for_them(tmp_path):
    inputs = keras.Input((5,))
    backbone = keras.Model(inputs, layers.Dense(4, name="trunk")(inputs))
    outputs = {task: layers.Dense(1)(backbone.output) for task in TASKS}
    model = from_functional(keras.Model(inputs, outputs), backbone)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.models.load_model(tmp_path / "model.keras")):
        enable_lora(one.encoder)
        assert same(one.shared_variables, one.encoder.get_layer("trunk").trainable_variables)


def test_a_variable_that_is_gone(tmp_path):
    functional = make_functional()
    model = from_functional(functional, [functional.get_layer("trunk").kernel, "branch"])
    functional.get_layer("trunk").quantize("int8")
    message = re.escape(
        "`shared` named ['trunk/kernel'], which the model 'network' no longer has. Name the layer, "
        "which stands for whatever variables it has, and make the multi-task model anew."
    )
    # It can be served all the same.
    model.save(tmp_path / "model.keras")
    for one in (model, keras.models.load_model(tmp_path / "model.keras")):
        with pytest.raises(ValueError, match=f"^{message}$"):
            measure_all(one)


def test_a_choice_that_was_saved_means_the_same_variables_elsewhere(tmp_path):
    # Names such as dense_7 count up in one process, and begin anew in another.
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    inner_inputs = keras.Input((8,))
    inner = keras.Model(inner_inputs, layers.Dense(4)(layers.Dense(6)(inner_inputs)))
    low, high = layers.Dense(8), layers.Dense(8)
    trunk = layers.Add()([low(inputs), high(inputs)])
    features = inner(layers.BatchNormalization()(layers.Dropout(0.1)(trunk)))
    functional = keras.Model(inputs, {task: layers.Dense(1)(features) for task in TASKS})
    chosen = [high, inner.layers[-1].kernel]
    model = from_functional(functional, chosen)
    model.save(tmp_path / "model.keras")
    keras.backend.clear_session()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(model.shared_variables) == 3
    for expected, variable in zip(model.shared_variables, loaded.shared_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_layers_that_encoder_and_heads_have_in_common_can_be_saved(tmp_path):
    # As an encoder and heads that are keras.Sequential each, they would save, but not load.
    inputs, common = keras.Input((5,)), layers.Dense(5, "tanh", name="common")
    trunk = common(layers.Dense(5, name="trunk")(inputs))
    outputs = {"a": layers.Dense(1)(common(trunk)), "b": layers.Dense(1)(trunk)}
    functional = keras.Model(inputs, outputs)
    model = from_functional(functional)
    assert same(model.shared_variables, variables_of(functional, "trunk", "common"))
    measure_all(model)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x, _ = make_data()
    predictions = predict(loaded, x)
    for task, values in predict(model, x).items():
        np.testing.assert_array_equal(predictions[task], values)


@pytest.mark.slow
def test_two_replicas_measure_what_one_device_measures(two_replicas):
    x = np.random.default_rng(0).integers(0, 9, size=(32, 4)).astype("int32")
    y = {task: make_data()[1][task] for task in TASKS}
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            words = keras.Input((4,), dtype="int32")
            embedded = layers.Flatten()(layers.Embedding(9, 3, name="embedding")(words))
            branch = layers.Dense(4, "tanh", name="branch")(embedded)
            outputs = {
                "b": layers.Dense(1)(branch),
                "a": layers.Dense(1)(branch),
                "c": layers.Dense(1)(embedded),
            }
            functional = keras.Model(words, outputs)
            model = from_functional(functional)
            measure_all(model, run_eagerly=strategy is not two_replicas)
        assert same(model.shared_variables, variables_of(functional, "embedding", "branch"))
        history = fit(model, (x, y), epochs=2).history
        results.append((functional.get_weights(), model.get_affinity(), history["loss"]))
    for one, two in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(two, one, atol=1e-6)
    np.testing.assert_allclose(results[1][1].mean, results[0][1].mean, atol=1e-6)
    np.testing.assert_array_equal(results[1][1].count, results[0][1].count)
    np.testing.assert_allclose(results[1][2], results[0][2], rtol=1e-5)


def test_mixed_precision_casts_as_the_functional_model_does():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((1,))
        # 70000 overflows in float16.
        trunk = layers.Rescaling(1e-5, dtype="float32")(inputs)
        trunk = layers.Dense(4, name="trunk")(trunk)
        outputs = {task: layers.Dense(1, dtype="float32")(trunk) for task in TASKS}
        functional = keras.Model(inputs, outputs)
        model = from_functional(functional)
    finally:
        keras.config.set_dtype_policy("float32")
    assert same(model.shared_variables, variables_of(functional, "trunk"))
    x = np.array([[70000.0], [3001.0]], "float32")
    for task, values in functional.predict(x, verbose=0).items():
        predictions = model.predict(x, verbose=0)[task]
        assert predictions.dtype == np.float32 and np.isfinite(predictions).all()
        np.testing.assert_array_equal(predictions, values)


def test_an_encoder_with_parts_of_its_own_for_each_task_shares_the_others():
    functional = make_functional()
    model = tag_keras.MultiTaskModel(functional, {task: layers.Dense(1) for task in TASKS})
    measure_all(model)
    fit(model)
    assert same(model.shared_variables, variables_of(functional, "trunk", "branch"))
    assert (model.get_affinity().count == 2).all()


def with_declared_outputs(**kwargs):
    inputs = keras.Input((5,), **kwargs)
    outputs = {task: layers.Dense(2, name=f"own_{task}")(inputs) for task in TASKS}
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("sparse", [False, True])
def test_what_an_encoder_with_declared_outputs_shares_is_known_before_its_first_call(sparse):
    heads = {task: layers.Dense(1) for task in TASKS}
    functional = make_functional()
    model = tag_keras.MultiTaskModel(functional, heads)
    assert same(model.shared_variables, variables_of(functional, "trunk", "branch"))
    model = tag_keras.MultiTaskModel(with_declared_outputs(sparse=sparse), heads)
    assert model.shared_variables == []
    with pytest.raises(ValueError, match="nothing that a gradient method could combine"):
        model.compile("sgd", "mse", gradient_method=tag_keras.PCGrad())
    with pytest.raises(ValueError, match="nothing that an affinity could be measured on"):
        model.compile("sgd", "mse", affinity=tag_keras.CosineAffinity())
    with pytest.raises(ValueError, match=r"that several tasks train. Name one of \[\]"):
        model.compile("sgd", "mse", loss_weighting=tag_keras.GradNorm("own_a"))
    with pytest.raises(ValueError, match=r"features for every task. Missing: \['d'\]"):
        tag_keras.MultiTaskModel(functional, {**heads, "d": layers.Dense(1)})


@pytest.mark.skipif(not hasattr(keras.KerasTensor((1,)), "ragged"), reason="Keras 3.10 has none.")
def test_what_an_encoder_of_ragged_inputs_shares():
    inputs = keras.Input((None,), dtype="int32", ragged=True)
    features = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(inputs))
    encoder = keras.Model(inputs, dict.fromkeys(TASKS, features))
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    assert len(model.shared_variables) == 1


def test_layers_that_are_frozen_later_are_not_shared():
    functional = make_functional()
    model = from_functional(functional)
    functional.get_layer("trunk").trainable = False
    assert same(model.shared_variables, variables_of(functional, "branch"))
    measure_all(model)
    fit(model)
    assert (model.get_affinity().count == 2).all()
    functional.trainable = False
    with pytest.raises(ValueError, match="no trainable variable that several tasks share"):
        measure_all(model)


def test_one_task_trains_and_has_nothing_to_measure():
    model = from_functional(make_functional(tasks=("a",)))
    assert model.shared_variables == []
    model.compile("sgd", "mse", run_eagerly=True)
    assert set(fit(model).history) == {"loss", "a_loss"}
    with pytest.raises(ValueError, match="no trainable variable that several tasks share"):
        measure_all(model)


def test_models_of_groups_are_put_together(tmp_path):
    grouping = tag_keras.Grouping(
        TASKS, (("a", "b"), ("c",)), {"b": 0, "a": 0, "c": 1}, 0.0, 0.0, True
    )
    models = [from_functional(make_functional(tasks=group)) for group in grouping.groups]
    grouped = tag_keras.GroupedModel(models, grouping)
    grouped.save(tmp_path / "grouped.keras")
    loaded = keras.models.load_model(tmp_path / "grouped.keras")
    x, _ = make_data()
    predictions = loaded.predict(x, verbose=0)
    for task, values in grouped.predict(x, verbose=0).items():
        np.testing.assert_array_equal(predictions[task], values)


class Subclassed(keras.Model):
    def call(self, inputs):
        return {"a": inputs}


def of_outputs(outputs):
    inputs = keras.Input((5,))
    return lambda: from_functional(keras.Model(inputs, outputs(inputs)))


def sharing(shared):
    def run():
        model = make_functional()
        model.get_layer("branch").trainable = False
        from_functional(model, shared(model) if callable(shared) else shared)

    return run


def with_a_name_twice():
    inputs = keras.Input((5,))
    nested = keras.Sequential([keras.Input((5,)), layers.Dense(5, name="trunk")])
    trunk = layers.Dense(5, name="trunk")(nested(inputs))
    from_functional(keras.Model(inputs, {"a": trunk, "b": trunk}), "trunk")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: from_functional(Subclassed()), "`model` should be a Functional model"),
        (lambda: from_functional(layers.Dense(1)), "`model` should be a Functional model"),
        (
            lambda: from_functional(keras.Sequential([layers.Dense(1)])),
            "`model` should be a Functional model",
        ),
        (of_outputs(lambda x: layers.Dense(1)(x)), "'functional.*' should be a dict of one tensor"),
        (of_outputs(lambda x: [layers.Dense(1)(x)] * 2), "should be a dict of one tensor by task"),
        (
            of_outputs(lambda x: {"a": {"b": layers.Dense(1)(x)}}),
            "should be a dict of one tensor by task",
        ),
        (
            of_outputs(lambda x: {"a": layers.Dense(1)(x), "b": layers.Dense(1)(x)}),
            r"The outputs \['a', 'b'\] of the model 'functional.*' share nothing: .* no variable",
        ),
        (sharing([]), r"`shared` should name at least one layer or variable\. .*shared=\[\]"),
        (
            sharing("trunc"),
            r"layers or variables of the model 'network'\. It has the layers \['branch', "
            r".*'trunk'\]\. Received: 'trunc'",
        ),
        (sharing([layers.Dense(1, name="other")]), "It has the layers"),
        (sharing(lambda _: make_functional().variables[0]), "It has the layers"),
        (sharing(3), "Received: 3"),
        (sharing(["trunk", "branch"]), "Set `trainable = True` on it, or leave it out.*'branch'"),
        (
            sharing(lambda model: model.get_layer("branch").kernel),
            "which has no trainable variable",
        ),
        (with_a_name_twice, "`shared` names 2 layers of the model .* Give the layer itself"),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(ValueError, match=message):
        action()
