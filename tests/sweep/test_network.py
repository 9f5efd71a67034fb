"""Networks: built and trained from a seed, evaluated into rows, saved and loaded; one per group."""

import functools
import math
import random
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweep_job import DATA, build_model

import tag_keras
from tag_keras.sweep import evaluation, inputs
from tag_keras.sweep import network as training
from tag_keras.utils import files

layers = keras.layers
TASKS = ("a", "b", "c")
GROUPING = tag_keras.Grouping(
    TASKS, (("a", "b"), ("c",)), {"a": 0, "b": 0, "c": 1}, score=0.1, upper_bound=0.1, optimal=True
)
ALL_TOGETHER = tag_keras.Grouping(
    TASKS, (TASKS,), dict.fromkeys(TASKS, 0), score=0.1, upper_bound=0.1, optimal=True
)
X = DATA["test"][0]


def train_groups(output_dir=None, grouping=GROUPING, epochs=2, **fit):
    return tag_keras.train_groups(
        build_model,
        grouping,
        DATA["train"],
        DATA["validation"],
        epochs,
        output_dir,
        seed=3,
        **{"verbose": 0, **fit},
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder of networks by group, whose training was stopped before the second and resumed."""
    folder, trained = tmp_path_factory.mktemp("kept"), []
    original = training.train_network

    def stop_at_second(build, network, *args, **kwargs):
        if trained:
            raise KeyboardInterrupt
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_network", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            train_groups(folder)
    assert trained == ["group_0"]
    train_groups(folder)
    return folder


def saved(folder):
    path = folder / "model.keras"
    model = build_model(("a", "b"))
    model(X)
    model.save(path)
    return path


def flip_a_byte(path):
    contents = bytearray(path.read_bytes())
    # In the midst of the weights, the largest part.
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def edit_config(path, edit):
    """Edits the configuration in the file of a model, whose checksums stay right."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = parts["config.json"].decode()
    parts["config.json"] = edit(config).encode()
    assert parts["config.json"].decode() != config
    with zipfile.ZipFile(path, "w") as file:
        for name, part in parts.items():
            file.writestr(name, part)


def test_train_groups_goes_on_where_it_stopped(kept, monkeypatch):
    seen = []

    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            seen.append(self.epochs)

    count = Count()
    # Nor does it change a training that its networks are kept.
    kept_nowhere = train_groups(callbacks=[count]).predict(X, verbose=0)
    # Callbacks are copied for each network.
    assert count.epochs == 0 and seen == [1, 2, 1, 2]
    monkeypatch.setattr(training, "train_network", None)  # Nothing is left to train.
    predictions = train_groups(kept).predict(X, verbose=0)
    for task in TASKS:
        np.testing.assert_array_equal(predictions[task], kept_nowhere[task])
    # Each network is a model trained alone.
    for group in GROUPING.groups:
        keras.utils.set_random_seed(3)
        alone = build_model(group)
        alone.fit(*DATA["train"], epochs=2, verbose=0)
        expected = alone.predict(X, verbose=0)
        for task in group:
            np.testing.assert_allclose(predictions[task], expected[task], atol=1e-6)


def test_train_groups_gives_a_model_that_evaluates_as_its_networks(kept):
    grouped, again = train_groups(epochs=1), train_groups(kept)
    options = {"batch_size": 16, "verbose": 0, "return_dict": True}
    logs = grouped.evaluate(*DATA["test"], **options)
    for model, index in zip(grouped.models, range(2), strict=True):
        own = model.evaluate(*DATA["test"], **options)
        for name, value in own.items():
            task = name.partition("_")[0]
            if GROUPING.serves.get(task) == index:
                assert logs.pop(name) == value
    # Nothing else is logged.
    assert [*logs] == ["loss"]
    for model in (grouped, again):
        assert model.compiled and {*model.evaluate(*DATA["test"], **options)} >= {
            "a_loss",
            "c_loss",
        }
    # By epoch, with the validation; networks of an earlier call have none.
    for history in grouped.histories:
        assert len(history["loss"]) == len(history["val_loss"]) == 1
    assert {"a_loss", "val_b_loss"} <= {*grouped.histories[0]} and "c_loss" in grouped.histories[1]
    assert again.histories == [None, None]


def test_networks_of_other_classes_are_combined_without_being_compiled():
    other = keras.Sequential([layers.Dense(1)])
    other.compile("sgd", "mse")
    assert not training._combined([other, build_model(("c",))], GROUPING).compiled
    both = [build_model(("a", "b")), build_model(("c",))]
    assert training._combined(both, GROUPING).compiled


def test_train_groups_names_what_is_wrong_with_its_folder(kept, tmp_path):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="holds another run: groups was"):
        train_groups(tmp_path, ALL_TOGETHER)
    with pytest.raises(ValueError, match="holds another run: epochs was 2 and is 3"):
        train_groups(tmp_path, epochs=3)
    edit_config(tmp_path / "group_1_seed3.keras", lambda config: "{}")
    with pytest.raises(ValueError, match=r"group_1_seed3\.keras cannot be loaded"):
        train_groups(tmp_path)


def test_train_groups_refuses_another_model_and_says_when_it_only_reads(kept, monkeypatch, capsys):
    monkeypatch.setattr(training, "train_network", None)  # Nothing is left to train.

    def build_wider(tasks):
        encoder = keras.Sequential([keras.Input((5,)), layers.Dense(512, activation="relu")])
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    data = DATA["train"], DATA["validation"], 2, kept
    with pytest.raises(ValueError, match="another run: units of dense was 4 and is 512"):
        tag_keras.train_groups(build_wider, GROUPING, *data, seed=3, verbose=0)
    x, y = DATA["train"]
    for train, validation in [((2 * x, y), data[1]), ((x, y), data[0])]:
        with pytest.raises(ValueError, match=r"another run: x of \w+ was float32 \(40, 5\) .* and"):
            tag_keras.train_groups(
                build_model, GROUPING, train, validation, 2, kept, seed=3, verbose=0
            )
    with pytest.raises(ValueError, match=r"another run: callbacks was absent and is \{"):
        train_groups(kept, callbacks=[keras.callbacks.EarlyStopping("loss")])
    capsys.readouterr()
    train_groups(kept)
    assert capsys.readouterr().out == ""
    train_groups(kept, verbose="auto")
    printed = capsys.readouterr().out
    assert printed.startswith(f"Nothing to train: everything in {kept} was trained by 20")


@pytest.mark.slow
def test_train_groups_trains_a_damaged_network_anew(kept, tmp_path, capsys):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "group_1_seed3.keras"
    flip_a_byte(path)
    predictions = train_groups(tmp_path).predict(X, verbose=0)
    assert f"{path} is damaged (bad checksum of " in capsys.readouterr().out
    # The same network: it has the same seed.
    expected = train_groups(kept).predict(X, verbose=0)
    for task in TASKS:
        np.testing.assert_array_equal(predictions[task], expected[task])
    tag_keras.load_network(path)


@pytest.mark.slow
def test_a_network_that_would_predict_nan_is_refused_and_not_kept(tmp_path):
    x, y = DATA["train"]
    # Of the second group, with the first 32 examples.
    nan = {**y, "c": np.where(np.arange(len(x)) == 3, np.inf, y["c"])}
    message = r"The network 'group_1', seed 0, of the tasks \['c'\] has weights that are not finite"
    for folder in (None, tmp_path):
        with pytest.raises(ValueError, match=f"{message} .* Lower the learning rate, or look for"):
            tag_keras.train_groups(
                build_model, GROUPING, (x, nan), output_dir=folder, epochs=2, verbose=0
            )
    assert [path.name for path in tmp_path.glob("*.keras")] == ["group_0_seed0.keras"]


def test_a_network_that_one_step_has_made_huge_is_refused():
    def build(tasks):
        model = build_model(tasks)
        model.compile(keras.optimizers.SGD(3e25), "mse", run_eagerly=True)
        return model

    # After its only step, all weights are finite, and all losses NaN.
    with pytest.raises(ValueError, match=r"'group_0', seed 0, .* not finite or far too large"):
        tag_keras.train_groups(build, GROUPING, DATA["train"], batch_size=64, verbose=0)


@pytest.mark.filterwarnings("ignore:The training data have no label")
def test_weights_that_are_not_finite():
    x, y = DATA["train"]
    normalization, mask = layers.BatchNormalization(), layers.Dense(3, trainable=False)
    model = tag_keras.MultiTaskModel(
        keras.Sequential([normalization, mask]), {task: layers.Dense(1) for task in "ab"}
    )
    # It knows no losses of the task without labels: they stay NaN.
    labels = {"a": y["a"], "b": y["b"] * np.nan}
    model.compile("sgd", "mse", loss_weighting=tag_keras.DynamicWeightAverage(), run_eagerly=True)
    model.fit(x, labels, verbose=0)
    assert any(np.isnan(np.asarray(one)).any() for one in model.weights)
    assert training.is_finite(model)
    # Of what is not trained, a mask may be infinite, but nothing may be NaN.
    mask.bias.assign([-np.inf, 0, 0])
    assert training.is_finite(model)
    normalization.moving_mean.assign(normalization.moving_mean * np.nan)
    assert not training.is_finite(model)
    normalization.moving_mean.assign(np.zeros(5))
    model.heads["b"].bias.assign([np.inf])
    assert not training.is_finite(model)


@pytest.mark.slow
def test_a_network_kept_with_nan_is_trained_anew(kept, tmp_path, capsys):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "group_1_seed3.keras"
    model = tag_keras.load_network(path)
    model.trainable_variables[0].assign(model.trainable_variables[0] * np.nan)
    model.save(path)
    predictions = train_groups(tmp_path).predict(X, verbose=0)
    assert f"{path} has weights that are not finite, and is made anew" in capsys.readouterr().out
    expected = train_groups(kept).predict(X, verbose=0)
    for task in TASKS:
        np.testing.assert_array_equal(predictions[task], expected[task])
    np.testing.assert_equal(
        tag_keras.load_network(path).get_weights(),
        tag_keras.load_network(kept / "group_1_seed3.keras").get_weights(),
    )


def test_train_groups_is_alone_in_its_folder(tmp_path):
    def build(tasks):
        with pytest.raises(ValueError, match="at"), files.locked(tmp_path / ".lock", "at", False):
            pass
        return build_model(tasks)

    with files.locked(tmp_path / ".lock", "", wait=False):
        with pytest.raises(ValueError, match=f"Another run is at work in {tmp_path}"):
            train_groups(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    tag_keras.train_groups(build, GROUPING, DATA["train"], output_dir=tmp_path, verbose=0)
    assert {path.name for path in tmp_path.iterdir()} >= {"group_1_seed0.keras", "settings.json"}


def test_a_model_that_could_not_be_loaded_again_is_not_trained(tmp_path):
    class Unregistered(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    def build(tasks):
        encoder = keras.Sequential([keras.Input((5,)), Unregistered(), layers.Dense(2)])
        model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(1) for task in tasks})
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    arguments = (build, ALL_TOGETHER, DATA["train"])
    tag_keras.train_groups(*arguments, verbose=0)
    with pytest.raises(ValueError, match=r"keras\.saving\.register_keras_serializable"):
        tag_keras.train_groups(*arguments, output_dir=tmp_path, verbose=0)
    assert not list(tmp_path.glob("*.keras"))


def test_an_iterator_would_be_used_up_by_the_first_network():
    def batches():
        yield DATA["train"]

    with pytest.raises(ValueError, match="Give a function that returns it"):
        tag_keras.train_groups(build_model, GROUPING, batches(), steps_per_epoch=1, verbose=0)
    tag_keras.train_groups(build_model, GROUPING, batches, steps_per_epoch=1, verbose=0)


def test_a_slash_in_a_name_makes_no_folder():
    assert training.Network("single_../a b", ("../a b",), 2).file == "single_..%2Fa b_seed2.keras"


def test_a_name_too_long_for_a_file_is_cut_and_gets_a_hash():
    # A Chinese letter is nine characters in quotes, a Cyrillic one six.
    names = ["single_" + letter * 50 for letter in "猫犬ж"]
    names += [name + "x" for name in names] + ["s" * 5000, "s" * 5001]
    found = {training.Network(name, (), seed).file for name in names for seed in (0, 2**63)}
    assert len(found) == 2 * len(names) and max(map(len, found)) < 150
    assert "single_%E7%8C%AB%E7%8C%AB" in training.Network(names[0], ()).file
    # A name that was short enough for version 0.1, which put ".partial-" before it, is as it was.
    longest = "s" * (255 - len(".partial-" + "_seed0.trained.json"))
    assert training.Network(longest, ()).file == f"{longest}_seed0.keras"
    assert len(training.Network(f"{longest}s", ()).file) < 150


def test_build_model_for_other_tasks():
    with pytest.raises(ValueError, match=r"a model for the tasks \['a', 'b'\]"):
        tag_keras.train_groups(lambda tasks: build_model(("c",)), GROUPING, DATA["train"])


def test_rows_tell_tasks_apart_whose_names_begin_alike():
    model = tag_keras.MultiTaskModel(
        layers.Dense(2), {"left": layers.Dense(1), "left_heavy": layers.Dense(1)}
    )
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    x, y = DATA["train"]
    data = {"test": (x, {"left": y["a"], "left_heavy": y["b"]})}
    network = training.Network("joint", ("left", "left_heavy"), 5)
    splits = inputs.splits_of(data, network.tasks)
    rows = evaluation.evaluate_network(model, network, splits, seconds=1.5)
    logs = model.evaluate(*data["test"], verbose=0, return_dict=True)
    for row in rows:
        assert (row.network, row.seed, row.split, row.seconds) == ("joint", 5, "test", 1.5)
        assert row.loss == pytest.approx(logs[f"{row.task}_loss"])
        assert row.metrics == {"mae": pytest.approx(logs[f"{row.task}_mae"])}


def test_parts_of_a_split_have_losses_only():
    network = training.Network("joint", ("a",), 5)
    logs = {"loss": 3.0, "a_loss": 3.0, "a_r2": math.nan}
    (row,) = evaluation.rows_of(network, "validation 2/5", logs, (), 1.0)
    assert (row.split, row.loss, row.metrics) == ("validation 2/5", 3.0, {})
    for split in ("validation", "validation 6/5", "2/5"):
        with pytest.raises(ValueError, match="a_r2 of the network 'joint', seed 5, is nan"):
            evaluation.rows_of(network, split, logs, (), 1.0)
    with pytest.raises(ValueError, match="a_loss of the network"):
        evaluation.rows_of(network, "validation 2/5", {"a_loss": math.nan}, (), 1.0)


def test_a_metric_with_a_value_per_class_is_a_metric_for_each():
    class Matrix(keras.metrics.Metric):
        """Counts of class by predicted class."""

        def __init__(self):
            super().__init__(name="matrix")
            self.counts = self.add_weight(shape=(3, 3), initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            one_hot = keras.ops.one_hot(keras.ops.argmax(y_pred, -1), 3)
            self.counts.assign_add(keras.ops.transpose(y_true) @ one_hot)

        def result(self):
            return self.counts

    x, y = DATA["test"]
    classes = np.argmax(x[:, :3], -1)
    heads = {"kind": layers.Dense(3, "softmax"), "sign": layers.Dense(1, "sigmoid")}
    model = tag_keras.MultiTaskModel(layers.Dense(2), heads)
    metrics = {"kind": [keras.metrics.F1Score(), Matrix()], "sign": [keras.metrics.F1Score()]}
    model.compile("sgd", "mse", metrics=metrics, run_eagerly=True)
    signs = (y["b"][:, None] > 0).astype("float32")
    labels = {"kind": np.eye(3, dtype="float32")[classes], "sign": signs}
    network = training.Network("joint", ("kind", "sign"))
    splits = {"test": {"x": x, "y": labels}}
    kind, sign = evaluation.evaluate_network(model, network, splits, seconds=1.0)
    found = np.argmax(model.predict(x, verbose=0)["kind"], -1)
    expected = {}
    for one in range(3):
        hits = np.sum((classes == one) & (found == one))
        score = 2 * hits / (np.sum(classes == one) + np.sum(found == one))
        expected[f"f1_score_{one}"] = pytest.approx(score, abs=1e-5)
    for one, other in np.ndindex(3, 3):
        expected[f"matrix_{one}_{other}"] = np.sum((classes == one) & (found == other))
    assert kind.metrics == expected
    # Of one class there is one value: by default, the class is there in each example.
    positive = float(np.mean(signs))
    assert sign.metrics == {"f1_score": pytest.approx(2 * positive / (1 + positive), abs=1e-5)}


def test_a_loss_that_is_not_finite_names_the_network():
    model = build_model(("a",))
    network = training.Network("single_a", ("a",), 1)
    x, y = DATA["test"]
    data = {"test": {"x": x * np.nan, "y": {"a": y["a"]}}}
    with pytest.raises(ValueError, match="'single_a', seed 1, is nan on the split 'test'"):
        evaluation.evaluate_network(model, network, data, seconds=1.0)


@pytest.mark.parametrize("kind", ["arrays", "function", "dataset", "weights"])
def test_a_split_without_any_label_is_named(kind):
    x, y = DATA["test"]
    data = (x, {"a": y["a"] * np.nan})
    if kind == "function":
        data = functools.partial(tf.data.Dataset.from_tensors, data)
    if kind == "dataset":
        data = tf.data.Dataset.from_tensors(data)
    if kind == "weights":
        data = (x, {"a": y["a"]}, {"a": np.zeros(len(x))})
    network = training.Network("single_a", ("a",), 1)
    message = r"[Tt]he split 'test' has no label of the tasks \['a'\]"
    with pytest.raises(ValueError, match=message):
        splits = inputs.splits_of({"test": data}, network.tasks)
        evaluation.evaluate_network(build_model(("a",)), network, splits, seconds=1.0)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no saved model '.*model\.keras'\."):
        tag_keras.load_network(tmp_path / "model.keras")
    edit = {
        "no zip": lambda path: path.write_bytes(b"PK"),
        "empty": lambda path: path.write_bytes(b""),
        "cut off": lambda path: path.write_bytes(path.read_bytes()[:-40]),
        "one byte": flip_a_byte,
    }
    for damage in edit.values():
        path = saved(tmp_path)
        damage(path)
        wanted = (
            rf"^{path} cannot be loaded as a model: the file is damaged \(.*\)\. Delete it, and"
        )
        with pytest.raises(ValueError, match=wanted):
            tag_keras.load_network(str(path))


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: "[" * 100_000,  # RecursionError
        # ResourceExhaustedError: its weights would take terabytes.
        lambda config: config.replace('"units": 4', '"units": 1000000000000'),
        # ModuleNotFoundError: it needs PyTorch.
        lambda config: config.replace(
            '"class_name": "Dense"', '"class_name": "TorchModuleWrapper"'
        ),
        lambda config: config.replace('"class_name": "Dense"', '"class_name": "Dance"'),
        lambda config: "null",
        lambda config: "{}",
    ],
)
def test_a_config_that_makes_no_model(tmp_path, edit):
    path = saved(tmp_path)
    edit_config(path, edit)
    wanted = (
        rf"^{path} cannot be loaded as a model\. Register .* damaged, delete it and run the same"
    )
    with pytest.raises(ValueError, match=wanted) as caught:
        tag_keras.load_network(path)
    assert len(str(caught.value)) < 2000 and caught.value.__cause__ is not None


@pytest.mark.slow
def test_no_random_edit_gives_another_model_or_error(tmp_path):
    path = saved(tmp_path)
    contents, expected = path.read_bytes(), tag_keras.load_network(path).get_weights()
    draw, refused = random.Random(0), 0
    for number in range(200):
        data = bytearray(contents)
        place = draw.randrange(len(data))
        if number % 3 == 0:
            del data[place:]
        elif number % 3 == 1:
            del data[place : place + 100]
        else:
            data[place] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            weights = tag_keras.load_network(path).get_weights()
        except ValueError as error:
            assert str(error).startswith(f"{path} cannot be loaded") and "elete it" in str(error)
            refused += 1
        else:
            np.testing.assert_equal(weights, expected)
    assert refused > 100
