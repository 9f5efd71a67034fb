import fcntl
import zipfile

import keras
import pytest
import tensorflow as tf
from sweep_folders import FIT, ONE_SPLIT, make_job, pretend
from sweep_job import DATA, build_model

import tag_keras
from tag_keras import results
from tag_keras.sweep import job, runners, sweep
from tag_keras.sweep import network as training


def test_only_what_is_missing_is_trained(tmp_path, trained):
    jobs = [make_job("one", "a"), make_job("two", "ab"), make_job("two", "ab", seed=1)]
    sweep.run_sweep(tmp_path, [jobs[1]], DATA, processes=0)
    sweep.run_sweep(tmp_path, [make_job("other", "b")], DATA, processes=0)
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert trained == ["two", "other", "one", "two"]
    # The own ones in the order of the jobs, where the first of them stood.
    networks = list(dict.fromkeys((row.network, row.seed) for row in rows))
    assert networks == [("one", 0), ("two", 0), ("two", 1), ("other", 0)]
    assert rows == results.load_results(tmp_path / "results.json")
    assert sweep.run_sweep(tmp_path, jobs, DATA, processes=0) == rows
    assert len(trained) == 4


def test_tasks_of_long_names(tmp_path, untrained):
    task = "年龄" * 60
    data = {split: (x, {task: y["a"]}) for split, (x, y) in DATA.items()}
    one = job.Job(training.Network(f"single_{task}", (task,)), build_model, FIT)
    rows = sweep.run_sweep(tmp_path, [one], data, processes=0)
    assert [row.task for row in rows] == [task, task]
    # It is found again, also without results.json.
    assert sweep.run_sweep(tmp_path, [one], data, processes=0) == rows
    (tmp_path / "results.json").unlink()
    again = sweep.run_sweep(tmp_path, [one], data, processes=0)
    assert [row.seconds for row in again] == [row.seconds for row in rows]


def test_a_job_that_measures_needs_a_model_that_does(tmp_path):
    one = make_job("one", "ab", measures=True)
    with pytest.raises(ValueError, match=r"compile with `affinity=`. Received: measures=True"):
        job.train_job(tmp_path, one, DATA)
    assert not list(tmp_path.iterdir())


def test_jobs_that_are_the_same_training_are_trained_once(tmp_path, trained):
    def build_here(tasks):
        return build_model(tasks)

    jobs = [
        make_job("joint", "ab"),
        make_job("group", "ab"),
        make_job("other seed", "ab", seed=1),
        make_job("other build", "ab", build=build_here),
        make_job("its twin", "ab", build=build_here),
        make_job("kept nowhere", "ab", saves=False),
    ]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert trained == ["joint", "other seed", "other build", "kept nowhere"]
    copied = [("group", "joint"), ("its twin", "other build")]
    for name, source in copied:
        with zipfile.ZipFile(tmp_path / "networks" / f"{name}_seed0.keras") as file:
            assert file.read("name") == source.encode()
        assert {row.loss for row in rows if row.network == name} == {len(source)}
    names = {path.name for path in (tmp_path / "networks").glob("*.keras")}
    assert "kept nowhere_seed0.keras" not in names and len(names) == 5
    # One more twin of what was trained before is a copy.
    sweep.run_sweep(tmp_path, [jobs[0], make_job("late", "ab")], DATA, processes=0)
    assert len(trained) == 4 and (tmp_path / "networks" / "late_seed0.keras").exists()


def test_failures_do_not_stop_the_others(tmp_path, monkeypatch):
    errors = {"once": [OSError("disc")], "twice": [OSError("x"), OSError("disc")]}
    errors |= {"lasting": [TypeError("no")], "good": []}
    attempts = []

    def train(folder, one, data, progress=None):
        attempts.append(one.network.name)
        if errors[one.network.name]:
            raise errors[one.network.name].pop(0)
        pretend(folder, one, data)

    monkeypatch.setattr(runners, "train_job", train)
    jobs = [make_job(name, "a", seed) for seed, name in enumerate(errors)]
    with pytest.raises(sweep.SweepError) as caught:
        sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert attempts == ["once", "once", "twice", "twice", "lasting", "good"]
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("2 of 4 networks failed; the others are done. The same command")
    assert rest == [
        "- 'twice', seed 1, of the tasks a: OSError: disc",
        "- 'lasting', seed 2, of the tasks a: TypeError: no",
    ]
    # With processes=0, a debugger finds the error itself.
    assert isinstance(caught.value.__cause__, OSError)
    rows = sweep.run_sweep(tmp_path, jobs, ONE_SPLIT, processes=0)
    assert attempts[6:] == ["twice", "lasting"] and len(rows) == 4


@pytest.mark.slow
def test_validation_data_may_be_a_function_and_twins_are_trained_once(tmp_path, monkeypatch):
    lengths, trained = [], []
    original = training.train_network

    def validation_data():
        lengths.append(1)
        return DATA["validation"]

    def count(build, network, *args, **kwargs):
        trained.append(network.name)
        return original(build, network, *args, **kwargs)

    monkeypatch.setattr(job, "train_network", count)
    networks = [training.Network(name, ("a", "b")) for name in ("joint", "group_0")]
    fit = {"epochs": 1, "verbose": 0, "validation_data": validation_data}
    jobs = [job.Job(network, build_model, fit) for network in networks]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert lengths == [1] and trained == ["joint"]
    losses = [[r.loss for r in rows if r.network == network.name] for network in networks]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert (tmp_path / "networks" / "group_0_seed0.keras").exists()


@pytest.mark.parametrize(
    ("jobs", "processes", "message"),
    [
        (
            [make_job("one", "a")] * 2,
            0,
            r"differ in the name or the seed .* twice=\[\('one', 0\)\]",
        ),
        ([make_job("one", "a")], -1, "`processes` should be an integer from 0 on"),
        ([make_job("one", "a")], 1.5, "`processes` should be an integer from 0 on"),
        ([make_job("one", "a", build=lambda tasks: None)], 1, "`build_model` cannot be sent"),
        (
            [job.Job(training.Network("one", ("a",)), build_model, {"x": lambda: None})],
            1,
            "An argument of `fit` cannot be sent",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, jobs, processes, message):
    with pytest.raises(ValueError, match=message):
        sweep.run_sweep(tmp_path / "new", jobs, DATA, processes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seconds", ["soon", -1, None, float("nan")])
def test_seconds_between_checkpoints_are_a_number(tmp_path, seconds):
    with pytest.raises(ValueError, match="`save_every` should be a number of seconds, at least 0"):
        sweep.run_sweep(tmp_path / "new", [make_job("one", "a")], DATA, save_every=seconds)
    assert not (tmp_path / "new").exists()


def dataset():
    return tf.data.Dataset.from_tensor_slices(DATA["train"]).batch(8)


@pytest.mark.parametrize("make", [lambda: lambda: None, dataset])
def test_data_that_cannot_be_sent(tmp_path, make):
    with pytest.raises(ValueError, match="`data` cannot be sent to another process"):
        sweep.run_sweep(tmp_path / "new", [make_job("one", "a")], {"train": make()})


def test_a_dataset_is_no_hindrance_in_this_process(tmp_path, trained):
    fit = {**FIT, "validation_data": dataset()}
    networks = [training.Network(name, ("a",)) for name in ("one", "two")]
    jobs = [job.Job(network, build_model, fit) for network in networks]
    rows = sweep.run_sweep(tmp_path, jobs, DATA, processes=0)
    assert {row.network for row in rows} == {"one", "two"}
    assert trained == ["one"]


def test_a_network_of_other_tasks_is_not_taken_for_the_same(tmp_path, trained):
    sweep.run_sweep(tmp_path, [make_job("group_0", "ab")], DATA, processes=0)
    with pytest.raises(ValueError, match=r"another network 'group_0', seed 0, .* \['a', 'b'\]"):
        sweep.run_sweep(tmp_path, [make_job("group_0", "ac")], DATA, processes=0)


def test_two_sweeps_do_not_write_into_one_folder(tmp_path, trained):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another run is at work in"):
            sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA, processes=0)
    sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA, processes=0)


def build_wider(tasks):
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, activation="relu")])
    model = tag_keras.MultiTaskModel(encoder, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_another_model_or_other_data_are_another_sweep(tmp_path, monkeypatch, untrained, capsys):
    one = make_job("one", "ab")
    rows = sweep.run_sweep(tmp_path, [one], DATA, processes=0)
    monkeypatch.setattr(runners, "train_job", None)
    doubled = {**DATA, "train": DATA["test"]}
    longer = job.Job(one.network, build_model, {**FIT, "epochs": 3})
    for jobs, data, message in [
        ([make_job("one", "ab", build=build_wider)], DATA, "units of dense was 4 and is 5"),
        ([one], doubled, r"x of train was float32 \(40, 5\) .* and is float32 \(40, 5\) "),
        ([longer], DATA, "epochs of one_seed0 was 2 and is 3"),
    ]:
        with pytest.raises(ValueError, match=f"holds another .*: {message}"):
            sweep.run_sweep(tmp_path, jobs, data, processes=0)
    assert results.load_results(tmp_path / "results.json") == rows
    capsys.readouterr()
    assert sweep.run_sweep(tmp_path, [one], DATA, processes=0) == rows
    assert capsys.readouterr().out == ""
    talking = job.Job(one.network, build_model, {**FIT, "verbose": 2})
    assert sweep.run_sweep(tmp_path, [talking], DATA, processes=0) == rows
    assert "Nothing to train: everything in" in capsys.readouterr().out
    # A folder of an earlier version does not know them.
    (tmp_path / "settings.json").unlink()
    sweep.run_sweep(tmp_path, [longer], doubled, processes=0)
    assert "does not say of what data the run before was" in capsys.readouterr().out
