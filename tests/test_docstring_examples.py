"""The examples of docstrings run, with the data and the model that they take for granted."""

import inspect
import math
import re
import types

import guard_cases
import numpy as np
import pytest
from docs_pages import LISTED, documented

import tag_keras

EXAMPLE = re.compile(r"^ *```python\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
# Its example trains nine networks. The tests of AdaShare do that in small.
NAMES = sorted({*LISTED} - {"AdaShareModel"})


def model_of(tasks):
    import keras

    shared = keras.layers.Dense(8, "relu", name="shared")
    model = tag_keras.MultiTaskModel(shared, {task: keras.layers.Dense(1) for task in tasks})
    model.compile("adam", "mse")
    return model


def taken_for_granted():
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    y = {"age": x.sum(1), "smiling": (x[:, 0] > 0).astype("float32")}
    names = {"keras": keras, "math": math, "np": np, "tag_keras": tag_keras, "tf": tf, **y}
    names |= {"x": x, "y": y, "x_validation": x, "y_validation": y, "loss": "mse"}
    names |= {"model": model_of(y), "heads": {task: keras.layers.Dense(1) for task in y}}
    return names | {
        name: getattr(tag_keras, name)
        for name in ("AdaSharePolicy", "ResidualBlock", "TaskAttention")
    }


def of_groups():
    groups = (("a", "b"), ("c",))
    model_of_a_and_b, model_of_c = map(model_of, groups)
    x, y = np.ones((64, 8)), dict.fromkeys("abc", np.zeros(64))
    for model in (model_of_a_and_b, model_of_c):
        model(x)
    return {
        "grouping": tag_keras.Grouping([*"abc"], groups, {"a": 0, "b": 0, "c": 1}, 0.0, 0.0, True),
        "model_of_a_and_b": model_of_a_and_b,
        "model_of_c": model_of_c,
        "models": [model_of_a_and_b, model_of_c],
        "build_model": model_of,
        "y": y,
        "x_test": x,
        "y_test": y,
    }


def of_affinities():
    random = np.random.default_rng(0)
    affinity = tag_keras.Affinity([*"abcde"], random.normal(size=(5, 5)), np.ones((5, 5)))
    return {"affinity": affinity, "grouping": tag_keras.select_groups(affinity, num_groups=2)}


def of_measuring(x, y):
    model = model_of(y)
    model.compile("adam", "mse", affinity=tag_keras.LookaheadAffinity(every=1))
    model.fit(x, y, verbose=0)
    log = types.SimpleNamespace(log_metrics=lambda values, step: None, log=lambda values, step: 0)
    return {"model": model, "losses": "mse", "mlflow": log, "wandb": log}


def of_joint_networks(x, y):
    models = [model_of(y) for _ in range(2)]
    for model in models:
        model.fit(x, y, verbose=0)
    return {"joint_models": models, "x_val": x, "y_val": y}


def saved_run(folder):
    (folder / "runs" / "digits").mkdir(parents=True)
    rows = guard_cases.make_rows() + guard_cases.make_rows(split="test")
    tag_keras.results.save_results(folder / "runs" / "digits" / "results.json", rows)
    guard_cases.GROUPING.save(folder / "runs" / "digits" / "groups.json")


def saved_affinities(folder):
    for seed in range(3):
        (folder / f"seed_{seed}").mkdir()
        affinity = tag_keras.Affinity(["a", "b"], [[0.1, 0.2], [0.3, seed]])
        affinity.save(folder / f"seed_{seed}" / "affinity.json")


def saved_model(folder, x, y):
    model = model_of(y)
    model.fit(x, y, verbose=0)
    model.save(folder / "grouped.keras")


@pytest.mark.slow
@pytest.mark.parametrize("listed", NAMES)
def test_the_examples_of_a_page_run(listed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = taken_for_granted()
    if listed in ("GroupedModel", "Grouping", "train_groups"):
        names |= of_groups()
    elif listed in ("Affinity", "plots.plot_affinity", "plots.plot_groups", "plots.plot_frontier"):
        names |= of_affinities()
        saved_affinities(tmp_path)
    elif listed in ("AffinityLogger", "plots.plot_history"):
        names |= of_measuring(names["x"], names["y"])
    elif listed == "Decision":
        estimate = tag_keras.estimate_group_losses(guard_cases.make_rows())
        names["decision"] = tag_keras.decide_groups(estimate, num_groups=2)
    elif listed in ("plots.plot_losses", "results.load_frame"):
        saved_run(tmp_path)
    elif listed == "predict_group_losses":
        names |= of_joint_networks(names["x"], names["y"])
    elif listed == "load_network":
        saved_model(tmp_path, names["x"], names["y"])
    elif listed == "routed_resnet":
        names["images"] = np.zeros((2, 32, 32, 3), "float32")
    elif listed == "TaskRoutingModel":
        names["attributes"] = ["red_wing", *map(str, range(311))]
        names |= {"images": np.zeros((2, 64, 64, 3), "float32"), "labels": np.zeros((2, 312))}
    for name, thing in documented(listed).items():
        for code in EXAMPLE.findall(inspect.cleandoc(thing.__doc__ or "")):
            exec(compile(inspect.cleandoc(code), name, "exec"), dict(names))
