"""What a run is given: callbacks and data of each network, and what is refused before any work."""

import csv
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from sweep_job import DATA, build_model

import tag_keras
from tag_keras.comparison.comparison import losses_as_text
from tag_keras.study.study import Study
from tag_keras.sweep import job, sweep
from tag_keras.sweep import network as training

TASKS = ("a", "b")
GROUPING = tag_keras.Grouping(TASKS, (("a",), ("b",)), {"a": 0, "b": 1}, 0.1, 0.1, True)
TOGETHER = tag_keras.Grouping(TASKS, (TASKS,), {"a": 0, "b": 0}, 0.1, 0.1, True)
X, Y = DATA["train"]


def train_groups(train=DATA["train"], build=build_model, grouping=GROUPING, **fit):
    return tag_keras.train_groups(build, grouping, train, verbose=0, **fit)


def run_sweep(folder, data=DATA, build=build_model, **fit):
    networks = [training.Network(f"single_{task}", (task,)) for task in TASKS]
    jobs = [job.Job(network, build, {"verbose": 0, **fit}) for network in networks]
    return sweep.run_sweep(folder, jobs, data, processes=0)


class Batches(keras.utils.PyDataset):
    """Batches of the training data in their order."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        place = slice(8 * index, 8 * index + 8)
        return X[place], {task: labels[place] for task, labels in Y.items()}


class Records(keras.callbacks.Callback):
    def __init__(self, name):
        super().__init__()
        self.name, self.losses = name, []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])


@pytest.mark.parametrize("run", ["groups", "sweep"])
def test_callbacks_may_be_a_function_of_the_network(tmp_path, run):
    given = []

    def callbacks(network):
        given.append(Records(network.name))
        path = tmp_path / f"{network.name}_{network.seed}.csv"
        return [given[-1], keras.callbacks.CSVLogger(path)]

    if run == "groups":
        train_groups(callbacks=callbacks, epochs=2)
    else:
        run_sweep(tmp_path / "sweep", callbacks=callbacks, epochs=2)
    assert [one.name for one in given] == [
        f"{'group' if run == 'groups' else 'single'}_{place}"
        for place in ((0, 1) if run == "groups" else TASKS)
    ]
    for one in given:
        with open(tmp_path / f"{one.name}_0.csv") as file:
            written = [float(row["loss"]) for row in csv.DictReader(file)]
        np.testing.assert_allclose(written, one.losses, rtol=1e-6)
    assert len(given[0].losses) == 2 and given[0].losses != given[1].losses


class Holds(keras.callbacks.Callback):
    def __init__(self, value):
        super().__init__()
        self.value = value


WRITERS = [
    keras.callbacks.CSVLogger("log.csv"),
    keras.callbacks.ModelCheckpoint("model.keras"),
    keras.callbacks.BackupAndRestore("backup"),
    keras.callbacks.TensorBoard("logs"),
]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda one=one: one, f"has a {type(one).__name__}. Each netw") for one in WRITERS),
        (lambda: Holds(threading.Lock()), "has a Holds, which cannot be copied for each .*pickle"),
        (lambda: Holds(open(__file__)), "has a Holds, which cannot be copied"),  # noqa: SIM115
        (lambda: Holds(np), "has a Holds, which cannot be copied"),
    ],
)
def test_callbacks_that_cannot_be_copied_are_refused(tmp_path, make, message):
    callback = make()
    message = f"`callbacks` {message}.*`callbacks=lambda network: "
    with pytest.raises(ValueError, match=message):
        train_groups(callbacks=[callback], output_dir=tmp_path / "new")
    with pytest.raises(ValueError, match=message):
        run_sweep(tmp_path / "new", callbacks=callback)
    with pytest.raises(ValueError, match=message):
        Study(tmp_path / "new", TASKS, build_model, DATA, {"callbacks": [callback]}, {})
    assert not (tmp_path / "new").exists()
    getattr(getattr(callback, "value", None), "close", lambda: None)()


@pytest.mark.slow
def test_callbacks_that_watch_the_validation_get_it(tmp_path):
    class Stops(keras.callbacks.EarlyStopping):
        def on_epoch_end(self, epoch, logs=None):
            seen.append("val_loss" in logs)
            super().on_epoch_end(epoch, logs)

    seen = []
    # No second epoch is so much better.
    options = {"min_delta": 1e9, "patience": 1}
    rows = run_sweep(tmp_path / "watched", callbacks=[Stops(**options)], epochs=5)
    assert seen == 2 * [True, True]
    keras.utils.set_random_seed(0)
    alone = build_model(("a",))
    stop = keras.callbacks.EarlyStopping(**options)
    alone.fit(X, Y, epochs=5, verbose=0, callbacks=[stop], validation_data=DATA["validation"])
    expected = alone.evaluate(*DATA["test"], verbose=0, return_dict=True)["loss"]
    found = [row.loss for row in rows if (row.task, row.split) == ("a", "test")]
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


@pytest.mark.slow
def test_validation_is_read_only_for_what_watches_it_and_lacks_data():
    asked = []

    def validation(name):
        def data():
            asked.append(name)
            return DATA["validation"]

        return data

    network = training.Network("single_a", ("a",))
    watches = {"callbacks": keras.callbacks.ReduceLROnPlateau()}
    own = {"validation_data": validation("own")}
    not_watching = {"callbacks": keras.callbacks.EarlyStopping("loss")}
    split = {**watches, "validation_split": 0.5}
    for fit in ({}, not_watching, own, watches, split):
        training.train_network(
            build_model, network, DATA["train"], validation=validation("split"), verbose=0, **fit
        )
    both = {**watches, **own}
    training.train_network(build_model, network, DATA["train"], validation=1, verbose=0, **both)
    assert asked == ["own", "split", "own"]


def test_no_losses_are_told_in_a_line():
    assert losses_as_text(GROUPING, []) == (
        'There are no test losses: no kind of network has results on the split "test".'
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_that_keras_can_shuffle_are_shuffled(workers):
    dataset = Batches(workers=workers)
    predictions = train_groups(dataset, grouping=TOGETHER)(X)
    in_order = train_groups(dataset, grouping=TOGETHER, shuffle=False)(X)
    keras.utils.set_random_seed(0)
    alone = build_model(TASKS)
    alone.fit(dataset, verbose=0)
    for task, expected in alone(X).items():
        np.testing.assert_allclose(predictions[task], expected, atol=1e-6)
        assert np.abs(in_order[task] - expected).max() > 1e-4


class Endless(Batches):
    def __len__(self):
        raise NotImplementedError

    @property
    def num_batches(self):
        return None


@pytest.mark.slow
def test_batches_that_keras_cannot_shuffle_give_no_warning():
    dataset = tf.data.Dataset.from_tensor_slices(DATA["train"]).batch(8)
    for data in (dataset, Endless(), lambda: (batch for batch in dataset)):
        train_groups(data, steps_per_epoch=2)


def in_batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


WITHOUT_B = {"a": Y["a"], "c": Y["c"]}
LACKS = r"should have labels of every task\. Missing: \['b'\]\. Received: \['a', 'c'\]"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, WITHOUT_B), LACKS),
        (in_batches(X, WITHOUT_B), LACKS),
        ((X, Y["a"]), r"labels in a dict by task, with \['a', 'b'\]\. Received: ndarray"),
        ((X, None), "labels in a dict by task.* Received: NoneType"),
        (X, r"should be `\(x, y\)` or .* Received: ndarray of 1 part\."),
        ({"x": X, "y": Y}, r"should be `\(x, y\)` or .* Received: dict of 1 part\."),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(8),
            r"should be `\(x, y\)` or .* Received: .*Dataset of 1 part\.",
        ),
        ((X[1:], Y), r"the same number of examples\. Received: \[39, 40\] examples"),
        (
            tf.data.Dataset.from_tensor_slices((X, Y)),
            r"should be a dataset of batches, and has single examples: add `\.batch\(32\)`",
        ),
        (
            # Without a scalar among them.
            tf.data.Dataset.from_tensor_slices((X, {"a": Y["a"][:, None], "b": Y["b"][:, None]})),
            "should be a dataset of batches, and has single examples",
        ),
        (
            (X, Y, {"a": Y["a"], "B": Y["b"]}),
            r"of the labels, \['a', .*Unknown: \['B'\]\. Missing: \['b', 'c', 'd', 'e'\]",
        ),
        (iter(in_batches(X, Y)), "An iterator would be used up by the first network"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_any_work(tmp_path, data, message):
    with pytest.raises(ValueError, match=f"`train`.* {message}") as caught:
        train_groups(data, output_dir=tmp_path / "new")
    assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match=f"`validation_data`.* {message}"):
        train_groups(validation_data=data, output_dir=tmp_path / "new")
    for split in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=rf'`data\["{split}"\]`.* {message}'):
            run_sweep(tmp_path / "new", {**DATA, split: data})
        with pytest.raises(ValueError, match=rf'`data\["{split}"\]`.* {message}'):
            Study(tmp_path / "new", TASKS, build_model, {**DATA, split: data}, {}, {})
    assert not (tmp_path / "new").exists()


def test_what_a_function_gives_is_checked_when_it_is_called():
    with pytest.raises(ValueError, match=rf"The training data {LACKS}"):
        train_groups(lambda: (X, WITHOUT_B), grouping=TOGETHER)
    with pytest.raises(ValueError, match=rf"The validation data {LACKS}"):
        train_groups(grouping=TOGETHER, validation_data=lambda: (X, WITHOUT_B))


def test_what_a_function_gives_to_evaluate_is_checked_before_the_training(tmp_path):
    data = {**DATA, "test": lambda: in_batches(X, WITHOUT_B)}
    one = job.Job(training.Network("joint", TASKS), build_model, {"verbose": 0})
    with pytest.raises(ValueError, match=rf"The split 'test' {LACKS}"):
        job.train_job(tmp_path, one, data)
    assert not list(tmp_path.iterdir())


def test_data_of_one_task_and_unknown_shapes_pass():
    def batches():
        yield X, Y

    spec = (tf.TensorSpec(None, "float32"), {task: tf.TensorSpec(None) for task in Y})
    unknown = tf.data.Dataset.from_generator(batches, output_signature=spec)
    network = training.Network("single_a", ("a",))
    # A bag of 40 examples with one label.
    bags = tf.data.Dataset.from_tensors((X, {"a": Y["a"][:1]}))
    for data in ((X, Y["a"]), [X, Y], (X, Y, Y["a"]), Batches(), unknown, bags):
        sweep._check_inputs([job.Job(network, build_model)], {"train": data})


def functional(tasks):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, {task: keras.layers.Dense(1)(inputs) for task in tasks})
    model.compile("sgd", "mse")
    return model


def uncompiled(tasks):
    layers = keras.layers
    return tag_keras.MultiTaskModel(layers.Dense(2), {task: layers.Dense(1) for task in tasks})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (None, "should be a function that makes a compiled model .* Received: NoneType"),
        (uncompiled(TASKS), "should be a function .* Received: MultiTaskModel"),
        (lambda: None, r"should take these arguments: \(tasks\)\. Received: a function of \(\)"),
    ],
)
def test_what_is_no_function_that_builds_is_refused_before_any_work(tmp_path, build, message):
    with pytest.raises(ValueError, match=f"`build_model` {message}"):
        train_groups(build=build, output_dir=tmp_path / "new")
    with pytest.raises(ValueError, match=f"`build_model` {message}"):
        run_sweep(tmp_path / "new", build=build)
    assert not (tmp_path / "new").exists()


def without_affinity(tasks, affinity=None):
    return build_model(tasks)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda tasks, affinity: None, "NoneType. Does it lack a `return`"),
        (lambda tasks, affinity: functional(tasks), "Functional. MultiTaskModel.from_functional"),
        (lambda tasks, affinity: uncompiled(tasks), "should return a model that is compiled"),
        (lambda tasks: build_model(tasks), r"arguments: \(tasks, affinity=None\)"),
        (without_affinity, "of a job that measures should compile with `affinity=`"),
        (lambda tasks, affinity: build_model(tasks[:1]), r"a model for the tasks \['a', 'b'\]"),
    ],
)
def test_an_experiment_tries_build_model_out_before_any_work(tmp_path, build, message):
    pytest.importorskip("matplotlib")
    arguments = (DATA, TASKS, 1, tag_keras.LookaheadAffinity(1))
    with pytest.raises(ValueError, match=message):
        tag_keras.experiment.run(tmp_path / "new", build, *arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seeds", [3, "012"])
def test_seeds_that_are_no_list(tmp_path, seeds):
    pytest.importorskip("matplotlib")
    arguments = (DATA, TASKS, 1, tag_keras.LookaheadAffinity(1))
    with pytest.raises(ValueError, match=f"`seeds` should be a list of .* seeds={seeds!r}"):
        tag_keras.experiment.run(tmp_path / "new", build_model, *arguments, seeds=seeds)
    with pytest.raises(ValueError, match=f"`seeds` should be a tuple. Received: seeds={seeds!r}"):
        Study(tmp_path, TASKS, build_model, DATA, {}, {}, seeds=seeds)


def test_groups_that_are_no_grouping():
    with pytest.raises(ValueError, match=r"`grouping` should be a `Grouping`, .* grouping=\(\('a'"):
        train_groups(grouping=(("a",), ("b",)))


def test_a_run_needs_training_data(tmp_path):
    with pytest.raises(ValueError, match=r'`data` should hold "train"\. Received: splits=\[\'te'):
        run_sweep(tmp_path / "new", {"test": DATA["test"]})
    assert not (tmp_path / "new").exists()
