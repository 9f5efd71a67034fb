"""The CelebA script, from the files of the data set to the table."""

import itertools
import json
import shutil
from pathlib import Path

import celeba_job
import forks
import keras
import pytest
import tensorflow as tf
from absl import flags
from celeba_files import make_folder
from ports import free_ports
from script_flags import many_methods, script

import tag_keras
from celeba import methods, network, published, study, train
from celeba.data import ATTRIBUTES as ATTRIBUTES_OF_FILE
from celeba.data import CelebA
from tag_keras.results import Row, load_results
from tag_keras.study import devices
from tag_keras.study.methods import METHODS, fixed

ROOT = Path(__file__).resolve().parents[2]
ATTRIBUTES = ("Smiling", "Young", "Male")
SMALL = ["--tasks=Smiling,Young,Male", "--num_groups=2", "--seeds=0", "--epochs=2"]
SMALL += ["--batch_size=8", "--processes=0"]
# Methods that differ from others in one argument of `compile`, which another test checks.
ALIKE = {*fixed._LOSS_WEIGHTINGS, *fixed._GRADIENT_METHODS} - {"dwa", "famo", "pcgrad", "fairgrad"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("celeba")
    make_folder(folder)
    return folder


@pytest.fixture
def run():
    with script(train) as run:
        yield run


def flag_file(method):
    return f"--flagfile=celeba/flags/{method}.flags"


def build_small_model(tasks, method="mtl", affinity=None, half_size=False, **options):
    """A linear encoder of coarse images, on the real data."""
    layers = keras.layers
    encoder = keras.Sequential(
        [keras.Input((64, 64, 3)), layers.AveragePooling2D(16), layers.Flatten(), layers.Dense(4)]
    )
    model = tag_keras.MultiTaskModel(encoder, {task: layers.Dense(2) for task in tasks})
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics={
            task: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for task in tasks
        },
        affinity=affinity,
        run_eagerly=True,
    )
    return model


def test_tag_from_files_to_the_table(run, folder, tmp_path, capsys, tmp_path_factory, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(methods, "build_model", build_small_model)
    command = [flag_file("tag"), f"--data_dir={folder}", f"--output_dir={tmp_path}", *SMALL]
    run(*command)
    text = capsys.readouterr().out
    assert "| tag " in text
    rows = load_results(tmp_path / "results.json")
    assert {row.network for row in load_results(tmp_path / "tag" / "results.json")} == {"tag_joint"}
    choice = json.loads((tmp_path / "tag" / "groups_2.json").read_text())
    assert {task for group in choice["groups"] for task in group} == {*ATTRIBUTES}
    # Two batches of twelve images in two epochs, each of them probed.
    affinity = json.loads((tmp_path / "tag" / "affinity.json").read_text())
    assert max(itertools.chain(*affinity["count"])) <= 4
    # The table is the sum of the errors in percent.
    served = {task: choice["groups"][index] for task, index in choice["serves"].items()}
    errors = {
        (row.tasks, row.task): 100 - 100 * row.metrics["accuracy"]
        for row in rows
        if row.split == "test"
    }
    total = sum(errors[tuple(group), task] for task, group in served.items())
    assert f"{total:.4g}" in text
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "networks").iterdir()}
    run(*command)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    # The table alone needs no data, and knows what it is of.
    capsys.readouterr()
    run(f"--output_dir={tmp_path}", "--stage=report")
    assert f"{total:.4g}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"trained with --tasks=\['Smiling', 'Young', 'Male'\]"):
        run(f"--output_dir={tmp_path}", "--stage=report", "--tasks=Smiling,Male,Young")
    with pytest.raises(ValueError, match="trained with --reproduce_original=False"):
        run(f"--output_dir={tmp_path}", "--stage=report", "--reproduce_original")
    labels = folder / "list_attr_celeba.txt"
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other / "celeba", ignore=shutil.ignore_patterns("tag_keras_cache"))
    text = labels.read_text().splitlines()
    text[2], text[3] = (text[2][:10] + text[3][10:]), (text[3][:10] + text[2][10:])
    (other / "celeba" / labels.name).write_text("\n".join(text) + "\n")
    with pytest.raises(ValueError, match="holds another run: data was "):
        run(*command, f"--data_dir={other / 'celeba'}")
    with pytest.raises(ValueError, match="holds another run: epochs was 2 and is 3"):
        run(*command, "--epochs=3")
    with pytest.raises(ValueError, match="holds another run: every was 1 and is 2"):
        run(*command, "--every=2")


def narrow_convolution(x, name=None):
    """As the network's, with 4 channels: these take less time to compute than those of 64."""
    layers = keras.layers
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization()(x)


@pytest.mark.slow
def test_every_method_from_its_flag_file(run, folder, tmp_path, monkeypatch):
    build = methods.build_model
    monkeypatch.setattr(network, "_convolution", narrow_convolution)

    def build_model(tasks, method="mtl", affinity=None, **options):
        # One plain network is enough; it measures.
        if method == "mtl" and type(affinity) is not tag_keras.LookaheadAffinity:
            return build_small_model(tasks, affinity=affinity)
        model = build(tasks, method, affinity, **options)
        # A few steps are made sooner than a graph; one network shows that there is one.
        model.run_eagerly = method != "uw"
        return model

    monkeypatch.setattr(methods, "build_model", build_model)
    more = [f"--data_dir={folder}", f"--output_dir={tmp_path}", *SMALL]
    more += ["--tasks=Smiling,Young", "--epochs=1", "--draws=2", "--batch_size=12"]
    trained = [method for method in METHODS if method not in ALIKE]
    with many_methods(monkeypatch, study, CelebA):
        for method in trained:
            run(flag_file(method), *more)
    run(f"--output_dir={tmp_path}", "--stage=report")
    table = (tmp_path / "report.md").read_text()
    lines = [line.split()[1] for line in table.splitlines() if line.startswith("| ")]
    assert lines[2:] == trained
    # The files that the flags name are the only ones that there are.
    assert sorted(METHODS) == sorted(path.stem for path in (ROOT / "celeba" / "flags").iterdir())


@pytest.mark.slow
def test_the_figures_of_the_original(run, folder, tmp_path, monkeypatch):
    # They are a matter of what `build_model` compiles and of the report, whatever the method.
    seen = []

    def build_model(tasks, original, **options):
        seen.append(original)
        return build_small_model(tasks, **options)

    monkeypatch.setattr(methods, "build_model", build_model)
    # Groups of one network, which is there: "mtl" trains it.
    more = [f"--output_dir={tmp_path}", *SMALL, "--reproduce_original"]
    more += ["--tasks=Smiling,Young", "--num_groups=1", "--epochs=1", "--batch_size=12"]
    for method in ("mtl", "tag"):
        run(flag_file(method), f"--data_dir={folder}", *more)
    assert set(seen) == {True}
    rows = [row for row in load_results(tmp_path / "results.json") if row.split == "test"]
    right = sum(row.metrics["accuracy"] for row in rows if row.network == "joint")
    lines = [line.split() for line in (tmp_path / "report.md").read_text().splitlines()]
    totals = {line[1]: line[3] for line in lines if line[:1] == ["|"]}
    # The right answers on the 19,962 test images, divided by the number of validation images.
    assert totals["mtl"] == f"{200 - 100 * right * 19_962 / 19_867:.4g}"
    assert "tag" in totals


@pytest.mark.slow
def test_two_hosts_train_a_study_together(folder, tmp_path):
    pytest.importorskip("matplotlib")
    # Decoded before, because two workers of one machine would both do it.
    CelebA(folder).prepare()

    def together(*more):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        arguments = [flag_file("tag"), f"--data_dir={folder}", f"--output_dir={tmp_path}", *SMALL]
        arguments += ["--tasks=Smiling,Young", "--epochs=1", "--strategy=multiworker", *more]
        workers = []
        for index in range(2):
            config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            environment = {"TF_CONFIG": json.dumps(config)}
            workers.append(forks.start(celeba_job.main, *arguments, environment=environment))
        for worker in workers:
            worker.join(600)
        assert [worker.exitcode for worker in workers] == [0, 0]

    def losses(folder):
        rows = load_results(folder / "results.json")
        return {(row.network, row.seed, row.task, row.split): row.loss for row in rows}

    together("--seeds=0")
    first = losses(tmp_path)
    assert first == pytest.approx(losses(tmp_path / "worker_worker_1"), rel=1e-5)
    # The second begins with what the first has: only the new seed is trained.
    together("--seeds=0,1")
    second = losses(tmp_path)
    assert {key: second[key] for key in first} == first
    assert {key[1] for key in second} == {0, 1}
    assert second == pytest.approx(losses(tmp_path / "worker_worker_1"), rel=1e-5)


def test_error_rates():
    # 90 % of the test images: 10 % of error; the release would print 90 * 19962 / 19867 = 90.43.
    rows = [
        Row("joint", ("a",), 0, "a", split, 0.7, {"accuracy": accuracy}, 1.0)
        for split, accuracy in (("validation", 0.8), ("test", 0.9))
    ]
    assert [row.loss for row in methods.error_rates(rows)] == pytest.approx([20.0, 10.0])
    original = [row.loss for row in methods.error_rates(rows, published.ORIGINAL_FACTOR)]
    assert original == pytest.approx([20.0, 100 - 90.43036], abs=1e-4)


@pytest.mark.parametrize("method", ["mtl", "uw", "gradnorm", "pcgrad", "dwa", "mtan"])
def test_what_the_methods_compile(method):
    model = methods.build_model(("Smiling", "Young"), method, learning_rate=0.01)
    assert model.tasks == ("Smiling", "Young")
    optimizer = model.optimizer
    assert type(optimizer) is keras.optimizers.SGD
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, False)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


def test_there_is_no_half_size():
    with pytest.raises(ValueError, match="no variant of half the size"):
        methods.build_model(("Smiling", "Young"), half_size=True)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--tasks=Smiling,Smilling"], r"--tasks: unknown \['Smilling'\]. There are: 5_o_Clock"),
        (["--tasks=Smiling"], "--tasks should be at least two different tasks"),
        (["--tasks=Smiling,Smiling"], "--tasks should be at least two different tasks"),
        (["--seeds=a"], "--seeds should be whole numbers below .* Received: a"),
        (["--seeds="], "--seeds should have at least one number"),
        (["--seeds=1,01"], "--seeds should be different. Received: 1,01"),
        (["--num_groups=2,2"], "--num_groups should be different. Received: 2,2"),
        (["--method=hoa", "--budget=2,2.0"], "--budget should be different. Received: 2,2.0"),
        (["--num_groups=2,10"], "--num_groups should be from 1 to the number of tasks, 9"),
        (["--num_groups=0"], "--num_groups should be from 1 .* Received: 0"),
        (["--budget=1.5"], "--budget is for hoa, esa and optimal, not for tag"),
        (["--method=hoa", "--budget=x"], "--budget should be numbers of at least 1. Received: x"),
        (["--method=hoa", "--budget=0.5"], "--budget should be numbers of at least 1"),
        (["--seeds=4294967296"], r"whole numbers below 2\*\*32"),
        (
            ["--method=esa", f"--tasks={','.join(ATTRIBUTES_OF_FILE[:13])}"],
            "most 12. Received: 13 tasks",
        ),
        (["--early_epochs=101"], "--early_epochs should be at most --epochs, 100"),
        (["--strategy=mirrored", "--processes=2"], "--processes above 1 is for --strategy=none"),
        (["--strategy=tpu", "--cluster"], "--cluster is for --strategy=none"),
        (["--strategy=tpu"], "There is no TPU: .* choose another strategy"),
        (["--data_dir="], "--data_dir should name the folder"),
        ([f"--output_dir={__file__}"], "should be a folder to write to. Received: .* no folder"),
        ([f"--output_dir={__file__}/a/b"], rf"/a/b, where {__file__} is no folder"),
        # Even root cannot make a folder there.
        (["--output_dir=/proc/a"], r"/proc/a, where /proc is not to be written to \("),
    ],
)
def test_wrong_flags(run, tmp_path, arguments, match):
    # Before anything is looked for, or written.
    with pytest.raises(ValueError, match=match):
        run(f"--data_dir={tmp_path / 'no'}", f"--output_dir={tmp_path / 'out'}", *arguments)
    assert not list(tmp_path.iterdir())


def test_the_folder_has_to_be_given(run, tmp_path):
    with pytest.raises(flags.Error, match=r"give it: --output_dir=FOLDER, for all that the run"):
        run(f"--data_dir={tmp_path}")


def test_the_process_that_waits_for_others_leaves_them_the_gpus(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: seen.append(args))
    for more in ("--processes=0", "--processes=1"):
        # Before the data are read, which would take them.
        with pytest.raises(FileNotFoundError):
            run(f"--data_dir={tmp_path / 'no'}", f"--output_dir={tmp_path}", more)
    assert seen == [([], "GPU")]


def test_a_tpu_is_held_by_one_process(run, folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(devices, "make_strategy", seen.append)
    monkeypatch.setattr(study, "run_method", lambda study, method: seen.append(study.processes))
    monkeypatch.setattr(study, "write_study_report", lambda *args: "")
    run(f"--data_dir={folder}", f"--output_dir={tmp_path}", "--strategy=tpu", "--processes=1")
    assert seen == ["tpu", 0]


def test_no_data(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="CelebA"):
        run(f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_nothing_to_report(run, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="holds no study"):
        run(f"--output_dir={tmp_path}", "--stage=report")
    # Of Taskonomy's script, for instance.
    (tmp_path / "settings.json").write_text('{"tasks": ["normal"], "reproduce_original": false}')
    with pytest.raises(
        ValueError, match=r"no study of this script, .* lacks the field 'in_memory'"
    ):
        run(f"--output_dir={tmp_path}", "--stage=report")


def test_the_home_folder_is_found(run, folder, tmp_path, monkeypatch):
    # Shells leave it to the program in --output_dir=~/runs.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "run_method", lambda study, method: None)
    seen = []
    monkeypatch.setattr(study, "write_study_report", lambda *args: seen.append(args[0]) or "")
    run(f"--data_dir={folder}", "--output_dir=~/runs")
    run("--output_dir=~/runs", "--stage=report")
    assert seen == [tmp_path / "runs"] * 2 and not (tmp_path / "~").exists()
