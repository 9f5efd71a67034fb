"""What a run ran with, as JSON: its compiled model, its data, its callbacks.

Two runs of one fingerprint train the same networks, as far as can be known: arrays count by
content, frozen weights by value but for rounding, layers, losses and optimizers by their
configuration, functions by their code and by the constants that they read, datasets by the types of
their elements. Other weights do not count: most begin at random.
"""

import functools
import json
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tag_keras.backend.layers import build_from_seed, layers_in
from tag_keras.sweep.descriptions import (
    Names,
    config_of,
    describe,
    describe_object,
    plain,
)
from tag_keras.utils import files
from tag_keras.utils.child_processes import ChildProcesses, exit_if_imported_by_child, pickled
from tag_keras.utils.differences import NOT_COMPARED
from tag_keras.utils.text import unused

Fingerprint = dict[str, Any]


def of_run(
    build_model: Callable[..., Any],
    tasks: tuple[str, ...],
    seed: int,
    data: Mapping[str, Any],
    fit: Mapping[str, Any],
    gpus: Sequence[str] = (),
) -> Fingerprint:
    """The fingerprint of a run, by the model that `build_model` makes for `tasks`.

    `gpus` are those that other processes are to train on.
    """
    model = of_network(build_model, tasks, seed, gpus)
    return {"model": model, "data": of_data(data), "fit": of_fit(fit)}


def of_network(
    build_model: Callable[..., Any], tasks: tuple[str, ...], seed: int, gpus: Sequence[str] = ()
) -> Fingerprint:
    """Builds a model, and describes it."""
    if gpus:
        # This process would take their memory.
        return _of_network_elsewhere(build_model, tasks, seed)
    # Frozen weights may begin at random, too.
    return of_model(build_from_seed(lambda: build_model(tasks), seed))


def _of_network_elsewhere(*network: Any) -> Fingerprint:
    exit_if_imported_by_child()
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder, "model.json"), Path(folder, "log")
        call = functools.partial(_write_network, path, *network)
        environment = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
        if ChildProcesses().call(pickled(call, "`build_model`"), log, environment):
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            raise ValueError(f"`build_model` failed for the tasks {list(network[1])}:\n{text}")
        return dict(files.read_json(path))


def _write_network(path: Path, *network: Any) -> None:
    files.write_json(path, of_network(*network))


def of_data(data: Mapping[str, Any]) -> Fingerprint:
    """Describes the data by split."""
    return {split: _of_split(one) for split, one in data.items()}


def of_fit(fit: Mapping[str, Any]) -> Fingerprint:
    """Describes the arguments of `fit` that `comparable` leaves out."""
    settings = files.comparable(fit)
    described = {
        name: _of_callbacks(value) if name == "callbacks" else _of_split(value)
        for name, value in fit.items()
        if name not in (*settings, "verbose") and value is not None
    }
    return {name: value for name, value in described.items() if value != {}}


def _of_callbacks(callbacks: Any) -> Any:
    if not isinstance(callbacks, list | tuple):
        # Its code may hold the time, in the name of a folder for instance.
        return getattr(callbacks, "__qualname__", type(callbacks).__qualname__)
    found: Fingerprint = {}
    for callback in callbacks:
        described = describe(callback)
        if not type(callback).__module__.startswith("keras."):
            # So may attributes of a user's class.
            kept = {name: one for name, one in described.items() if not isinstance(one, float)}
            described = {**kept, "class": described["class"]}
        found[unused(type(callback).__name__, found)] = described
    return found


def _of_split(data: Any) -> Any:
    if isinstance(data, tuple | list):
        parts = zip(("x", "y", "sample_weight"), data, strict=False)
        return {name: describe(part) for name, part in parts if part is not None}
    described = describe(data)
    if isinstance(described, dict) and not isinstance(data, Mapping):
        described["values"] = NOT_COMPARED
    return described


def of_model(model: Any) -> Fingerprint:
    """Describes a compiled model: its layers in their order, and how it is trained."""
    if not isinstance(model, keras.Model):
        return describe_object(model)
    # The state of `compile` is no part of the architecture.
    methods = getattr(model, "compiled_methods", None)
    layers, names = _layers_of(model, without=methods)
    described = {
        "keras": keras.version(),
        "layers": layers,
        **{name: describe(value, names) for name, value in _training_of(model).items()},
        "weights": _of_weights(model.weights),
    }
    return dict(json.loads(json.dumps(described)))


def of_part(layer: keras.layers.Layer) -> Fingerprint:
    """Describes a part of a model, such as its encoder: its layers, and the weights' shapes."""
    layers, _ = _layers_of(layer)
    shapes = [[list(weight.shape), bool(weight.trainable)] for weight in layer.weights]
    return dict(json.loads(json.dumps({"layers": layers, "weights": shapes})))


def _layers_of(layer: Any, without: Any = None) -> tuple[Fingerprint, Names]:
    """The layers by their names, each described, and these names."""
    layers = {id(one): one for one in _in_order(layer, without)}
    names = Names(layers.values())
    return {names.of[key]: _of_layer(one, names) for key, one in layers.items()}, names


def _in_order(layer: Any, without: Any) -> Iterator[Any]:
    """The layer, and those in it, in the order in which it got them."""
    yield layer
    for one in layers_in(layer, include_self=False, recursive=False):
        if one is not without:
            yield from _in_order(one, without)
    # Operations such as keras.ops.add stand between the layers of a Functional model.
    yield from getattr(layer, "operations", ())


def _training_of(model: keras.Model) -> dict[str, Any]:
    losses = getattr(model, "task_losses", None)
    weights = [] if losses is None else zip(losses.tasks, losses.weights, strict=True)
    training = {
        "optimizer": getattr(model, "optimizer", None),
        "loss": getattr(model, "loss", None),
        "loss_weights": {task: float(weight) for task, weight in weights},
        **vars(getattr(model, "_metrics_given", types.SimpleNamespace())),
        "loss_weighting": getattr(model, "loss_weighting", None),
        "gradient_method": getattr(model, "gradient_method", None),
    }
    return {name: value for name, value in training.items() if value is not None}


def _of_layer(layer: Any, names: Names) -> Fingerprint:
    described = describe_object(layer, names)
    if "layers" in described:
        # Each is described on its own. What is left is how they are connected.
        parts = (config_of(layer) or {}).get("layers", ())
        links = [plain(one.get("inbound_nodes"), names) for one in parts]
        described["connections"] = files.short_hash(json.dumps([described.pop("layers"), links]))
    usual = {"trainable": True, "dtype": "float32"}
    return {name: one for name, one in described.items() if usual.get(name) != one}


def _of_weights(weights: Sequence[keras.Variable]) -> Fingerprint:
    shapes = [[list(weight.shape), bool(weight.trainable)] for weight in weights]
    return {
        "trained": sum(int(np.prod(one.shape)) for one in weights if one.trainable),
        "shapes": files.short_hash(json.dumps(shapes)),
        "frozen": [_of_frozen(weight) for weight in weights if not weight.trainable],
    }


def _of_frozen(weight: keras.Variable) -> list[float]:
    """Root of the mean square, and a sum with factors that are as good as random.

    `differences` compares them by value: means over shuffled data differ in their last digits.
    """
    # Sums of what is infinite, such as the mask of an attention, could not be compared.
    values = np.nan_to_num(np.asarray(weight, "float64").ravel(), True, 2e3, 1e3, -1e3)
    # More factors than most arrays have elements would take longer than all else.
    factors = np.resize(np.random.default_rng(0).normal(size=4099), values.size)
    root = max(values.size, 1) ** 0.5
    return [float(np.linalg.norm(values) / root), float(values @ factors / root)]
