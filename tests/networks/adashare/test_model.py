"""Searches: what each step moves, what is saved, and the same on two replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from adashare_blocks import make_data, make_layers

import tag_keras
from tag_keras.networks.adashare.policy import sharing_loss, sparsity_loss

layers = keras.layers
TASKS = ("b", "a")
SEARCH = tag_keras.AdaShareSearch(
    warm_up=2, weight_steps=3, policy_steps=2, temperature_decay=0.5, curriculum_speed=1
)

# Of the first twelve.
POLICY_STEPS = [False] * 2 + ([False] * 3 + [True] * 2) * 2


def make_model(tasks=TASKS, normalized=True, dropout=0.0, units=(6, 8), seed=0):
    keras.utils.set_random_seed(seed)
    stem, blocks = make_layers(units, normalized)
    if dropout:
        stem = keras.Sequential([stem, layers.Dropout(dropout)])
    encoder = tag_keras.AdaShareEncoder(stem, blocks, tasks)
    return tag_keras.AdaShareModel(encoder, {task: layers.Dense(1) for task in tasks})


# Few steps are made sooner than a graph of them.
EAGER = {"run_eagerly": True}


def compile_model(model, optimizer="adam", search=SEARCH, **kwargs):
    model.compile(optimizer, "mse", search=search, **kwargs)
    return model


def fit(model, batches, batch_size=16, **kwargs):
    x, y = make_data(batches * batch_size)
    y = {task: y[task] for task in model.tasks}
    return model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0, **kwargs).history


class Watch(keras.callbacks.Callback):
    """Which kinds of state each step moves: weights, moving statistics, policy, seeds."""

    def __init__(self):
        super().__init__()
        self.moved, self.policies = [], []

    def state(self):
        model, policy = self.model, self.model.encoder.policy
        of_policy = {id(variable) for variable in policy.weights}
        rest = [v for v in model.non_trainable_weights if id(v) not in of_policy]
        seeds = [v for v in model.variables if "seed_generator" in v.path]
        kinds = {
            "weights": model.trainable_variables,
            "statistics": [v for v in rest if "moving" in v.path],
            "policy": [policy.logits],
            "optimizer": model.optimizer.variables,
            "policy_optimizer": model.policy_optimizer.variables,
            "draws": [policy.draws],
            "seeds": seeds,
        }
        return {kind: [v.numpy() for v in values] for kind, values in kinds.items()}

    def on_train_batch_begin(self, batch, logs=None):
        self.before = self.state()

    def on_train_batch_end(self, batch, logs=None):
        moved = {
            kind
            for kind, values in self.state().items()
            if any(
                (one != other).any() for one, other in zip(values, self.before[kind], strict=True)
            )
        }
        self.moved.append(moved)
        policy = self.model.encoder.policy
        self.policies.append((policy.active.numpy(), policy.temperature.numpy()))


def test_each_step_moves_the_weights_or_the_policy():
    model, watch = compile_model(make_model(dropout=0.1), **EAGER), Watch()
    model(make_data()[0])
    fit(model, 12, callbacks=watch)
    drawn = {"draws", "seeds"}
    weights = {"weights", "statistics", "optimizer", *drawn}
    policy = {"policy", "policy_optimizer", *drawn}
    assert watch.moved == [weights] * 2 + ([weights] * 3 + [policy] * 2) * 2
    assert watch.policies == [(0, 5)] * 2 + [(1, 5)] * 5 + [(2, 2.5)] * 5


def test_the_warm_up_trains_the_plain_network():
    # Without BatchNorm, whose moving statistics follow two passes here and one there.
    model, (x, y) = make_model(normalized=False), make_data(64)
    model(x)
    plain = model.pruned_model(np.ones((2, 2)))
    plain.compile(keras.optimizers.SGD(0.01), "mse")
    search = tag_keras.AdaShareSearch(warm_up=8)
    compile_model(model, keras.optimizers.SGD(0.01), search)
    losses = [fit(one, 4, epochs=2)["loss"] for one in (model, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    losses = [one.evaluate(x, y, verbose=0, return_dict=True)["loss"] for one in (model, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_policy_step_is_one_of_gradient_descent_on_its_loss():
    model = make_model(normalized=False)
    search = tag_keras.AdaShareSearch(
        warm_up=0, weight_steps=1, policy_steps=1, sparsity=0.3, sharing=0.2, curriculum_speed=1
    )
    weightless = keras.optimizers.SGD(0.0)
    compile_model(
        model,
        weightless,
        search,
        loss_weights={"a": 2.0},
        policy_optimizer=keras.optimizers.SGD(0.5),
    )
    x, y = make_data(32)
    model(x)
    policy = model.encoder.policy
    start = np.random.default_rng(0).normal(size=(2, 2, 2)).astype("float32")
    policy.logits.assign(start)
    # What the second step will draw, and its loss.
    policy.set_phase(active=1, temperature=5.0)
    policy.draws.assign(1)
    with tf.GradientTape() as tape:
        outputs = model(x[16:], training=True)
        loss = 0.3 * sparsity_loss(tf.convert_to_tensor(policy.logits), 1)
        loss += 0.2 * sharing_loss(tf.convert_to_tensor(policy.logits))
        for task, weight in zip(TASKS, (1.0, 2.0), strict=True):
            loss += weight * tf.reduce_mean((outputs[task][:, 0] - y[task][16:]) ** 2)
    expected = start - 0.5 * tape.gradient(loss, policy.logits).numpy()
    policy.draws.assign(0)
    logs = fit(model, 2)
    np.testing.assert_allclose(policy.logits, expected, atol=1e-6)
    # Means over both steps; the logits of the log are those after the step.
    values = [tf.constant(start), tf.constant(expected)]
    expected = [np.mean([sparsity_loss(one, 1) for one in values])]
    expected.append(np.mean([sharing_loss(one) for one in values]))
    np.testing.assert_allclose([logs["sparsity_loss"][0], logs["sharing_loss"][0]], expected, 1e-5)


def test_a_search_learns_who_needs_a_block():
    # Task "a" is what one block, given as it is to be, adds to the input; "b" is the input.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 4)).astype("float32")
    y = {"a": np.maximum(x[:, 0] + 3, 0), "b": x[:, 0]}
    model = make_model(("a", "b"), normalized=False, units=(4,))
    model.encoder.stem = layers.Dense(4)
    model(x)
    model.encoder.stem.set_weights([np.eye(4), np.zeros(4)])
    model.encoder.blocks[0].dense.set_weights([np.zeros((4, 4)), np.full(4, 3.0)])
    for head in model.heads.values():
        head.set_weights([np.eye(4)[:, :1], np.zeros(1)])
    search = tag_keras.AdaShareSearch(warm_up=0, weight_steps=1, policy_steps=7)
    frozen, quick = keras.optimizers.SGD(0.0), keras.optimizers.Adam(0.1)
    compile_model(model, frozen, search, policy_optimizer=quick)
    model.fit(x, y, batch_size=32, epochs=8, verbose=0)
    probabilities = model.encoder.policy.probabilities()
    assert probabilities[0, 0] > 0.9 and probabilities[1, 0] < 0.1
    assert model.encoder.policy.most_probable().tolist() == [[True], [False]]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(0, abs=1e-6)


def test_the_logs_are_those_of_every_step_and_of_validation():
    model = compile_model(make_model(), metrics={"a": ["mae"]}, **EAGER)
    logs = fit(model, 6, validation_data=make_data(32, seed=1))
    names = {"loss", "a_mae", *(f"{name}_loss" for name in (*TASKS, "sparsity", "sharing"))}
    assert set(logs) == names | {f"val_{name}" for name in names}
    total = sum(logs[f"{task}_loss"][0] for task in TASKS)
    assert logs["loss"][0] == pytest.approx(total, rel=1e-5)
    assert all(np.isfinite(values).all() for values in logs.values())
    # Evaluation draws nothing.
    x, y = make_data(32, seed=1)
    once, twice = (model.evaluate(x, y, verbose=0, return_dict=True) for _ in range(2))
    assert once == twice and once["loss"] == pytest.approx(logs["val_loss"][0], rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_execution": 4},
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_to_train(options):
    ends = []
    for more in ({}, options):
        model = compile_model(make_model(), "sgd", **more)
        ends.append((fit(model, 11), model.get_weights(), model._progress.steps))
    (expected, wanted, _), (logs, weights, steps) = ends
    assert steps == 11
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-4)
    for one, other in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_xla():
    # It draws other random numbers, from the same seeds.
    ends = []
    for _ in range(2):
        model, watch = compile_model(make_model(), jit_compile=True), Watch()
        model(make_data()[0])
        logs = fit(model, 12, callbacks=watch)
        assert np.isfinite(logs["loss"][0])
        assert ["policy" in moved for moved in watch.moved] == POLICY_STEPS
        assert ["weights" in moved for moved in watch.moved] == [not one for one in POLICY_STEPS]
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_task_and_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model(("a",))
        compile_model(model)
        logs = fit(model, 12)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer
    assert isinstance(model.optimizer, scaled) and isinstance(model.policy_optimizer, scaled)
    assert np.isfinite(logs["loss"][0]) and logs["sharing_loss"] == [0]
    logits = model.encoder.policy.logits.numpy()
    assert np.isfinite(logits).all() and (logits != 0.5).all()


class Kill(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("save_freq", "kills"), [pytest.param("epoch", [8], marks=pytest.mark.slow), (3, [5, 4])]
)
def test_a_killed_search_ends_as_an_uninterrupted_one(tmp_path, save_freq, kills):
    def run(seed, folder, *callbacks):
        model = compile_model(make_model(seed=seed), **EAGER)
        model(make_data()[0])
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, save_freq=save_freq)
        fit(model, 6, epochs=3, callbacks=[backup, *callbacks])
        return model

    expected = run(0, "expected")
    for seed, batches in enumerate(kills):
        with pytest.raises(KeyboardInterrupt):
            run(seed, "killed", Kill(batches))
    resumed = run(9, "killed")
    assert resumed._progress.steps == 18
    for value, wanted in zip(resumed.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)
    for name in ("optimizer", "policy_optimizer"):
        one, other = (getattr(model, name).variables for model in (resumed, expected))
        for value, wanted in zip(one, other, strict=True):
            np.testing.assert_allclose(value, wanted, atol=1e-6)


def test_a_model_that_is_saved_goes_on_as_if_it_were_not(tmp_path):
    model = compile_model(make_model(), **EAGER)
    fit(model, 8)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, tag_keras.AdaShareModel) and loaded._search == SEARCH
    assert loaded.policy_optimizer.learning_rate == 0.01
    x, _ = make_data()
    for task, values in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(values, model.predict(x, verbose=0)[task])
    np.testing.assert_array_equal(loaded.sample_policy(3), model.sample_policy(3))
    loaded.run_eagerly = True
    fit(model, 7)
    fit(loaded, 7)
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_an_exported_model_predicts_the_same(tmp_path):
    model, (x, _) = compile_model(make_model(), **EAGER), make_data()
    fit(model, 8)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    served = loaded.serve(x)
    for task, values in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(served[task], values, atol=1e-6)


def test_compiling_begins_a_new_search():
    model = compile_model(make_model(), **EAGER)
    fit(model, 8)
    compile_model(model, **EAGER)
    assert model._progress.steps == 0
    fit(model, 1)
    assert model.encoder.policy.active.numpy() == 0


def test_halves_of_the_data_for_weights_and_policy():
    data = [tf.data.Dataset.from_tensor_slices(make_data(48, seed)) for seed in (0, 1)]
    first, second = (one.batch(16) for one in data)
    search = tag_keras.AdaShareSearch(warm_up=6, weight_steps=3, policy_steps=3)
    model, watch = compile_model(make_model(), search=search, **EAGER), Watch()
    model(make_data()[0])
    model.fit(first.concatenate(second), epochs=3, verbose=0, shuffle=False, callbacks=[watch])
    of_policy = ["policy" in moved for moved in watch.moved]
    assert of_policy == [False] * 6 + ([False] * 3 + [True] * 3) * 2


@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.slow)])
def test_two_replicas_search_what_one_device_searches(two_replicas, optimizer):
    ends = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = make_model(normalized=False, units=(8,))
            compile_model(model, optimizer, loss_weights={"a": 2.0})
        logs = fit(model, 12)
        ends.append((logs, [variable.numpy() for variable in model.weights]))
    (expected, wanted), (logs, weights) = ends
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-4, err_msg=name)
    for one, other in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # On the two replicas the policies are one.
    for variable in model.encoder.policy.weights:
        one, other = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, other)


def test_a_policy_that_was_never_trained():
    model = compile_model(make_model(), **EAGER)
    message = "has made 0 steps, and the policy is trained from step 6 on. Train for longer, or lo"
    with pytest.raises(ValueError, match=message):
        model.sample_policy()
    fit(model, 5)
    with pytest.raises(ValueError, match="has made 5 steps"):
        model.sample_policy()
    fit(model, 1)
    assert model.sample_policy().shape == (2, 2)


def test_bad_models():
    encoder, head = make_model().encoder, layers.Dense(1)
    with pytest.raises(ValueError, match=r"`encoder` should be a `tag_keras\.AdaShareEncoder"):
        tag_keras.AdaShareModel(layers.Dense(2), {"a": head})
    message = r"in their order, \['b', 'a'\]. Received: \['a', 'b'\]"
    with pytest.raises(ValueError, match=message):
        tag_keras.AdaShareModel(encoder, dict.fromkeys(sorted(TASKS), head))
    with pytest.raises(ValueError, match="`tasks` should name at least one task"):
        tag_keras.AdaShareModel(encoder, {})
    with pytest.raises(ValueError, match=r"not be named 'sparsity' or .* Received: \['sharing'\]"):
        make_model(("a", "sharing"))


def test_what_a_search_does_not_take():
    model = make_model()
    others = {
        "affinity": tag_keras.LookaheadAffinity(),
        "loss_weighting": "uncertainty",
        "gradient_method": "pcgrad",
    }
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"takes no `{name}`. Give it to the model of a poli"):
            model.compile("sgd", "mse", **{name: value})
    with pytest.raises(ValueError, match=r"`search` should be a `tag_keras\.AdaShareSearch"):
        model.compile("sgd", "mse", search="adashare")
    optimizer = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="`policy_optimizer` should be another optimizer than"):
        model.compile(optimizer, "mse", policy_optimizer=optimizer)
