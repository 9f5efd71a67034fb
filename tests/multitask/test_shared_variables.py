"""Shared variables against answers worked out by hand, and against perturbed weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tag_keras.multitask.shared_variables import SharedVariables, variables_by_output

layers = keras.layers


def names_by_output(model):
    """By output, the names of the layers whose variables it depends on."""
    specs = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), model.input)
    names = [variable.path.split("/")[-2] for variable in model.variables]
    reached = variables_by_output(model, specs)
    return {task: {names[index] for index in sorted(reached[task])} for task in reached}


def test_two_towers():
    # x - trunk - left  - a, b
    #           - right - c        and d from x alone.
    inputs = keras.Input((4,))
    trunk = layers.Dense(5, "relu", name="trunk")(inputs)
    left = layers.Dense(3, "relu", name="left")(trunk)
    right = layers.Dense(3, "relu", name="right")(trunk)
    model = keras.Model(
        inputs,
        {
            "a": layers.Dense(1, name="head_a")(left),
            "b": layers.Dense(1, name="head_b")(left),
            "c": layers.Dense(1, name="head_c")(right),
            "d": layers.Dense(1, name="head_d")(inputs),
        },
    )
    assert names_by_output(model) == {
        "a": {"trunk", "left", "head_a"},
        "b": {"trunk", "left", "head_b"},
        "c": {"trunk", "right", "head_c"},
        "d": {"head_d"},
    }


def test_a_layer_that_is_called_in_two_branches():
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    twice = layers.Dense(3, name="twice")
    first = layers.Dense(4, name="first")(other)
    outputs = {"a": twice(one), "b": twice(first), "c": layers.Dense(2, name="alone")(one)}
    model = keras.Model({"one": one, "other": other}, outputs)
    assert names_by_output(model) == {"a": {"twice"}, "b": {"twice", "first"}, "c": {"alone"}}


def test_a_nested_model_with_several_outputs():
    inner_inputs = keras.Input((4,))
    inner_trunk = layers.Dense(3, name="inner_trunk")(inner_inputs)
    inner = keras.Model(
        inner_inputs,
        [
            layers.Dense(2, name="inner_p")(inner_trunk),
            layers.Dense(2, name="inner_q")(inner_trunk),
        ],
    )
    inputs = [keras.Input((4,)), keras.Input((4,))]
    p, q = inner(layers.Add()(inputs))
    # The second call of the nested model reaches the same variables.
    _, q_again = inner(inputs[1])
    model = keras.Model(inputs, {"a": p, "b": layers.Add()([q, q_again]), "c": q_again})
    assert names_by_output(model) == {
        "a": {"inner_trunk", "inner_p"},
        "b": {"inner_trunk", "inner_q"},
        "c": {"inner_trunk", "inner_q"},
    }


class Attention(layers.Layer):
    """A layer of layers that gives features by task: masks of its own on common features."""

    def __init__(self, tasks):
        super().__init__()
        self.common = layers.Dense(3, name="common")
        self.masks = {task: layers.Dense(3, "sigmoid", name=f"mask_{task}") for task in tasks}
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        common = self.common(inputs) * self.scale
        return {task: mask(inputs) * common for task, mask in self.masks.items()}


def test_layers_in_a_layer():
    inputs = keras.Input((4,))
    features = Attention("ab")(inputs)
    model = keras.Model(
        inputs, {task: layers.Dense(1, name=f"head_{task}")(features[task]) for task in "ba"}
    )
    (attention,) = [layer for layer in model.layers if isinstance(layer, Attention)]
    common = {"common", attention.name}
    assert names_by_output(model) == {
        "a": {*common, "mask_a", "head_a"},
        "b": {*common, "mask_b", "head_b"},
    }


def test_loops_lookups_and_statistics():
    words = keras.Input((6,), dtype="int32")
    embedded = layers.Embedding(9, 4, name="embedding")(words)
    normal = layers.BatchNormalization(name="normal")(embedded)
    read = layers.GRU(3, name="gru", return_sequences=True)(normal)
    model = keras.Model(
        words,
        {
            "a": layers.LSTM(2, name="lstm")(read),
            "b": layers.Bidirectional(layers.LSTM(2, name="both"), name="bidirectional")(read),
            "c": layers.GlobalAveragePooling1D()(normal),
        },
    )
    shared = SharedVariables(("a", "b", "c"))
    shared.see_inputs(tf.zeros((2, 6), "int32"))
    # The moving mean and variance are state, not trained.
    expected = [
        *model.get_layer("embedding").variables,
        *model.get_layer("normal").trainable_variables,
        *model.get_layer("gru").trainable_variables,
    ]
    assert same(shared.of(model), expected)


def same(variables, others):
    return [id(variable) for variable in variables] == [id(other) for other in others]


def test_what_is_read_behind_a_stop_gradient_counts():
    # A step for "a" moves the trunk, and so changes the loss of "b".
    inputs = keras.Input((4,))
    trunk = layers.Dense(3, name="trunk")(inputs)
    behind = keras.ops.stop_gradient(trunk)
    model = keras.Model(inputs, {"a": trunk, "b": layers.Dense(1, name="head")(behind)})
    assert names_by_output(model) == {"a": {"trunk"}, "b": {"trunk", "head"}}


def random_model(rng, num_tasks=4, num_layers=12):
    """Layers that each read one or two tensors made before, some by a layer that is there."""
    tensors, made = [keras.Input((3,))], []
    for _ in range(num_layers):
        sources = [tensors[i] for i in rng.choice(len(tensors), size=min(2, len(tensors)))]
        joined = layers.Add()(sources) if rng.random() < 0.5 else sources[0]
        if made and rng.random() < 0.3:
            layer = made[rng.integers(len(made))]
        else:
            layer = layers.Dense(3, "tanh", bias_initializer="glorot_uniform")
            made.append(layer)
        tensors.append(layer(joined))
    outputs = rng.choice(len(tensors) - 1, size=num_tasks, replace=False) + 1
    return keras.Model(tensors[0], {f"t{i}": tensors[index] for i, index in enumerate(outputs)})


@pytest.mark.parametrize("seed", range(5))
def test_an_output_depends_on_what_changes_it(seed):
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    x = rng.normal(size=(8, 3)).astype("float32")
    before = {task: value.numpy() for task, value in model(x).items()}
    expected = {task: set() for task in before}
    for index, variable in enumerate(model.variables):
        value = variable.numpy()
        variable.assign(value + 0.5)
        after = model(x)
        for task in before:
            if np.abs(after[task] - before[task]).max() > 0:
                expected[task].add(index)
        variable.assign(value)
    assert variables_by_output(model, tf.TensorSpec((None, 3))) == expected
    assert any(0 < len(one) < len(model.variables) for one in expected.values())


def test_tracing_leaves_the_model_as_it_is():
    inputs = keras.Input((4,))
    trunk = layers.Dense(3, activity_regularizer="l2", name="trunk")(inputs)
    trunk = layers.Dropout(0.5)(layers.BatchNormalization(momentum=0.1)(trunk))
    model = keras.Model(inputs, {"a": trunk, "b": layers.Dense(1)(trunk)})
    before, num_losses = [v.numpy() for v in model.variables], len(model.losses)
    names_by_output(model)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert len(model.losses) == num_losses


def test_frozen_layers_drop_out_and_come_back():
    inputs = keras.Input((4,))
    lower = layers.Dense(3, trainable=False, name="lower")
    upper = layers.Dense(3, name="upper")
    trunk = upper(lower(inputs))
    model = keras.Model(inputs, {"a": trunk, "b": layers.Dense(1)(trunk)})
    shared = SharedVariables(("a", "b"))
    shared.see_inputs(tf.zeros((2, 4)))
    assert same(shared.of(model), upper.variables)
    upper.trainable, lower.trainable = False, True
    assert same(shared.of(model), lower.variables)
    model.trainable = False
    assert shared.of(model) == []


def test_only_the_tasks_of_the_model_count():
    inputs = keras.Input((4,))
    trunk, branch = layers.Dense(3), layers.Dense(2)
    features = trunk(inputs)
    model = keras.Model(
        inputs, {"a": features, "b": features, "c": branch(features), "d": branch(features)}
    )
    for tasks, expected in (
        (("b", "c"), trunk.variables),
        (("d", "c"), model.variables),
        ("a", []),
    ):
        shared = SharedVariables(tuple(tasks))
        shared.see_inputs(tf.zeros((2, 4)))
        assert same(shared.of(model), expected)


def test_it_is_traced_once(monkeypatch):
    calls = []
    inputs = keras.Input((4,))
    trunk = layers.Dense(3)(inputs)
    model = keras.Model(inputs, {"a": trunk, "b": trunk})
    shared = SharedVariables(("a", "b"))
    shared.see_inputs(tf.zeros((2, 4)))
    original = model.call
    monkeypatch.setattr(
        model, "call", lambda *args, **kw: (calls.append(1), original(*args, **kw))[1]
    )
    for _ in range(3):
        assert same(shared.of(model), model.variables)
    assert len(calls) == 1
    # Within a traced function, too.
    other = SharedVariables(("a", "b"))
    other.see_inputs(tf.zeros((2, 4)))
    found = []
    tf.function(lambda x: (found.extend(other.of(model)), x)[1])(tf.zeros(()))
    assert same(found, model.variables)


def test_an_encoder_that_gives_one_tensor_shares_all_of_it():
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    assert same(SharedVariables(("a", "b")).of(encoder), encoder.trainable_variables)
