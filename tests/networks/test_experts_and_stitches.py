"""Encoders of equal layers side by side: mixtures of experts, and cross-stitch networks."""

import contextlib
import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tag_keras

layers = keras.layers
TASKS = ("b", "a", "c")
# By name, an encoder for any layers: three experts, one and two for all, and two parts.
ENCODERS = {
    "mmoe": lambda tasks, inputs, build: tag_keras.mmoe_encoder(tasks, inputs, build, 3),
    "cgc": lambda tasks, inputs, build: tag_keras.cgc_encoder(tasks, inputs, build, 2, 2),
    "ple": lambda tasks, inputs, build: tag_keras.ple_encoder(tasks, inputs, [build, build]),
    "cross_stitch": lambda tasks, inputs, build: tag_keras.cross_stitch_encoder(
        tasks, inputs, [build, build]
    ),
}
of_each = pytest.mark.parametrize("name", ENCODERS)


def dense():
    return layers.Dense(3, "tanh")


def convolutions():
    """Of a user, with names that are the same in each."""
    return keras.Sequential(
        [layers.Conv2D(3, 3, padding="same", name="mine"), layers.ReLU()], name="mine"
    )


def inputs(shape=(6, 4), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def labels(size=6, missing=False):
    rng = np.random.default_rng(1)
    known = {task: rng.normal(size=size).astype("float32") for task in TASKS}
    if missing:
        for task, row in zip(TASKS, known.values(), strict=True):
            row[TASKS.index(task) :: 3] = np.nan
    return known


def make_model(name, tasks=TASKS, shape=(4,), build=dense):
    random.seed(0)
    encoder = ENCODERS[name](tasks, shape, build)
    parts = [] if len(encoder.output[tasks[0]].shape) == 2 else [layers.Flatten]
    heads = {
        task: keras.Sequential([*(part() for part in parts), layers.Dense(1, dtype="float32")])
        for task in tasks
    }
    return tag_keras.MultiTaskModel(encoder, heads)


def recorded(name, tasks=TASKS):
    """An encoder with random weights, its dense layers and its other layers as they were made."""
    made = []

    def build():
        made.append(dense())
        return made[-1]

    encoder = ENCODERS[name](tasks, (4,), build)
    rng = np.random.default_rng(2)
    encoder.set_weights([rng.normal(size=weights.shape) for weights in encoder.get_weights()])
    others = [one for one in encoder.layers if one.weights and one not in made]
    # Keras numbers the names of its layers.
    others.sort(key=lambda layer: int("0" + re.sub(r"\D", "", layer.name)))
    return encoder, made, others


def applied(layer, x):
    kernel, bias = layer.get_weights()
    return np.tanh(x @ kernel + bias)


def gated(gate, x, experts):
    """Ma et al. 2018, eq. 6 and 7: experts weighted by the softmax of a linear layer."""
    (kernel,) = gate.get_weights()
    exponentials = np.exp(x @ kernel)
    weights = exponentials / exponentials.sum(axis=1, keepdims=True)
    return sum(weights[:, [index]] * expert for index, expert in enumerate(experts))


def by_formula(name, x, made, others):
    """The features of three tasks, by the formulas of the papers."""
    if name == "mmoe":
        experts = [applied(layer, x) for layer in made]
        return [gated(gate, x, experts) for gate in others]
    if name == "cgc":
        experts = [applied(layer, x) for layer in made]
        own, common = (experts[:2], experts[2:4], experts[4:6]), experts[6:]
        return [gated(gate, x, [*own[task], *common]) for task, gate in enumerate(others)]
    if name == "ple":
        first = [applied(layer, x) for layer in made[:4]]
        # The gate of all, and then those of the tasks.
        shared = gated(others[0], x, first)
        seen = [gated(others[1 + task], x, [first[task], first[3]]) for task in range(3)]
        last = [applied(made[4 + task], seen[task]) for task in range(3)]
        common = applied(made[7], shared)
        return [gated(others[4 + task], seen[task], [last[task], common]) for task in range(3)]
    features = [x] * 3
    for part in range(2):
        outputs = [applied(made[3 * part + task], features[task]) for task in range(3)]
        # Misra et al. 2016, eq. 1: a weight for each task and channel.
        mixing = [others[3 * part + task].get_weights()[0] for task in range(3)]
        features = [sum(a * one for a, one in zip(rows, outputs, strict=True)) for rows in mixing]
    return features


@of_each
def test_the_features_equal_their_formula(name):
    encoder, made, others = recorded(name)
    features = encoder(inputs())
    assert list(features) == list(TASKS)
    for task, expected in zip(TASKS, by_formula(name, inputs(), made, others), strict=True):
        np.testing.assert_allclose(features[task], expected, rtol=1e-4, atol=1e-5)


@of_each
def test_what_the_tasks_share(name):
    encoder, made, others = recorded(name)
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})
    model(inputs())
    shared = {
        "mmoe": made,
        "cgc": made[6:],
        # All of the first level reaches the experts of all of the last one.
        "ple": [*made[:4], *others[:1], *made[7:]],
        # All but the last units.
        "cross_stitch": [*made, *others[:3]],
    }[name]
    expected = {id(variable) for layer in shared for variable in layer.variables}
    assert {id(variable) for variable in model.shared_variables} == expected


def test_a_unit_starts_with_most_of_the_tasks_own_features():
    x = [inputs((2, 5, 3), seed) for seed in range(3)]
    unit = tag_keras.CrossStitch(task=1, same_task=0.9)
    # The two others have 0.05 each.
    np.testing.assert_allclose(unit(x), 0.9 * x[1] + 0.05 * (x[0] + x[2]), rtol=1e-5, atol=1e-6)
    assert unit.mixing.shape == (3, 3)
    again = tag_keras.CrossStitch.from_config(unit.get_config())
    assert (again.task, again.same_task) == (1, 0.9)
    np.testing.assert_allclose(tag_keras.CrossStitch(0)(x[:1]), x[0], rtol=1e-6)


def test_a_gate_sees_the_mean_of_an_image_or_a_sequence():
    def twice():
        return layers.Rescaling(next(scales))

    scales = iter((1.0, 2.0))
    encoder = tag_keras.mmoe_encoder(["a"], (None, 3), twice, num_experts=2)
    x = inputs((2, 5, 3))
    (gate,) = [layer for layer in encoder.layers if layer.weights]
    experts = [x.reshape(2, -1), 2 * x.reshape(2, -1)]
    expected = gated(gate, x.mean(axis=1), experts).reshape(2, 5, 3)
    np.testing.assert_allclose(encoder(x)["a"], expected, rtol=1e-4, atol=1e-6)


def test_a_gate_leaves_padded_steps_out_and_hands_on_the_mask():
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.Model(tokens, layers.Embedding(9, 4, mask_zero=True)(tokens))
    scales = iter((1.0, 2.0))
    encoder = tag_keras.mmoe_encoder(["a"], embedded, lambda: layers.Rescaling(next(scales)), 2)
    (gate,) = [layer for layer in encoder.layers if isinstance(layer, tag_keras.ExpertGate)]
    words = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7], [0, 0, 0, 0, 0]])
    x = embedded(words).numpy()
    # Of two words, of five, and of none, where both experts have a weight of 0.5.
    seen = np.stack([x[0, :2].mean(axis=0), x[1].mean(axis=0), np.zeros(4)])
    experts = [x.reshape(3, -1), 2 * x.reshape(3, -1)]
    features = encoder(words)["a"]
    expected = gated(gate, seen, experts).reshape(3, 5, 4)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
    pooled = keras.Model(tokens, layers.GlobalAveragePooling1D()(encoder(tokens)["a"]))
    means = np.stack([expected[0, :2].mean(axis=0), expected[1].mean(axis=0)])
    np.testing.assert_allclose(pooled(words[:2]), means, rtol=1e-4, atol=1e-6)


def test_a_mask_of_the_steps_counts_all_that_a_step_holds():
    x, expert = inputs((2, 3, 2, 4)), inputs((2, 5))
    gate = tag_keras.ExpertGate()
    gate([x, expert, 2 * expert])
    mask = np.array([[True, False, False], [True, True, False]])
    seen = np.stack([x[0, 0].mean(axis=0), x[1, :2].mean(axis=(0, 1))])
    found = gate([x, expert, 2 * expert], mask=[mask, None, None])
    np.testing.assert_allclose(found, gated(gate, seen, [expert, 2 * expert]), rtol=1e-4)


def test_stitched_networks_keep_their_mask():
    x = keras.Input((5, 4))
    masked = layers.Masking()(x)
    stitched = tag_keras.CrossStitch(0)([masked, masked])
    pooled = keras.Model(x, layers.GlobalAveragePooling1D()(stitched))
    given = inputs((2, 5, 4))
    given[:, 3:] = 0
    np.testing.assert_allclose(pooled(given), given[:, :3].mean(axis=1), rtol=1e-5)


@pytest.mark.slow
@of_each
def test_affinities_of_text_with_missing_labels(name):
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.Model(tokens, layers.Embedding(9, 4)(tokens))
    model = make_model(name, shape=embedded, build=lambda: layers.Conv1D(3, 2, padding="same"))
    model.compile("sgd", "mse", affinity=tag_keras.LookaheadAffinity(1), run_eagerly=True)
    x = np.random.default_rng(0).integers(0, 9, size=(6, 5)).astype("int32")
    logs = model.fit(x, labels(missing=True), batch_size=6, shuffle=False, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    affinity = model.get_affinity()
    assert np.isfinite(affinity.mean).all() and (affinity.mean != 0).all()


@pytest.mark.slow
@of_each
def test_files_of_a_trained_model(name, tmp_path):
    model = make_model(name, TASKS[:2])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(inputs(), labels(), batch_size=6, shuffle=False, verbose=0)
    predictions = model(inputs())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for task, again in loaded(inputs()).items():
        np.testing.assert_array_equal(again, predictions[task])
    assert len(loaded.shared_variables) == len(model.shared_variables)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    served = exported.serve(inputs())
    for task in TASKS[:2]:
        np.testing.assert_allclose(served[task], predictions[task], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@of_each
def test_affinities_of_convolutions_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model(name, shape=(4, 4, 1), build=convolutions)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.encoder(inputs((2, 4, 4, 1)))["a"].dtype == "float16"
    # With the scale that Keras begins with, a first gradient may overflow.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=16.0)
    model.compile(optimizer, "mse", affinity=tag_keras.LookaheadAffinity(1), run_eagerly=True)
    model.fit(inputs((6, 4, 4, 1)), labels(), batch_size=6, shuffle=False, verbose=0)
    affinity = model.get_affinity()
    assert np.isfinite(affinity.mean).all() and not affinity.skipped.any()


@pytest.mark.slow
# All that the others have is in these.
@pytest.mark.parametrize("name", ["ple", "cross_stitch"])
def test_two_replicas_and_xla_train_as_one_does(name, two_replicas):
    ends = []
    for strategy, options in (
        (None, {"run_eagerly": True}),
        (two_replicas, {}),
        (None, {"jit_compile": True}),
    ):
        with strategy.scope() if strategy else contextlib.nullcontext():
            model = make_model(name, TASKS[:2])
            model.compile("sgd", "mse", **options)
        model.fit(inputs(), labels(), batch_size=6, shuffle=False, verbose=0)
        ends.append(model.get_weights())
    for one, *others in zip(*ends, strict=True):
        for other in others:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@of_each
def test_one_task_has_features_and_nothing_to_share(name):
    model = make_model(name, tasks=("a",))
    assert model(inputs())["a"].shape == (6, 1)
    assert model.shared_variables == []


@of_each
def test_experts_of_other_shapes_are_refused(name):
    widths = iter((2, 3, *[2] * 20))
    with pytest.raises(ValueError, match=r"that all give one tensor of the same shape\. Received"):
        ENCODERS[name](TASKS, (4,), lambda: layers.Dense(next(widths)))
    several = keras.Input((4,))
    with pytest.raises(ValueError, match="that all give one tensor of the same shape"):
        ENCODERS[name](TASKS, (4,), lambda: keras.Model(several, {"a": layers.Dense(2)(several)}))


@of_each
def test_layers_that_are_not_new_are_refused(name):
    layer = layers.Dense(2)
    for build in (layer, lambda: layer, lambda: 3):
        with pytest.raises(ValueError, match="should be a function that builds a new layer or mod"):
            ENCODERS[name](TASKS, (4,), build)


@of_each
def test_what_is_no_function_without_arguments_is_named(name):
    argument = {"mmoe": "build_expert", "cgc": "build_expert", "ple": "build_experts"}
    argument = argument.get(name, "build_layers")
    with pytest.raises(ValueError, match=rf"Received: {argument}=<Dense "):
        ENCODERS[name](TASKS, (4,), layers.Dense(2))
    with pytest.raises(ValueError, match=rf"Received: {argument}\(\)=3\."):
        ENCODERS[name](TASKS, (4,), lambda: 3)
    message = rf"`{argument}` should be a function without arguments, .* Received: one of \(units"
    with pytest.raises(ValueError, match=message):
        ENCODERS[name](TASKS, (4,), layers.Dense)


@of_each
def test_inputs_that_no_layer_can_weigh_are_refused(name):
    for wrong in ((), 4, None):
        with pytest.raises(ValueError, match="`inputs` should be the shape of an example, or a mo"):
            ENCODERS[name](TASKS, wrong, dense)
    tokens = keras.Input((5,), dtype="int32")
    embedding = keras.Model(tokens, layers.Embedding(9, 4)(tokens))
    for wrong in (keras.Sequential([layers.Dense(2)]), keras.Model(tokens, {"x": tokens})):
        with pytest.raises(ValueError, match="`inputs` should be a shape, or a Functional model w"):
            ENCODERS[name](TASKS, wrong, dense)
    message = r"`inputs` should end in floating-point numbers .*, such as an embedding\. Received"
    with pytest.raises(ValueError, match=message):
        ENCODERS[name](TASKS, keras.Model(tokens, tokens + 1), dense)
    assert ENCODERS[name](TASKS, embedding, dense).input_shape == (None, 5)
    sequential = keras.Sequential([tokens, layers.Embedding(9, 4)])
    assert ENCODERS[name](TASKS, sequential, dense).input_shape == (None, 5)
    with pytest.raises(ValueError, match=r"`tasks` should be unique\. Repeated: \['a'\]"):
        ENCODERS[name](["a", "a"], (4,), dense)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`num_experts` should be at least 1\. Received"):
        tag_keras.mmoe_encoder(TASKS, (4,), dense, num_experts=0)
    for option in ("num_shared", "num_specific"):
        with pytest.raises(ValueError, match=rf"`{option}` should be at least 1\. Received"):
            tag_keras.cgc_encoder(TASKS, (4,), dense, **{option: 0})
    for builds in ([], dense):
        message = r"`build_experts` should be a list with a function .*\. Received: build_experts="
        with pytest.raises(ValueError, match=message):
            tag_keras.ple_encoder(TASKS, (4,), builds)
        with pytest.raises(ValueError, match="`build_layers` should be a list with a function for"):
            tag_keras.cross_stitch_encoder(TASKS, (4,), builds)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"`same_task` should be from 0 to 1\. Received"):
            tag_keras.cross_stitch_encoder(TASKS, (4,), [dense], same_task=wrong)
    with pytest.raises(ValueError, match="The inputs of `ExpertGate` should be what it sees, and"):
        tag_keras.ExpertGate()([inputs(), inputs(), inputs((6, 3))])
    with pytest.raises(ValueError, match="The inputs of `ExpertGate` should be what it sees, and"):
        tag_keras.ExpertGate()([inputs()])
    with pytest.raises(ValueError, match="`task` should be the index of an input"):
        tag_keras.CrossStitch(2)([inputs(), inputs()])
    with pytest.raises(ValueError, match="The inputs of `CrossStitch` should have the same shape"):
        tag_keras.CrossStitch(0)([inputs(), inputs((6, 3))])
