"""Searches: what each step moves, what is saved, and the same on two replicas."""

import random

import keras
import numpy as np
import pytest
import restarts
import tensorflow as tf
from adashare_blocks import make_data, make_layers
from small_models import Kill, in_batches

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
    random.seed(seed)
    stem, blocks = make_layers(units, normalized)
    if dropout:
        stem = keras.Sequential([stem, layers.Dropout(dropout)])
    encoder = tag_keras.AdaShareEncoder(stem, blocks, tasks)
    return tag_keras.AdaShareModel(encoder, {task: layers.Dense(1) for task in tasks})


# Few steps are made sooner than a graph of them.
EAGER = {"run_eagerly": True}


def momentum():
    # Of the optimizers with a state, the one with the fewest operations.
    return keras.optimizers.SGD(0.01, momentum=0.9)


def compile_model(model, optimizer=None, search=SEARCH, **kwargs):
    model.compile(optimizer or momentum(), "mse", search=search, **kwargs)
    return model


def seeds_of(model):
    return [variable for variable in model.variables if "seed_generator" in variable.path]


def make_twin(seed=0, **options):
    # Its Dropout draws, and drops nothing: Keras does not save what it would draw next.
    model = make_model(dropout=1e-9, seed=seed)
    return compile_model(model, metrics={"a": ["mae"]}, **options)


@pytest.fixture(scope="module")
def traced():
    """A model whose steps are traced once for all tests, and the state it begins with."""
    model = make_twin()
    model(make_data()[0])
    return model, restarts.start_of(model)


def restart(model, state):
    model._progress.reset_steps()
    model._progress.policy_state = None
    return restarts.restart(model, state)


@pytest.fixture
def model(traced):
    return restart(*traced)


@pytest.fixture(scope="module")
def after_11_steps(traced):
    model = restart(*traced)
    return fit(model, 11), model.get_weights()


def fit(model, batches, batch_size=16, **kwargs):
    x, y = make_data(batches * batch_size)
    y = {task: y[task] for task in model.tasks}
    return model.fit(in_batches(x, y, batch_size), shuffle=False, verbose=0, **kwargs).history


class Watch(keras.callbacks.Callback):
    """Which kinds of state each step moves: weights, moving statistics, policy, seeds."""

    def __init__(self):
        super().__init__()
        self.moved, self.policies = [], []

    def state(self):
        model, policy = self.model, self.model.encoder.policy
        of_policy = {id(variable) for variable in policy.weights}
        rest = [v for v in model.non_trainable_weights if id(v) not in of_policy]
        kinds = {
            "weights": model.trainable_variables,
            "statistics": [v for v in rest if "moving" in v.path],
            "policy": [policy.logits],
            "optimizer": model.optimizer.variables,
            "policy_optimizer": model.policy_optimizer.variables,
            "draws": [policy.draws],
            "seeds": seeds_of(model),
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


def test_each_step_moves_the_weights_or_the_policy(model):
    watch = Watch()
    fit(model, 12, callbacks=watch)
    drawn = {"draws", "seeds"}
    weights = {"weights", "statistics", "optimizer", *drawn}
    policy = {"policy", "policy_optimizer", *drawn}
    assert watch.moved == [weights] * 2 + ([weights] * 3 + [policy] * 2) * 2
    assert watch.policies == [(0, 5)] * 2 + [(1, 5)] * 5 + [(2, 2.5)] * 5


@pytest.mark.slow
def test_the_warm_up_trains_the_plain_network():
    # Without BatchNorm, whose moving statistics follow two passes here and one there.
    model, (x, y) = make_model(normalized=False), make_data(64)
    model(x)
    plain = model.pruned_model(np.ones((2, 2)))
    plain.compile(momentum(), "mse", **EAGER)
    search = tag_keras.AdaShareSearch(warm_up=4)
    compile_model(model, search=search, **EAGER)
    losses = [fit(one, 2, epochs=2)["loss"] for one in (model, plain)]
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
        **EAGER,
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
    # With the weight decay of the authors' optimizer, which PyTorch adds to the gradient.
    expected = start - 0.5 * (tape.gradient(loss, policy.logits).numpy() + 5e-4 * start)
    policy.draws.assign(0)
    logs = fit(model, 2)
    np.testing.assert_allclose(policy.logits, expected, atol=1e-6)
    # Means over both steps; the logits of the log are those after the step.
    values = [tf.constant(start), tf.constant(expected)]
    expected = [np.mean([sparsity_loss(one, 1) for one in values])]
    expected.append(np.mean([sharing_loss(one) for one in values]))
    np.testing.assert_allclose([logs["sparsity_loss"][0], logs["sharing_loss"][0]], expected, 1e-5)


@pytest.mark.slow
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
    model.fit(x, y, batch_size=32, epochs=8, shuffle=False, verbose=0)
    probabilities = model.encoder.policy.probabilities()
    assert probabilities[0, 0] > 0.9 and probabilities[1, 0] < 0.1
    assert model.encoder.policy.most_probable().tolist() == [[True], [False]]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(0, abs=1e-6)


def test_the_logs_are_those_of_every_step_and_of_validation(model):
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


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"steps_per_execution": 4}, EAGER], ids=str)
def test_ways_to_train(after_11_steps, options):
    model = make_twin(**options)
    expected, weights = after_11_steps
    logs = fit(model, 11)
    assert model._progress.steps == 11
    assert set(logs) == set(expected)
    for name in expected:
        np.testing.assert_allclose(logs[name], expected[name], rtol=1e-4)
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_xla():
    # It draws other random numbers, from the same seeds.
    model = compile_model(make_model(units=(8,)), jit_compile=True)
    model(make_data()[0])
    state, ends = restarts.start_of(model), []
    for _ in range(2):
        restart(model, state)
        watch = Watch()
        logs = fit(model, 12, callbacks=watch)
        assert np.isfinite(logs["loss"][0])
        assert ["policy" in moved for moved in watch.moved] == POLICY_STEPS
        assert ["weights" in moved for moved in watch.moved] == [not one for one in POLICY_STEPS]
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_task_and_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    search = tag_keras.AdaShareSearch(warm_up=0, weight_steps=1, policy_steps=1, curriculum_speed=1)
    try:
        model = compile_model(make_model(("a",)), search=search, **EAGER)
        logs = fit(model, 4)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer
    assert isinstance(model.optimizer, scaled) and isinstance(model.policy_optimizer, scaled)
    assert np.isfinite(logs["loss"][0]) and logs["sharing_loss"] == [0]
    logits = model.encoder.policy.logits.numpy()
    assert np.isfinite(logits).all() and (logits != 0.5).all()


@pytest.fixture(scope="module")
def after_3_epochs(traced):
    model = restart(*traced)
    fit(model, 3, epochs=3)
    return [variable.numpy() for variable in restarts.state_of(model)]


@pytest.mark.slow_cases
@pytest.mark.parametrize(("save_freq", "kills"), [("epoch", [8]), (2, [3, 3])])
def test_a_killed_search_ends_as_an_uninterrupted_one(
    traced, after_3_epochs, tmp_path, save_freq, kills
):
    # Three epochs of three steps, of which the steps 6 and 7 train the policy.
    def run(model, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
        fit(model, 3, epochs=3, callbacks=[backup, *callbacks])

    for batches in kills:
        with pytest.raises(KeyboardInterrupt):
            run(restart(*traced), Kill(batches))
    if save_freq == 2:
        # Another model, with other weights, as in a new process.
        resumed = make_twin(seed=9, **EAGER)
        resumed(make_data()[0])
    else:
        model, state = traced
        resumed = restart(model, [value + 1 for value in state])
    run(resumed)
    assert resumed._progress.steps == 9
    seeds = {id(variable) for variable in seeds_of(resumed)}
    for variable, value in zip(restarts.state_of(resumed), after_3_epochs, strict=True):
        if id(variable) not in seeds:
            np.testing.assert_allclose(variable, value, atol=1e-6)


@pytest.mark.slow
def test_a_model_that_is_saved_goes_on_as_if_it_were_not(model, tmp_path):
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
def test_an_exported_model_predicts_the_same(model, tmp_path):
    x, _ = make_data()
    fit(model, 8)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    served = loaded.serve(x)
    for task, values in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(served[task], values, atol=1e-6)


def test_compiling_begins_a_new_search():
    model = compile_model(make_model(units=(6,), normalized=False), **EAGER)
    fit(model, 3)
    assert model._progress.steps == 3 and model.encoder.policy.active.numpy() == 1
    compile_model(model, **EAGER)
    assert model._progress.steps == 0
    fit(model, 1)
    assert model.encoder.policy.active.numpy() == 0


@pytest.mark.slow
def test_halves_of_the_data_for_weights_and_policy():
    data = tf.data.Dataset.from_tensor_slices(make_data(48)).batch(16)
    first, second = data.take(2), data.skip(2)
    search = tag_keras.AdaShareSearch(warm_up=3, weight_steps=2, policy_steps=1)
    model, watch = compile_model(make_model(units=(6,)), search=search, **EAGER), Watch()
    model(make_data()[0])
    model.fit(first.concatenate(second), epochs=3, verbose=0, shuffle=False, callbacks=[watch])
    of_policy = ["policy" in moved for moved in watch.moved]
    assert of_policy == [False] * 3 + [False, False, True] * 2


@pytest.mark.slow
def test_two_replicas_search_what_one_device_searches(two_replicas):
    # With slots and a rate that falls with the iterations; Adam, which would hide a gradient of
    # another size, trains the policy.
    ends = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            model = make_model(normalized=False, units=(8,))
            eager = {} if strategy is two_replicas else EAGER
            rate = keras.optimizers.schedules.InverseTimeDecay(0.01, 1, 0.5)
            optimizer = keras.optimizers.SGD(rate, momentum=0.9)
            compile_model(model, optimizer, loss_weights={"a": 2.0}, **eager)
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


def test_a_policy_that_was_never_trained(model):
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
    with pytest.raises(ValueError, match="should have a layer for at least one task"):
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
