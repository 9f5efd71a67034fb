"""What all loss weightings and gradient methods have in common: state, replicas and probes."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import Kill, in_batches

import tag_keras

layers = keras.layers
TASKS = ("b", "a", "c")


@keras.saving.register_keras_serializable(package="test_compiled_methods")
class ManyWeightings(tag_keras.LossWeighting):
    """The mean of several weightings, so that one graph tests all. XLA draws other numbers."""

    is_trained = True

    def __init__(self, draws=True, **kwargs):
        super().__init__(**kwargs)
        self.draws = draws
        # All but RLW depend on nothing that is drawn.
        parts = tag_keras.GLS(), tag_keras.STCH(), tag_keras.DBMTL(), tag_keras.IMTLL()
        drawn = [tag_keras.RLW(seed=1)] if draws else []
        self.parts = [*parts, tag_keras.FAMO(), *drawn]

    def start(self, num_tasks):
        super().start(num_tasks)
        for part in self.parts:
            part.start(num_tasks)

    def batch_weights(self, losses, has_labels):
        return sum(part.batch_weights(losses, has_labels) for part in self.parts) / len(self.parts)

    def penalty(self, has_labels):
        return sum(part.penalty(has_labels) for part in self.parts) / len(self.parts)

    def update(self, losses, labels, norms=None):
        for part in self.parts:
            part.update(losses, labels, norms)

    def after_step(self, losses, has_labels):
        for part in self.parts:
            part.after_step(losses, has_labels)

    def get_config(self):
        return {**super().get_config(), "draws": self.draws}


@keras.saving.register_keras_serializable(package="test_compiled_methods")
class ManyMethods(tag_keras.GradientMethod):
    """The mean of several gradient methods."""

    needs_scale = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [
            *(tag_keras.CAGrad(), tag_keras.MGDA(), tag_keras.IMTLG(), tag_keras.AlignedMTL()),
            *(tag_keras.DualProj(), tag_keras.ConFIG(), tag_keras.GradVac(beta=0.3, seed=2)),
            *(tag_keras.NashMTL(), tag_keras.FairGrad()),
        ]

    def start(self, tasks):
        for part in self.parts:
            part.start(tasks)

    def coefficients(self, gram, scale):
        found = [
            part.coefficients(gram, **({"scale": scale} if part.needs_scale else {}))
            for part in self.parts
        ]
        return tf.add_n(found) / len(self.parts)


# By name, what `compile` gets. Twice GradNorm, which in "both" shares the gradients of a method.
METHODS = {
    "equal": lambda: {"loss_weighting": tag_keras.EqualWeighting()},
    "uncertainty": lambda: {"loss_weighting": tag_keras.UncertaintyWeighting("V3")},
    "dynamic": lambda: {"loss_weighting": tag_keras.DynamicWeightAverage(0.5)},
    "gradnorm": lambda: {"loss_weighting": tag_keras.GradNorm("last", learning_rate=0.1)},
    "pcgrad": lambda: {"gradient_method": tag_keras.PCGrad(seed=1)},
    "upgrad": lambda: {"gradient_method": tag_keras.UPGrad()},
    "both": lambda: {
        "loss_weighting": tag_keras.GradNorm("last"),
        "gradient_method": tag_keras.PCGrad("authors"),
    },
}
# A weighting with a method each, for checks in which the two do not touch each other.
PAIRS = {
    "uncertainty": lambda: {**METHODS["uncertainty"](), **METHODS["upgrad"]()},
    "dynamic": lambda: {**METHODS["dynamic"](), **METHODS["pcgrad"]()},
    "gradnorm": METHODS["both"],
    "many": lambda: {"loss_weighting": ManyWeightings(), "gradient_method": ManyMethods()},
}
# All methods, by twos where they do not touch each other. Alone, GradNorm takes its own gradients.
MERGED = {
    "uncertainty": PAIRS["uncertainty"],
    "dynamic": PAIRS["dynamic"],
    "gradnorm": METHODS["gradnorm"],
    "both": METHODS["both"],
    "many": PAIRS["many"],
}
# XLA compiles PCGrad in the one with uncertainties.
GRAPHS = {
    **METHODS,
    "uncertainty": lambda: {**METHODS["uncertainty"](), **METHODS["pcgrad"]()},
    "many": lambda: {"loss_weighting": ManyWeightings(draws=False)},
}
STATES = {"uncertainty": 1, "dynamic": 4, "gradnorm": 2, "pcgrad": 1, "both": 3}


def make_data(size=48, missing=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 5)).astype("float32")
    y = {
        task: (sign * x[:, 0] + (i + 1) * rng.normal(size=size)).astype("float32")
        for i, (task, sign) in enumerate(zip(TASKS, (1, -1, 1), strict=True))
    }
    if missing:
        y["a"][rng.uniform(size=size) < 0.4] = np.nan
        # No label in the whole second batch.
        y["c"][8:16] = np.nan
    return x, y


def make_model(tasks=TASKS, seed=0):
    keras.utils.set_random_seed(seed)
    first = layers.Dense(6, "tanh", kernel_regularizer="l2")
    encoder = keras.Sequential(
        [keras.Input((5,)), first, layers.Dense(4, use_bias=False, name="last")]
    )
    heads = {task: layers.Dense(1, use_bias=False) for task in tasks}
    model = tag_keras.MultiTaskModel(encoder, heads)
    # Built: what compile makes has to find its place all the same.
    model(np.zeros((1, 5)))
    return model


def compiled(method, model=None, cases=METHODS, **kwargs):
    """A model with a method, by default an eager one: tracing takes longer than ten steps."""
    model = model or make_model()
    optimizer = kwargs.pop("optimizer", None) or keras.optimizers.SGD(0.05, momentum=0.9)
    methods = cases[method]() if method else {}
    model.compile(optimizer, "mse", **{"run_eagerly": True, **methods, **kwargs})
    return model


def fit(model, data=None, epochs=2, **kwargs):
    data = in_batches(*(data or make_data()), 8)
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0, **kwargs).history


def assert_same_weights(one, two, atol=0.0):
    for value, expected in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, atol=atol)


def state(model):
    return [np.array(weight) for weight in model.compiled_methods.weights]


@pytest.mark.slow
@pytest.mark.parametrize("pair", [*PAIRS, "equal"])
def test_a_model_is_saved_with_its_methods_and_goes_on(pair, tmp_path):
    model = compiled(None, **{**METHODS, **PAIRS}[pair](), loss_weights={"a": 2.0})
    before = state(model)
    data = make_data(8)
    fit(model, data, epochs=3)
    numbers = {"uncertainty": 1, "dynamic": 5, "gradnorm": 3, "many": 9, "equal": 0}
    assert len(before) == numbers[pair]
    if before:
        weighting = model.loss_weighting.weights
        assert any((one != two).any() for one, two in zip(before, weighting, strict=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(loaded, model)
    for name in ("loss_weighting", "gradient_method"):
        one, two = getattr(loaded, name), getattr(model, name)
        assert type(one) is type(two)
        assert one is None or one.get_config() == two.get_config()
    loaded.run_eagerly = True
    history = fit(model, data, epochs=1)
    assert fit(loaded, data, epochs=1) == history
    assert_same_weights(loaded, model)
    names = {"loss", *(f"{task}_loss" for task in TASKS)}
    names |= {f"{task}_weight" for task in TASKS}
    assert set(history) == names


class Copy(keras.callbacks.Callback):
    """Copies a backup before the first batch that begins after so many."""

    def __init__(self, source, target, batches):
        super().__init__()
        self.source, self.target, self.left = source, target, batches

    def on_train_batch_begin(self, batch, logs=None):
        if self.left == 0:
            shutil.copytree(self.source, self.target)
        self.left -= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("midst", "pair"),
    [
        # Only a dynamic weight average does something at the end of an epoch.
        (False, "dynamic"),
        (True, "dynamic"),
        (True, "uncertainty"),
        (True, "gradnorm"),
        (True, "many"),
    ],
)
def test_a_killed_training_goes_on_as_an_uninterrupted_one(midst, pair, tmp_path):
    # In the midst of an epoch, Keras goes on only where affinities are measured: here after step 3,
    # the first one of the second epoch.
    affinity = tag_keras.CosineAffinity(every=2) if midst else None
    data = make_data(16 if midst else 8)

    def train(folder, seed, *callbacks):
        model = compiled(None, make_model(seed=seed), affinity=affinity, **PAIRS[pair]())
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=3 if midst else "epoch")
        fit(model, data, epochs=3, callbacks=[backup, *callbacks])
        return model

    # What a process leaves that is killed after step 5, or before the third epoch.
    killed = tmp_path / "killed"
    expected = train(tmp_path / "all", 0, Copy(tmp_path / "all", killed, 5 if midst else 2))
    resumed = train(killed, 1)
    if pair == "dynamic":
        assert np.ptp(resumed.loss_weighting.task_weights()) > 0.01
    assert_same_weights(resumed, expected, atol=1e-6)


class Labels(keras.callbacks.Callback):
    """Numbers of labels that a dynamic weight average has counted, at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.numbers = []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.numbers.append(self.model.loss_weighting._labels.numpy().tolist())


@pytest.mark.slow
@pytest.mark.parametrize("affinity", [None, tag_keras.CosineAffinity(every=3)])
def test_an_epoch_that_was_interrupted_counts_once(affinity, tmp_path):
    # Without affinities Keras makes all of its steps again, with them those that are left.
    def train(*callbacks):
        model = compiled("dynamic", affinity=affinity)
        backup = keras.callbacks.BackupAndRestore(tmp_path, save_freq=3)
        fit(model, make_data(16), epochs=3, callbacks=[backup, *callbacks])

    with pytest.raises(KeyboardInterrupt):
        # After step 2 of the second epoch, of which the backup has 1.
        train(Kill(batches=4))
    seen = Labels()
    train(seen)
    assert seen.numbers == [[16.0] * 3] * 2


@pytest.mark.parametrize(
    "method",
    [one if one == "both" else pytest.param(one, marks=pytest.mark.slow) for one in MERGED],
)
def test_two_replicas_train_as_one_device(method, two_replicas):
    # GradNorm's step and PCGrad's projections depend on signs, and the order of the random seeds
    # has to be that of one device.
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            # One device eagerly, because tracing takes longer than its few steps.
            options = {"run_eagerly": strategy is not two_replicas, "jit_compile": False}
            model = compiled(method, cases=MERGED, loss_weights={"a": 2.0}, **options)
        results.append((model, fit(model, make_data(24, missing=True))))
    (one, history), (two, logs) = results
    for value, expected in zip(two.trainable_variables, one.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=2e-6)
    for value, expected in zip(state(two), state(one), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert list(logs) == list(history)
    for name in logs:
        np.testing.assert_allclose(logs[name], history[name], rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("methods", [("uncertainty",), ("dynamic", "gradnorm", "both")])
def test_the_affinity_is_that_of_the_plain_model_with_the_same_weights(methods):
    x, y = make_data(8, missing=True)
    model = make_model()
    weights = model.get_weights()
    means = {}
    for method in (None, *methods):
        compiled(method, model, MERGED, affinity=tag_keras.LookaheadAffinity(every=1))
        for variable, value in zip(model.trainable_variables, weights, strict=False):
            variable.assign(value)
        model.fit(x, y, verbose=0)
        means[method] = model.get_affinity().mean
        np.testing.assert_allclose(means[method], means[None], atol=1e-6, err_msg=str(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", MERGED)
def test_a_probe_changes_nothing(method):
    probes = (None, tag_keras.LookaheadAffinity(2))
    models = [compiled(method, cases=MERGED, affinity=one) for one in probes]
    histories = [fit(model, make_data(16, missing=True)) for model in models]
    for value, expected in zip(
        models[1].trainable_variables, models[0].trainable_variables, strict=True
    ):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=2e-6)
    for value, expected in zip(state(models[1]), state(models[0]), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name in histories[0]:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "jit_compile"),
    [
        ("dynamic", False),
        ("gradnorm", True),
        ("uncertainty", True),
        ("both", False),
        ("many", True),
    ],
)
def test_a_weighting_in_a_graph_and_several_steps_at_once(method, jit_compile):
    options = {"jit_compile": jit_compile, "steps_per_execution": 2, "run_eagerly": False}
    eager, several = compiled(method, cases=GRAPHS), compiled(method, cases=GRAPHS, **options)
    histories = [fit(model, make_data(24, missing=True)) for model in (eager, several)]
    for value, expected in zip(several.trainable_variables, eager.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), expected.numpy(), atol=1e-5)
    for name in histories[0]:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradnorm", "both"])
def test_gradnorm_in_a_loop_over_the_tasks(method, monkeypatch):
    unrolled, looped = compiled(method), compiled(method)
    data = make_data(16)
    fit(unrolled, data, epochs=1)
    monkeypatch.setattr("tag_keras.multitask.backward_passes._MOST_UNROLLED", 0)
    fit(looped, data, epochs=1)
    assert_same_weights(looped, unrolled, atol=1e-5)


@pytest.mark.slow
def test_the_weight_of_one_task_is_1():
    x, y = make_data(8)
    histories = {}
    for method in (None, "equal", "dynamic", "gradnorm", "both"):
        model = compiled(method, make_model(("a",)), loss_weights={"a": 2.0})
        histories[method] = fit(model, (x, {"a": y["a"]}), epochs=3)
    plain = histories.pop(None)
    for method, weighted in histories.items():
        assert weighted.pop("a_weight") == pytest.approx([1.0] * 3), method
        for name in plain:
            np.testing.assert_allclose(weighted[name], plain[name], rtol=1e-6, err_msg=method)


@pytest.mark.slow
def test_equal_weights_are_those_of_no_weighting():
    plain, equal = compiled(None), compiled("equal")
    data, validation = make_data(8), make_data(8)
    histories = [fit(model, data, validation_data=validation) for model in (plain, equal)]
    for task in TASKS:
        assert histories[1].pop(f"{task}_weight") == [1.0, 1.0]
    assert histories[0] == histories[1]
    assert_same_weights(equal, plain)


@pytest.mark.filterwarnings("ignore:The evaluation data have no label")
def test_the_joint_loss_of_a_weighting():
    model = compiled("uncertainty", loss_weights={"a": 3.0})
    model.loss_weighting.log_noise.assign([0.2, 0.5, 0.02])
    x, y = make_data(8)
    y["b"][:] = np.nan
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert not any(name.endswith("_weight") for name in logs)
    expected = 3 * np.exp(-1.0) * logs["a_loss"] + 0.5 + np.exp(-0.04) * logs["c_loss"] + 0.02
    expected += sum(float(one) for one in model.losses)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert model.test_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)


def test_every_model_has_a_copy_of_its_own():
    weighting, method = tag_keras.GradNorm("last"), tag_keras.PCGrad(seed=1)
    one, two = make_model(), make_model()
    for model in (one, two):
        model.compile(
            "sgd", "mse", loss_weighting=weighting, gradient_method=method, run_eagerly=True
        )
    fit(one, make_data(16), epochs=1)
    assert not weighting.weights and not method.weights
    np.testing.assert_array_equal(two.loss_weighting.task_weights(), np.ones(3))
    np.testing.assert_array_equal(two.gradient_method.weights[0], [1, 0])
    # Two steps.
    np.testing.assert_array_equal(one.gradient_method.weights[0], [1, 2])


@pytest.mark.slow
def test_compiling_again_starts_anew_and_leaves_nothing_behind(tmp_path):
    model, number = make_model(), len(make_model().weights)
    for method in ("gradnorm", "gradnorm", "both", "uncertainty", "pcgrad", None):
        compiled(method, model)
        assert len(model.weights) == number + STATES.get(method, 0)
        if method in ("gradnorm", "both"):
            np.testing.assert_array_equal(model.loss_weighting.task_weights(), np.ones(3))
        fit(model, make_data(8), epochs=1)
    assert model.loss_weighting is None and model.gradient_method is None
    model.save(tmp_path / "model.keras")
    assert_same_weights(keras.models.load_model(tmp_path / "model.keras"), model)


def test_a_model_of_the_functional_api():
    inputs = keras.Input((5,))
    shared = layers.Dense(4, name="shared")(inputs)
    outputs = {task: layers.Dense(1, name=f"head_{task}")(shared) for task in TASKS}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs))
    shared_layer = model.encoder.get_layer("shared")
    model.compile("sgd", "mse", loss_weighting=tag_keras.GradNorm(shared_layer), run_eagerly=True)
    fit(model, make_data(8), epochs=1)
    assert np.ptp(model.loss_weighting.task_weights()) > 0
    with pytest.raises(ValueError, match=r"Name one of \['shared'\]. Received: .*'head_a'"):
        model.compile("sgd", "mse", loss_weighting=tag_keras.GradNorm("head_a"))


@pytest.mark.parametrize(
    "given", ["uncertainty", tag_keras.EqualWeighting, 1.0, tag_keras.LossWeighting()]
)
def test_what_is_no_weighting(given):
    with pytest.raises(ValueError, match="`loss_weighting` should be a weighting, such as"):
        make_model().compile("sgd", "mse", loss_weighting=given)


@pytest.mark.slow
@pytest.mark.parametrize("method", MERGED)
def test_mixed_precision(method):
    results = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            optimizer = keras.optimizers.Adam(0.01)
            if policy != "float32":
                # With the scale that Keras begins with, the gradients overflow in the first steps.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
            affinity = tag_keras.CosineAffinity(every=2)
            model = compiled(method, cases=MERGED, optimizer=optimizer, affinity=affinity)
        finally:
            keras.config.set_dtype_policy("float32")
        x, y = make_data(16)
        history = model.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
        results.append((history, state(model), model.trainable_variables))
        assert all(
            weight.dtype in ("float32", "int64") for weight in model.compiled_methods.weights
        )
    (logs, values, variables), (low_logs, low_values, low_variables) = results
    for name in logs:
        np.testing.assert_allclose(low_logs[name], logs[name], rtol=0.01)
    for one, other in zip(low_values, values, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.01)
    # Two steps of Adam, of 0.01 each.
    for one, other in zip(low_variables, variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=0.005)


def test_weights_after_a_step_that_overflows():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    weighting = tag_keras.GradNorm("last")
    huge = {"b": "mse", "c": "mse", "a": lambda y, p: 1e30 * tf.reduce_mean((y - p) ** 2, axis=-1)}
    model.compile("adam", huge, loss_weighting=weighting, run_eagerly=True)
    model.fit(*make_data(8), verbose=0)
    np.testing.assert_array_equal(model.loss_weighting.task_weights(), np.ones(3))
