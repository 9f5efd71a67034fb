"""Selective task group updates inside `fit`: the step, the groups, and what is saved of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gradient_oracles import attribute
from small_models import TASKS, make_data, make_deep_model, make_model

import tag_keras
from benchmarks import planted
from tag_keras.gradient_methods.selective_updates.clustering import cluster_tasks

layers = keras.layers
NEVER = 10**6
GRAPH = {"run_eagerly": False}


def compiled(model, optimizer="adam", groups=None, compiled_with=None, **options):
    """The model, with these groups from the start: the number of its group by task.

    It trains eagerly, because tracing takes longer than a few steps.
    """
    method = tag_keras.SelectiveTaskGroupUpdates(**{"seed": 0, "warmup": NEVER, **options})
    arguments = {"run_eagerly": True, **(compiled_with or {})}
    model.compile(optimizer, "mse", gradient_method=method, **arguments)
    if groups is not None:
        model.gradient_method.assignment.assign(np.array(groups, "float32"))
    return model


def fit(model, epochs=2, data=None, **kwargs):
    """Trains, by default for epochs of three batches."""
    x, y = data or make_data(48)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, "epochs": epochs, **kwargs}
    return model.fit(x, y, **options).history


def state(model):
    """All weights but those of the method, and the optimizer's."""
    method = model.gradient_method
    own = {id(one) for one in method.weights} if method is not None else set()
    weights = [one for one in model.weights if id(one) not in own]
    return [one.numpy() for one in [*weights, *model.optimizer.variables]]


def assert_same_state(model, other, atol=1e-6):
    for value, wanted in zip(state(model), state(other), strict=True):
        np.testing.assert_allclose(value, wanted, atol=atol)


def assert_same_weights(model, other):
    for value, wanted in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(value.numpy(), wanted.numpy())


@pytest.mark.parametrize(
    ("optimizer", "jit_compile", "eagerly"),
    [
        ("momentum", False, False),
        pytest.param("adam", True, False, marks=pytest.mark.slow),
        ("adam", False, True),
    ],
)
def test_all_tasks_in_one_group_is_joint_training(optimizer, jit_compile, eagerly):
    ends, logs = [], []
    make = {
        "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0),
        "adam": lambda: keras.optimizers.Adam(0.01),
    }[optimizer]
    arguments = {
        "loss_weights": {"a": 2.0},
        "metrics": {"a": ["mae"]},
        "jit_compile": jit_compile,
        "run_eagerly": eagerly,
    }
    for with_method in (False, True):
        model = (make_deep_model if eagerly or jit_compile else make_model)(regularizer="l2")
        if with_method:
            compiled(model, make(), groups=[0, 0, 0], compiled_with=arguments)
        else:
            model.compile(make(), "mse", **arguments)
        logs.append(fit(model, epochs=1))
        ends.append(model)
    assert_same_state(*ends)
    assert list(logs[0]) == list(logs[1])
    for name in logs[0]:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-5)
    # And the steps were measured, without running a batch twice.
    assert (ends[1].gradient_method.count.numpy()[~np.eye(3, dtype=bool)] == 3).all()


class Parameters(layers.Layer):
    """Gives its weights, whatever the inputs."""

    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self._values = np.array(values, "float32")

    def build(self, input_shape):
        self.theta = self.add_weight(
            shape=self._values.shape, initializer=lambda shape, dtype: self._values
        )

    def call(self, inputs):
        return tf.repeat(self.theta[None], tf.shape(inputs)[0], axis=0)


def quadratics(start, centres, **options):
    """Tasks with the losses mean((theta - c)^2) for the shared theta, after one batch of SGD."""
    keras.utils.set_random_seed(0)
    tasks = {f"t{index}": np.array(one, "float32") for index, one in enumerate(centres)}
    model = tag_keras.MultiTaskModel(Parameters(start), {task: layers.Identity() for task in tasks})
    compiled(model, keras.optimizers.SGD(0.1), **options)
    order = [np.flatnonzero(row).tolist() for row in model.gradient_method.shuffled_groups()[0]]
    labels = {task: np.repeat(one[None], 4, axis=0) for task, one in tasks.items()}
    model.train_on_batch(np.zeros((4, 1)), labels)
    return model, order


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_updates_follow_one_another(seed):
    # Halved: 0.5 (theta - c)^2 for c = 1, -1 from theta = 2 with the rate 0.1. First c = 1:
    # 2 - 0.1 * 1 = 1.9, then 1.9 - 0.1 * 2.9 = 1.61. First c = -1: 2 - 0.1 * 3 = 1.7, then
    # 1.7 - 0.1 * 0.7 = 1.63. One joint step: 2 - 0.1 * (1 + 3) = 1.6.
    weights = {"loss_weights": {"t0": 0.5, "t1": 0.5}}
    model, order = quadratics([2.0], [[1.0], [-1.0]], seed=seed, compiled_with=weights)
    expected = {((0,), (1,)): 1.61, ((1,), (0,)): 1.63}[tuple(map(tuple, order))]
    assert model.encoder.theta.numpy() == pytest.approx([expected], abs=1e-6)
    joint, _ = quadratics([2.0], [[1.0], [-1.0]], groups=[0, 0], compiled_with=weights)
    assert joint.encoder.theta.numpy() == pytest.approx([1.6], abs=1e-6)


def test_the_order_is_drawn_anew_for_each_batch_and_each_seed():
    method = compiled(make_model()).gradient_method
    orders = set()
    for seed in range(5):
        method.seed_used.assign(seed)
        for batch in range(10):
            method.batches.assign(batch)
            groups, number = method.shuffled_groups()
            assert int(number) == 3
            orders.add((seed, tuple(groups.numpy().argmax(axis=1))))
    # All six, and not the same ones for each seed.
    assert len({order for _, order in orders}) == 6 and len(orders) > 15
    method.assignment.assign([1, 1, 0])
    groups, number = method.shuffled_groups()
    assert int(number) == 2 and not groups.numpy()[2].any()
    assert sorted(groups.numpy()[:2].tolist()) == [[False, False, True], [True, True, False]]


@pytest.mark.parametrize("seed", range(3))
def test_the_first_update_of_a_task_alone_gives_the_inter_task_affinity_of_tag(seed):
    # METHODS 1(d): Z of quadratics at theta = (0, 0), rate 0.1.
    tag = [[0.19, -0.01, -0.21], [-0.01, 0.19, -0.01], [-0.21, -0.01, 0.19]]
    centres = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]
    model, order = quadratics([0.0, 0.0], centres, seed=seed, decay=1.0)
    (first,) = order[0]
    np.testing.assert_allclose(model.gradient_method.affinity.numpy()[first], tag[first], atol=1e-6)


class ByHand:
    """The algorithm in Python: one optimizer for the shared variables and one for each head."""

    def __init__(self, model, make, decay, x):
        self.model, self.decay = model, decay
        model(x)
        self.shared, *self.heads = (make() for _ in range(1 + len(TASKS)))
        self.shared.build(model.encoder.trainable_variables)
        for optimizer, task in zip(self.heads, TASKS, strict=True):
            optimizer.build(model.heads[task].trainable_variables)
        self.affinity = np.zeros((len(TASKS), len(TASKS)))

    def losses(self, x, y):
        predictions = self.model(x, training=True)
        return [tf.reduce_mean((y[task][:, None] - predictions[task]) ** 2) for task in TASKS]

    def batch(self, x, y, order, norm):
        encoder = self.model.encoder.trainable_variables
        for group in order:
            heads = [self.model.heads[TASKS[index]].trainable_variables for index in group]
            with tf.GradientTape() as tape:
                losses = self.losses(x, y)
                loss = sum(losses[index] for index in group) / (len(group) if norm else 1)
                loss += sum(self.model.losses)
            gradients = tape.gradient(loss, [encoder, heads])
            self.shared.apply(gradients[0], encoder)
            for index, row, variables in zip(group, gradients[1], heads, strict=True):
                self.heads[index].apply(row, variables)
            self.measure([float(one) for one in losses], x, y, group)

    def measure(self, before, x, y, group):
        after = np.array([float(one) for one in self.losses(x, y)])
        members = np.isin(np.arange(len(TASKS)), group)
        values = attribute(np.array(before), after, members)
        new = (1 - self.decay) * self.affinity + self.decay * values
        self.affinity = np.where(np.isnan(values), self.affinity, new)


def assert_trained_as_by_hand(make, x, y, groups, eagerly=True, **options):
    """Three batches of 16 with a rate that falls, and Adam."""

    def rate():
        return keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.5)

    model, twin = make(), make()
    arguments = {"compiled_with": {"run_eagerly": eagerly}, "decay": 0.2, **options}
    compiled(model, keras.optimizers.Adam(rate()), groups, **arguments)
    # The schedule goes by batches, which the optimizer of the shared variables does not count.
    by_hand = ByHand(twin, lambda: keras.optimizers.Adam(0.0), 0.2, x)
    method = model.gradient_method
    for number in range(3):
        part = slice(16 * number, 16 * number + 16)
        batch = x[part], {task: labels[part] for task, labels in y.items()}
        rows = method.shuffled_groups()[0].numpy()
        for optimizer in (by_hand.shared, *by_hand.heads):
            optimizer.learning_rate = 0.05 / (1 + 0.5 * number)
        order = [np.flatnonzero(row) for row in rows if row.any()]
        by_hand.batch(*batch, order, method.group_norm)
        model.train_on_batch(*batch)
    for value, wanted in zip(model.trainable_variables, twin.trainable_variables, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), atol=1e-5)
    np.testing.assert_allclose(method.affinity.numpy(), by_hand.affinity, atol=1e-5)
    # Once per batch, and the shared variables' updates beyond it.
    assert int(model.optimizer.iterations) == int(method.batches) == 3
    assert float(method.more_updates) == 3 * (len(set(groups)) - 1)


@pytest.mark.parametrize(
    ("groups", "norm", "eagerly"), [([0, 1, 2], False, True), ([0, 1, 0], True, False)]
)
def test_training_against_the_algorithm_by_hand(groups, norm, eagerly):
    assert_trained_as_by_hand(
        lambda: make_model(regularizer="l2"), *make_data(48), groups, eagerly, group_norm=norm
    )


def test_slices_of_an_embedding():
    # Three words, each many times in a batch: Adam squares the slices of one row one by one.
    def make():
        keras.utils.set_random_seed(0)
        encoder = keras.Sequential([layers.Embedding(3, 4), layers.Flatten()])
        return tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in TASKS})

    words = np.random.default_rng(0).integers(0, 3, (48, 4))
    assert_trained_as_by_hand(make, words, make_data(48)[1], [0, 1, 2])


@pytest.mark.parametrize("eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_without_measuring_the_last_update(eagerly):
    model = compiled(make_model(), measure_last=False, compiled_with={"run_eagerly": eagerly})
    orders = []
    for batch in range(6):
        model.gradient_method.batches.assign(batch)
        orders.append(model.gradient_method.shuffled_groups()[0].numpy().argmax(axis=1))
    model.gradient_method.batches.assign(0)
    fit(model)
    measured = [sum(task in order[:2] for order in orders) for task in range(3)]
    # Of each source onto the target after it: the diagonal leaves out what harms itself.
    count = model.gradient_method.count.numpy()
    assert [count[0, 1], count[1, 2], count[2, 0]] == measured


def test_nothing_is_measured_of_one_group_whose_update_is_the_last():
    model = compiled(make_model(), groups=[0, 0, 0], measure_last=False)
    fit(model, epochs=1)
    with pytest.raises(ValueError, match=r"No affinities have been measured\. Call `fit` first"):
        model.get_affinity()


def test_forward_passes_of_a_batch_share_their_dropout_masks_and_batchnorm_moves_once():
    # With the rate 0 no update changes anything, so every change would be one of the masks.
    model = compiled(make_deep_model(dropout=0.5), keras.optimizers.SGD(0.0), decay=1.0)
    fit(model, epochs=1)
    np.testing.assert_array_equal(model.gradient_method.affinity.numpy(), np.zeros((3, 3)))
    plain = make_deep_model(dropout=0.5)
    plain.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    fit(plain, epochs=1)
    assert_same_state(model, plain)


def test_groups_form_after_the_warm_up_and_the_step_is_traced_once():
    class Counting(layers.Dense):
        calls = 0

        def call(self, inputs, training=None):
            Counting.calls += 1
            return super().call(inputs)

    keras.utils.set_random_seed(0)
    model = tag_keras.MultiTaskModel(Counting(8), {task: layers.Dense(1) for task in TASKS})
    compiled(model, warmup=3, decay=0.1, compiled_with=GRAPH)
    method = model.gradient_method
    assert method.groups == (("b",), ("a",), ("c",))
    fit(model, epochs=1)
    # By what the three batches have measured.
    assert method.groups != (("b",), ("a",), ("c",))
    labels = cluster_tasks(method.affinity.numpy(), seed=0)
    np.testing.assert_array_equal(method.assignment.numpy(), labels)
    assert sorted(task for group in method.groups for task in group) == sorted(TASKS)
    calls = Counting.calls
    fit(model, epochs=2)
    assert Counting.calls == calls


def clustered_at(monkeypatch, **options):
    """The numbers of batches after which groups are formed."""
    model = make_model()
    numbers = []

    def record(*args, **kwargs):
        numbers.append(int(model.gradient_method.batches))

    monkeypatch.setattr("tag_keras.gradient_methods.selective_updates.method.cluster_tasks", record)
    fit(compiled(model, **options))
    return numbers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup": 5}, [5, 6]),
        ({"warmup": 2, "regroup_every": 3}, [3, 6]),
        # Executions are of 2 batches, and of the one that is left of an epoch.
        ({"warmup": 1, "compiled_with": {**GRAPH, "steps_per_execution": 2}}, [2, 3, 5, 6]),
    ],
)
def test_when_groups_are_formed(monkeypatch, options, expected):
    assert clustered_at(monkeypatch, **options) == expected


def test_groups_that_cannot_be_formed_stay(monkeypatch):
    model = compiled(make_model(), groups=[0, 1, 0], warmup=0)
    # No task has lowered its own loss.
    monkeypatch.setattr(
        "tag_keras.gradient_methods.selective_updates.clustering.similarities",
        lambda affinity: None,
    )
    fit(model)
    assert model.gradient_method.groups == (("b", "c"), ("a",))


def test_a_task_without_labels_takes_no_part_in_the_batch():
    x, y = make_data(16)
    y["a"] = np.full(16, np.nan, "float32")
    model = compiled(make_model(), decay=1.0)
    model(x)
    before = [one.numpy() for one in model.heads["a"].trainable_variables]
    model.train_on_batch(x, y)
    method = model.gradient_method
    np.testing.assert_array_equal(method.count.numpy()[1], 0)
    np.testing.assert_array_equal(method.count.numpy()[:, 1], 0)
    assert method.count.numpy()[0, 2] == method.count.numpy()[2, 0] == 1
    # It makes no update, not even of the optimizer's state for its head.
    for variable, value in zip(model.heads["a"].trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert float(method.more_updates) == 1
    assert np.isnan(model.get_affinity().mean[1, 0])
    # In a group it is as if it were not there: the other one is the source of the whole change.
    alone, beside = (
        compiled(make_model(), keras.optimizers.SGD(0.1), groups, decay=1.0)
        for groups in ([0, 1, 2], [0, 0, 2])
    )
    for one in (alone, beside):
        one.train_on_batch(x, y)
    np.testing.assert_allclose(
        beside.gradient_method.affinity.numpy(), alone.gradient_method.affinity.numpy(), atol=1e-6
    )


def test_variables_of_some_tasks_move_with_their_groups():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    trunk = layers.Dense(4, name="trunk")(inputs)
    branch = layers.Dense(4, name="branch")(trunk)
    outputs = {"b": branch, "a": trunk, "c": branch}
    outputs = {task: layers.Dense(1, name=task)(tensor) for task, tensor in outputs.items()}
    model = tag_keras.MultiTaskModel.from_functional(keras.Model(inputs, outputs))
    compiled(model, groups=[0, 1, 0])
    x, y = make_data(16)
    # Without labels for b and c, only the group of a makes an update.
    y = {**y, "b": y["b"] * np.nan, "c": y["c"] * np.nan}
    before = {one.path: one.numpy() for one in model.trainable_variables}
    model.train_on_batch(x, y)
    moved = {
        one.path.split("/")[0]
        for one in model.trainable_variables
        if not np.array_equal(one.numpy(), before[one.path])
    }
    assert moved == {"trunk", "a"}


def test_one_task_is_trained_as_by_keras():
    ends = []
    for with_method in (False, True):
        model = make_model(tasks=("a",))
        if with_method:
            compiled(model, warmup=0)
        else:
            model.compile("adam", "mse", run_eagerly=True)
        fit(model)
        ends.append(model)
    assert_same_state(*ends)
    assert ends[1].gradient_method.groups == (("a",),)
    assert ends[1].get_affinity().mean.shape == (1, 1)


def test_the_affinities_are_of_use_for_selecting_groups():
    model = compiled(make_model(), decay=0.1, warmup=3)
    fit(model)
    assert model.measures_affinity
    affinity, method = model.get_affinity(), model.gradient_method
    assert affinity.tasks == TASKS and np.isnan(affinity.standard_error).all()
    np.testing.assert_array_equal(affinity.count, method.count.numpy())
    # The average of T values from 0 is too small by 1 - (1 - decay)^T.
    expected = method.affinity.numpy() / (1 - 0.9**affinity.count)
    np.testing.assert_allclose(affinity.mean, expected, rtol=1e-5)
    assert (np.diag(affinity.mean) > 0).all()
    grouping = tag_keras.select_groups(affinity, num_groups=2)
    assert set(grouping.serves) == set(TASKS)


def test_affinities_of_averages_that_keep_the_last_value_only():
    model = compiled(make_model(), decay=1.0)
    fit(model)
    method = model.gradient_method
    np.testing.assert_array_equal(model.get_affinity().mean, method.affinity.numpy())
    with pytest.raises(ValueError, match="No affinities have been measured"):
        compiled(make_model()).get_affinity()


def test_a_model_that_is_saved_and_loaded_goes_on_as_if_it_were_not(tmp_path):
    options = {"warmup": 3, "decay": 0.1, "preference": 0.5, "regroup_every": 2, "seed": None}
    model = compiled(make_model(), **options)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    method, other = model.gradient_method, loaded.gradient_method
    assert other.get_config() == method.get_config() and other.groups == method.groups
    assert method.get_config()["preference"] == 0.5 and method.get_config()["seed"] is not None
    for one in (model, loaded):
        fit(one, epochs=1)
    assert_same_state(model, loaded)
    for value, wanted in zip(other.weights, method.weights, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), atol=1e-6)


def test_training_goes_on_from_weights_of_joint_training_and_back(tmp_path):
    joint, model = make_model(), compiled(make_model())
    joint.compile("adam", "mse", run_eagerly=True)
    for one in (joint, model):
        fit(one, epochs=1)
        one.save_weights(tmp_path / f"{one is model}.weights.h5")
    start = compiled(make_model())
    start(make_data()[0])
    start.optimizer.build(start.trainable_variables)
    start.load_weights(tmp_path / "False.weights.h5")
    assert start.gradient_method.groups == (("b",), ("a",), ("c",))
    assert_same_weights(start, joint)
    joint.load_weights(tmp_path / "True.weights.h5")
    assert_same_weights(joint, model)


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path):
    def run(folder, seed, *callbacks):
        model = make_model()
        # Another seed at the restart: it goes on with the one of the start.
        compiled(model, warmup=2, decay=0.1, seed=seed)
        model(make_data()[0])
        backup = keras.callbacks.BackupAndRestore(folder)
        fit(model, epochs=2, callbacks=[backup, *callbacks])
        return model

    expected = run(tmp_path / "expected", 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 3, Kill())
    resumed = run(tmp_path / "killed", 7)
    assert_same_state(resumed, expected)
    pairs = zip(resumed.gradient_method.weights, expected.gradient_method.weights, strict=True)
    for value, wanted in pairs:
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), atol=1e-6)


def test_compiling_again_starts_anew():
    model = compiled(make_model(), warmup=3)
    fit(model)
    number = len(model.weights)
    compiled(model, warmup=3)
    assert len(model.weights) == number
    assert model.gradient_method.groups == (("b",), ("a",), ("c",))
    assert not model.gradient_method.affinity.numpy().any()
    model.compile("adam", "mse", run_eagerly=True)
    fit(model, epochs=1)
    assert model.gradient_method is None and len(model.weights) == number - 7


@pytest.mark.parametrize(
    "dtype", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)]
)
def test_mixed_precision(dtype):
    results = []
    for policy in ("float32", dtype):
        keras.config.set_dtype_policy(policy)
        try:
            optimizer = keras.optimizers.Adam()
            if policy == "mixed_float16":
                # From the usual 32768 on, the first updates would overflow.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 1024.0)
            model = compiled(make_model(), optimizer, groups=[0, 1, 0], decay=0.5)
            fit(model)
        finally:
            keras.config.set_dtype_policy("float32")
        results.append(model)
    exact, model = (one.gradient_method.affinity.numpy() for one in results)
    np.testing.assert_allclose(model, exact, atol=0.05 * np.abs(exact).max())
    assert int(results[1].optimizer.iterations) == 6


def test_updates_whose_gradients_overflow_are_left_out():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(make_model())
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = make_data(16)
    # A gradient of 1e5, and times 32768, is beyond float16; those of the others are not.
    y["a"] *= 1e5
    model(x)
    before = {one.path: one.numpy() for one in model.trainable_variables}
    model.train_on_batch(x, y)
    for variable in model.heads["a"].trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])
    for variable in [*model.heads["b"].trainable_variables, *model.encoder.trainable_variables]:
        assert np.isfinite(variable.numpy()).all()
        assert np.abs(variable.numpy() - before[variable.path]).max() > 0
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    assert int(model.optimizer.iterations) == 1
    count = model.gradient_method.count.numpy()
    assert not count[1].any() and count[0, 2] == count[2, 0] == 1


def test_the_loss_scale_grows_once_in_so_many_batches():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inner = keras.optimizers.SGD(0.01)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, 4.0, dynamic_growth_steps=4)
        model = compiled(make_model(), optimizer)
        fit(model)
    finally:
        keras.config.set_dtype_policy("float32")
    # 6 batches, of three updates each.
    assert float(optimizer.dynamic_scale) == 8.0 and int(optimizer.step_counter) == 2


def missing_data():
    """Of batches of 15, one replica has 8 examples and the other 7."""
    x, y = make_data(90)
    rng = np.random.default_rng(0)
    for values in y.values():
        values[rng.uniform(size=90) < 0.4] = np.nan
    # No label for one of the replicas in the first batch, none at all in the second.
    y["a"][:8] = y["a"][15:30] = np.nan
    return x, y


@pytest.mark.parametrize(
    "options",
    [
        {"warmup": 4, "decay": 0.1},
        pytest.param({"groups": [0, 1, 0], "measure_last": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_replicas_are_one(two_replicas, options):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            arguments = {"run_eagerly": strategy is not two_replicas}
            model = compiled(make_model(regularizer="l2"), compiled_with=arguments, **options)
        results.append((model, fit(model, data=missing_data(), batch_size=15)))
    (model, logs), (other, history) = results
    assert_same_state(other, model, atol=2e-6)
    pairs = zip(other.gradient_method.weights, model.gradient_method.weights, strict=True)
    for value, wanted in pairs:
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), atol=2e-6)
    assert list(logs) == list(history)
    for name in logs:
        np.testing.assert_allclose(history[name], logs[name], rtol=1e-5)
    for variable in other.trainable_variables:
        one, two = two_replicas.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_two_replicas_with_synchronized_batchnorm(two_replicas):
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            stack = [layers.Dense(8, use_bias=False), layers.BatchNormalization(synchronized=True)]
            encoder = keras.Sequential([keras.Input((5,)), *stack, layers.ReLU()])
            heads = {task: layers.Dense(1) for task in TASKS}
            model = tag_keras.MultiTaskModel(encoder, heads)
            compiled(model, groups=[0, 1, 0], compiled_with=GRAPH)
        fit(model, epochs=1)
        results.append(model)
    assert_same_state(*results, atol=2e-6)
    affinities = [one.gradient_method.affinity.numpy() for one in results]
    np.testing.assert_allclose(*affinities, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 0}, r"`decay` should be in \(0, 1\]\. Received: decay=0\."),
        ({"decay": 1.5}, r"`decay` should be in .* Received: decay=1\.5\."),
        ({"decay": True}, r"`decay` should be in .* Received: decay=True\."),
        ({"preference": "median"}, r"`preference` should be a finite number, or None"),
        ({"preference": float("nan")}, r"`preference` should be .* Received: preference=nan\."),
        ({"warmup": -1}, r"`warmup` should be an integer from 0 on\. Received: warmup=-1\."),
        ({"warmup": 2.0}, r"`warmup` should be an integer from 0 on\. Received: warmup=2\.0\."),
        ({"regroup_every": 0}, r"`regroup_every` should be at least 1\. Received: .*=0\."),
        ({"regroup_every": 1.5}, r"`regroup_every` should be an integer\. Received: .*=1\.5\."),
        ({"group_norm": 1}, r"`group_norm` should be a bool\. Received: group_norm=1\."),
        ({"measure_last": None}, r"`measure_last` should be a bool\. Received: .*=None\."),
        ({"seed": -1}, r"`seed` should be an integer from 0 on\. Received: seed=-1\."),
        ({"seed": 2**63}, r"`seed` should be below 2 \*\* 63\. Received: seed=9223372036854775808"),
    ],
)
def test_options_that_are_not_what_they_should_be(options, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.SelectiveTaskGroupUpdates(**options)


def test_counters_go_on_where_float32_would_stand_still():
    model = compiled(make_model(), seed=2**62, measure_last=True, warmup=1)
    fit(model, epochs=1)
    method, most = model.gradient_method, 2**24
    assert int(method.seed_used) == 2**62
    before = int(method.more_updates)
    for counter in (method.batches, method.more_updates, method.grouped_at):
        counter.assign(np.int64(most))
    method.count.assign(np.full((3, 3), most))
    fit(model, epochs=1)
    assert int(method.batches) == int(method.grouped_at) == most + 3
    assert most < int(method.more_updates) <= most + before
    assert (model.get_affinity().count[~np.eye(3, dtype=bool)] > most).all()


def test_the_seed_that_is_drawn_follows_that_of_keras():
    seeds = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        seeds.append(tag_keras.SelectiveTaskGroupUpdates().seed)
    assert seeds[0] == seeds[1] != seeds[2]


def test_one_object_serves_models_of_other_tasks():
    given = tag_keras.SelectiveTaskGroupUpdates(seed=3)
    models = [make_model(), make_model(("a", "b"))]
    for model in models:
        model.compile("adam", "mse", gradient_method=given)
    methods = [model.gradient_method for model in models]
    assert [len(method.groups) for method in methods] == [3, 2]
    for ask in (lambda: given.groups, given.get_affinity):
        with pytest.raises(ValueError, match=r"copy of its own: ask `model\.gradient_method`"):
            ask()
    assert not given.weights and all(int(method.seed_used) == 3 for method in methods)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("affinity", tag_keras.LookaheadAffinity()),
        ("loss_weighting", tag_keras.GradNorm("shared")),
        ("loss_weighting", tag_keras.UncertaintyWeighting()),
    ],
)
def test_what_has_no_part_in_the_updates_is_refused(name, other):
    method = tag_keras.SelectiveTaskGroupUpdates()
    message = (
        f"has training steps of its own, in which `{name}` has no part.*{type(other).__name__}"
    )
    with pytest.raises(ValueError, match=message):
        make_model().compile("adam", "mse", gradient_method=method, **{name: other})


def test_weights_of_the_losses_that_follow_the_epochs():
    # Dynamic weight average: 1 in the first two epochs, then from the losses of these.
    x, y = make_data(48)
    model = make_model()
    weighting = tag_keras.DynamicWeightAverage()
    method = tag_keras.SelectiveTaskGroupUpdates(seed=0, warmup=NEVER)
    model.compile("sgd", "mse", gradient_method=method, loss_weighting=weighting, run_eagerly=True)
    logs = model.fit(x, y, batch_size=16, epochs=3, verbose=0).history
    before = np.array([logs[f"{task}_loss"][:2] for task in TASKS])
    ratios = np.exp(before[:, 1] / before[:, 0] / 2)
    weights = np.array([logs[f"{task}_weight"] for task in TASKS])
    np.testing.assert_allclose(weights[:, :2], 1)
    np.testing.assert_allclose(weights[:, 2], 3 * ratios / ratios.sum(), rtol=1e-5)


def test_nothing_is_shared():
    model = compiled(
        tag_keras.MultiTaskModel(layers.Flatten(), {t: layers.Dense(1) for t in TASKS})
    )
    message = "no trainable variable that several tasks share, so there is nothing that a gradient"
    with pytest.raises(ValueError, match=message):
        fit(model)


@pytest.mark.parametrize(
    "options", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_optimizers_that_do_not_go_with_several_updates(options):
    model = compiled(make_model(), keras.optimizers.SGD(0.1, **options))
    with pytest.raises(
        ValueError, match=r"which does not go with .* of the optimizer: leave it out"
    ):
        fit(model)


def test_an_optimizer_that_keeps_something_in_common():
    model = compiled(make_model(), "nadam")
    with pytest.raises(ValueError, match="Nadam has a state that all variables have in common"):
        fit(model)


def test_training_without_scikit_learn(monkeypatch):
    model = compiled(make_model())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="form their groups with scikit-learn"):
        model.make_train_function()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_tasks_of_a_planted_cluster_are_in_one_group(seed):
    # benchmarks/planted.py: three clusters of three tasks each, and one of noise alone.
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16, "relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in planted.TASKS})
    # 640 batches, in which averages over some 100 forget the first ones.
    compiled(model, keras.optimizers.Adam(2e-3), decay=0.01, warmup=100, compiled_with=GRAPH)
    fit(model, epochs=20, data=planted.make_data(seed), batch_size=32)
    groups = model.gradient_method.groups
    # Of some seeds two clusters are together, but none is torn apart.
    assert len(groups) > 1
    for cluster in planted.CLUSTERS:
        assert any(set(cluster) <= set(group) for group in groups)
