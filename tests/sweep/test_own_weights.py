"""What `build_model` makes once, outside: refused if a training changes it, otherwise shared."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweep_job import DATA

import tag_keras
from tag_keras.backend.layers import layers_in
from tag_keras.sweep import job, sweep
from tag_keras.sweep import network as training

layers = keras.layers
TASKS = ("a", "b")
GROUPING = tag_keras.Grouping(TASKS, (("a",), ("b",)), {"a": 0, "b": 1}, 0.1, 0.1, True)
X, Y = DATA["train"]


class Balanced(keras.losses.Loss):
    """Divides by a constant, or by a running mean of the losses."""

    def __init__(self, moves):
        super().__init__(name="balanced")
        self.mean, self.moves = keras.Variable(1.0, trainable=False, name="mean"), moves

    def call(self, y_true, y_pred):
        errors = keras.ops.square(y_true - y_pred)[:, 0]
        if self.moves:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(errors))
        return errors / self.mean


def build_with(encoder, optimizer=lambda: "sgd", loss=lambda: "mse", head=None, weight=None):
    """A `build_model` whose parts the arguments give, at each call."""

    def build_model(tasks, affinity=None):
        heads = {task: head or layers.Dense(1) for task in tasks}
        model = tag_keras.MultiTaskModel(encoder(), heads)
        weights = None if weight is None else dict.fromkeys(tasks, weight)
        losses = {task: loss() for task in tasks}
        model.compile(optimizer(), losses, weights, affinity=affinity, run_eagerly=True)
        return model

    return build_model


def fresh():
    return keras.Sequential([keras.Input((5,)), layers.Dense(4, "relu")])


def once(part):
    return lambda: part


def no_fit(self, *args, **kwargs):
    raise AssertionError("nothing may be trained")


def backbone():
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, name="dense"), layers.BatchNormalization()], name="back"
    )


def one_model_for_all():
    model = build_with(fresh)(TASKS)
    return lambda tasks: model


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: build_with(once(backbone())), "back/dense/kernel, back/dense/bias, .* and 1 more"),
        (lambda: build_with(once(layers.Dense(4, name="late"))), ".*/late/kernel, .*/late/bias"),
        (
            lambda: build_with(once(keras.Sequential([layers.Dense(4, name="late")]))),
            ".*/late/kernel, .*/late/bias",
        ),
        (
            lambda: build_with(fresh, head=layers.Dense(1, name="head")),
            ".*head/kernel, .*head/bias",
        ),
        # Only its moving averages change.
        (
            lambda: build_with(
                once(layers.BatchNormalization(center=False, scale=False, name="moves"))
            ),
            ".*moves/moving_mean, .*moves/moving_variance",
        ),
        (
            lambda: build_with(fresh, once(keras.optimizers.Adam(name="once"))),
            "the optimizer 'once'",
        ),
        (
            lambda: build_with(fresh, weight=keras.Variable(1.0, name="weight")),
            "the loss weight weight",
        ),
    ],
)
def test_what_a_training_changes_is_refused_before_any_training(monkeypatch, make, name):
    monkeypatch.setattr(keras.Model, "fit", no_fit)
    message = rf"`build_model` should make all .* all networks: {name}\. Make them inside"
    with pytest.raises(ValueError, match=message):
        tag_keras.train_groups(make(), GROUPING, DATA["train"], verbose=0)


def test_a_model_that_is_the_same_at_each_call_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.Model, "fit", no_fit)
    network = training.Network("joint", TASKS)
    one = job.Job(network, one_model_for_all(), {"verbose": 0})
    with pytest.raises(sweep.SweepError, match=r"the same for all networks: .* and 2 more") as got:
        sweep.run_sweep(tmp_path, [one], DATA, processes=0)
    assert "They would fail again: mend the cause" in str(got.value)
    assert isinstance(got.value.__cause__, ValueError)


def test_without_data_to_look_at_an_unbuilt_layer_counts_as_trained(monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", no_fit)
    build = build_with(once(layers.Dense(4, name="late")))
    with pytest.raises(ValueError, match="for all networks: the layer 'late'"):
        tag_keras.train_groups(build, GROUPING, lambda: DATA["train"], verbose=0)


def test_a_whole_experiment_is_refused_before_its_folder_is_made(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(keras.Model, "fit", no_fit)
    arguments = (build_with(once(backbone())), DATA, TASKS, 1, tag_keras.LookaheadAffinity(1))
    with pytest.raises(ValueError, match="`build_model` should make all that a training changes"):
        tag_keras.experiment.run(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()


def lasting_parts():
    """Layers that an encoder has in common with others: adapted, without weights, and frozen."""
    frozen, normalization = backbone(), layers.Normalization()
    frozen.layers[1].moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    frozen.trainable = False
    normalization.adapt(X)
    weightless = [layers.ReLU(), layers.Reshape((5, 1)), layers.Flatten(), layers.Dropout(0.0)]
    fixed = layers.Normalization(mean=2.0, variance=3.0)
    return [normalization, *weightless, fixed, frozen]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_stays_as_it_is_may_be_made_once(tmp_path):
    parts = lasting_parts()
    before = [np.array(one) for part in parts for one in part.weights]

    def encoder():
        return keras.Sequential([keras.Input((5,)), *parts, layers.Dense(4, "relu")])

    build = build_with(encoder)
    grouped = tag_keras.train_groups(build, GROUPING, DATA["train"], seed=3, verbose=0)
    # Without `predict`, whose tracing would take longer than all else.
    predictions = grouped(X)
    for task in TASKS:
        # As one model that Keras trains alone.
        keras.utils.set_random_seed(3)
        alone = build((task,))
        alone.fit(X, {task: Y[task]}, verbose=0)
        np.testing.assert_allclose(predictions[task], alone(X)[task], atol=1e-6)
    np.testing.assert_equal([np.array(one) for part in parts for one in part.weights], before)
    grouped.save(tmp_path / "grouped.keras")
    loaded = tag_keras.load_network(tmp_path / "grouped.keras")
    for task, prediction in loaded(X).items():
        np.testing.assert_allclose(prediction, predictions[task], rtol=0, atol=1e-7)
    grouped.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    for task, prediction in exported.serve(X).items():
        np.testing.assert_allclose(prediction, predictions[task], atol=1e-6)


@pytest.mark.slow
def test_a_loss_made_once_may_have_constants_but_no_state():
    grouping = tag_keras.Grouping(("a",), (("a",),), {"a": 0}, 0.0, 0.0, True)
    train = (X, {"a": X[:, :1]})
    constant = build_with(fresh, loss=once(Balanced(moves=False)))
    tag_keras.train_groups(constant, grouping, train, verbose=0)
    state = build_with(fresh, loss=once(Balanced(moves=True)))
    with pytest.raises(ValueError, match="The training has changed mean, which all networks"):
        tag_keras.train_groups(state, grouping, train, verbose=0)
    # One for each network.
    own = build_with(fresh, loss=lambda: Balanced(moves=True))
    tag_keras.train_groups(own, grouping, train, verbose=0)


def test_a_change_that_only_the_training_shows_is_an_error():
    @keras.saving.register_keras_serializable("test_own_weights")
    class Counts(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.steps = self.add_weight(name="steps", initializer="zeros", trainable=False)

        def call(self, inputs):
            self.steps.assign_add(1.0)
            return inputs

    counts = Counts(name="counts")
    build = build_with(lambda: keras.Sequential([keras.Input((5,)), counts, layers.Dense(2)]))
    with pytest.raises(ValueError, match="The training has changed counts/steps, which all netw"):
        tag_keras.train_groups(build, GROUPING, DATA["train"], verbose=0)


def test_the_second_model_changes_neither_names_nor_weights(tmp_path):
    built = []

    def build(tasks):
        built.append(build_with(fresh)(tasks))
        return built[-1]

    keras.utils.clear_session()
    expected = build(TASKS)
    keras.utils.clear_session()
    network = training.Network("joint", TASKS, seed=5)
    model, _ = training.train_network(build, network, DATA["train"], verbose=0)
    assert built[-1] is model and len(built) == 3
    names = [[layer.name for layer in layers_in(each)] for each in (model, expected)]
    assert names[0] == names[1]
    keras.utils.set_random_seed(5)
    alone = build_with(fresh)(TASKS)
    alone.fit(*DATA["train"], verbose=0)
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.slow
def test_a_layer_made_before_the_names_began_anew_trains_beside_others_of_its_class(tmp_path):
    keras.utils.clear_session()
    made = [layers.Dropout(0.0), layers.Dropout(0.0)]

    def encoder():
        # Each job begins with the name "dropout" again.
        return keras.Sequential([keras.Input((5,)), *made, layers.Dropout(0.5), layers.Dense(4)])

    jobs = [job.Job(training.Network("joint", TASKS, seed=3), build_with(encoder))]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    keras.utils.set_random_seed(3)
    alone = build_with(encoder)(TASKS)
    alone.fit(*DATA["train"], verbose=0)
    losses = {row.task: row.loss for row in rows if row.split == "validation"}
    expected = alone.evaluate(*DATA["validation"], verbose=0, return_dict=True)
    assert losses == pytest.approx({task: expected[f"{task}_loss"] for task in TASKS}, abs=1e-6)


def test_a_name_that_is_given_twice_is_refused_by_keras():
    calls = []

    def encoder():
        calls.append(layers.Dense(4, name="twice"))
        return keras.Sequential([calls[-1], layers.Dense(4, name="twice")])

    with pytest.raises(ValueError, match="unique name"):
        tag_keras.train_groups(build_with(encoder), GROUPING, DATA["train"], verbose=0)
    assert len(calls) == 2


@pytest.mark.slow
def test_models_of_a_group_that_have_a_layer_in_common_are_copied_with_what_it_has_read(tmp_path):
    words = np.array([["red green"], ["blue"], ["green green"]])
    vectorize = layers.TextVectorization(output_mode="count")
    vectorize.adapt(words)
    models = []
    for task in TASKS:
        inputs = keras.Input((1,), dtype="string")
        outputs = {task: layers.Dense(1, name=task)(vectorize(inputs))}
        models.append(tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs)))
        models[-1].compile("adam", "mse")
    grouped = tag_keras.GroupedModel(models, GROUPING)
    assert grouped.models[0] is models[0] and grouped.models[1] is not models[1]
    data = keras.ops.convert_to_tensor(words)
    for task, model in zip(TASKS, models, strict=True):
        np.testing.assert_array_equal(grouped(data)[task], model(data)[task])
    grouped.save(tmp_path / "grouped.keras")
    # Keras warns of optimizers that were saved before any training.
    with warnings.catch_warnings(action="ignore"):
        loaded = tag_keras.load_network(tmp_path / "grouped.keras")
    for task in TASKS:
        np.testing.assert_array_equal(loaded(data)[task], grouped(data)[task])
