"""The Taskonomy script, from the files of the data set to the table."""

import functools
import json
from pathlib import Path

import keras
import pytest
import taskonomy_files
from script_flags import many_methods, script

import tag_keras
from tag_keras.results import load_results
from tag_keras.study.methods import METHODS, fixed
from tag_keras.utils.files import write_json
from taskonomy import methods, study, train, xception, xception_mtan
from taskonomy.data import Taskonomy
from taskonomy.domains import TASKS
from taskonomy.layouts import LAYOUTS
from taskonomy.losses import build_losses

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--tasks=s,n", "--num_groups=1", "--seeds=0", "--epochs=1", "--batch_size=2"]
SMALL += ["--image_size=32", "--width=full", "--processes=0", "--every=1"]
# Methods that differ from others in one argument of `compile`, which another test checks.
ALIKE = {*fixed._LOSS_WEIGHTINGS, *fixed._GRADIENT_METHODS} - {"dwa", "famo", "pcgrad", "fairgrad"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("taskonomy")
    taskonomy_files.write(root / "data", taskonomy_files.make_files(), LAYOUTS[0])
    names = taskonomy_files.SPLITS
    lines = [
        ",".join([building, *("1" if building in names[split] else "0" for split in names)])
        for building in taskonomy_files.BUILDINGS
    ]
    (root / "buildings.csv").write_text("\n".join(["id,train,val,test", *lines]) + "\n")
    return root


@pytest.fixture
def run(folder):
    with script(train) as run:
        files = [f"--data_dir={folder / 'data'}", f"--buildings={folder / 'buildings.csv'}"]
        yield functools.partial(run, *files)


def build_small_model(tasks, method="mtl", affinity=None, half_size=False, **options):
    """A convolution for all, and one for each task, on the real data."""
    assert options["image_size"] == 32
    encoder = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3)])
    channels = {"segment_semantic": 18, "normal": 3}
    heads = {task: keras.layers.Conv2DTranspose(channels[task], 3) for task in tasks}
    model = tag_keras.MultiTaskModel(encoder, heads)
    weighting = {"loss_weighting": tag_keras.DynamicWeightAverage()} if method == "dwa" else {}
    # The shifts make many operations; the networks of the paper have them.
    losses = build_losses(tasks, shifts=False)
    model.compile("sgd", losses, affinity=affinity, run_eagerly=True, **weighting)
    return model


def test_tag_from_files_to_the_table(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(methods, "build_model", build_small_model)
    command = ["--flagfile=taskonomy/flags/tag.flags", f"--output_dir={tmp_path}", *SMALL]
    run(*command)
    text = capsys.readouterr().out
    rows = load_results(tmp_path / "results.json")
    assert {row.network for row in rows} == {"joint"}
    total = sum(row.loss for row in rows if (row.network, row.split) == ("joint", "test"))
    assert f"| tag    | {total:.4g}" in text
    # Two buildings of three views make three batches of two images.
    affinity = json.loads((tmp_path / "tag" / "affinity.json").read_text())
    assert affinity["tasks"] == ["segment_semantic", "normal"]
    assert max(max(row) for row in affinity["count"]) == 3
    with pytest.raises(ValueError, match="holds another run: image_size was 32 and is 48"):
        run(*command, "--image_size=48")


@pytest.fixture
def few_blocks(monkeypatch):
    """Networks of one block: building and tracing them takes longer than training.

    They make images smaller by 4 and not by 16, so that decoders have two steps and not four.
    """
    small = functools.partial(xception.xception_encoder, num_blocks=1)
    monkeypatch.setattr(xception, "xception_encoder", small)
    monkeypatch.setattr(xception_mtan, "_STAGES", ((1,),))
    monkeypatch.setattr(xception, "FACTOR", 4)
    monkeypatch.setattr(xception, "FEATURES", 8)
    monkeypatch.setitem(xception.DECODERS, "small", (8, 4))


@pytest.mark.slow
def test_every_method_from_its_flag_file(run, tmp_path, monkeypatch, few_blocks):
    pytest.importorskip("matplotlib")
    build = methods.build_model

    def build_model(tasks, method="mtl", affinity=None, **options):
        # One plain network is enough, of half the size; test_network.py measures with a whole one.
        # The average of losses does not look at the network.
        is_half = options.get("half_size") and tasks == ("normal",)
        if method == "dwa" or (method == "mtl" and not is_half):
            return build_small_model(tasks, method, affinity, **options)
        model = build(tasks, method, affinity, **options)
        # One step of all images is made sooner than a graph; one network shows that there is one.
        model.run_eagerly = method != "uw"
        return model

    monkeypatch.setattr(methods, "build_model", build_model)
    # With few channels, too.
    for name in ("full", "half"):
        monkeypatch.setitem(xception.WIDTHS, name, (4, 4, 8, 8, 16))
    more = [f"--output_dir={tmp_path}", *SMALL, "--batch_size=6", "--half_size", "--draws=1"]
    trained = [method for method in METHODS if method not in ALIKE]
    with many_methods(monkeypatch, study, Taskonomy):
        for method in trained:
            run(f"--flagfile=taskonomy/flags/{method}.flags", *more)
    run(f"--output_dir={tmp_path}", "--stage=report")
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("| ")][2:] == trained
    files = (ROOT / "taskonomy" / "flags").iterdir()
    assert sorted(METHODS) == sorted(path.stem for path in files)


@pytest.mark.parametrize("method", ["mtl", "gradnorm", "mtan"])
def test_what_the_methods_compile(method, few_blocks):
    model = methods.build_model(("normal", "keypoints2d"), method, width="half", image_size=32)
    assert model.tasks == ("normal", "keypoints2d")
    found = {type(layer) for layer in model._flatten_layers()}
    assert (tag_keras.TaskAttention in found) == (method == "mtan")
    assert (tag_keras.GradNorm in found) == (method == "gradnorm")


def test_half_of_the_size(few_blocks):
    half = methods.build_model(("normal",), half_size=True, width="full", image_size=32)
    expected = xception.xception_encoder(32, xception.WIDTHS["half"]).count_params()
    assert half.encoder.count_params() == expected
    with pytest.raises(ValueError, match=r'half of `width="full"`\. Received: width=.wide'):
        methods.build_model(("normal",), half_size=True)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--tasks=s,x"], "x"),
        (["--half_size", "--width=wide"], "--half_size is for --width=full"),
        (["--image_size=40"], "--image_size should be divisible by 16"),
        (["--batch_size=7"], "--batch_size should be at most the 6 training images"),
        (["--data_dir="], "--data_dir should name the folder"),
    ],
)
def test_wrong_flags(run, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        run(f"--output_dir={tmp_path}", *SMALL, *arguments)
    assert not (tmp_path / "results.json").exists()


def test_published_totals_stand_beside_the_same_networks_only(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(study, "write_study_report", lambda *args: seen.append(args) or "")
    for tasks, half_size in ((TASKS, True), (TASKS, False), (TASKS[:2], True)):
        write_json(tmp_path / "settings.json", {"tasks": list(tasks), "half_size": half_size})
        run(f"--output_dir={tmp_path}", "--stage=report")
    assert [args[1] for args in seen] == [[*TASKS], [*TASKS], [*TASKS[:2]]]
    # Standley et al. 2020, figure 3: a budget of 1 buys one network for all tasks.
    assert [args[5].get("hoa", {}).get(1.0) for args in seen] == [0.50278, None, None]
    assert [args[7] for args in seen] == [True, False, True]


def test_letters_are_as_good_as_names(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(study, "run_method", lambda study, method: seen.append(study.tasks))
    monkeypatch.setattr(study, "write_study_report", lambda *args: "")
    for place, tasks in enumerate(("sn", "s,n", "ss_l,norm_l", "segment_semantic,normal")):
        run(f"--output_dir={tmp_path / str(place)}", *SMALL, f"--tasks={tasks}")
    assert seen == 4 * [("segment_semantic", "normal")]


def test_the_folder_of_another_script_is_not_reported(run, tmp_path):
    write_json(tmp_path / "settings.json", {"tasks": ["normal"], "in_memory": False})
    with pytest.raises(
        ValueError, match=r"no study of this script, .* lacks the field 'half_size'"
    ):
        run(f"--output_dir={tmp_path}", "--stage=report")
