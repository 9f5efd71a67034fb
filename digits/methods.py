"""The rivals of grouping: methods that train one network for all tasks.

All have the same residual blocks. They differ in how they combine the losses or the gradients of
the tasks, or in the parts of the network that each task uses.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import tag_keras
from digits import network
from digits.names import RIVALS
from tag_keras.multitask.task_model import TaskModel
from tag_keras.networks.resnet import resnet_parts
from tag_keras.results import Row
from tag_keras.study.methods import method_options
from tag_keras.study.study import Study
from tag_keras.sweep.job import Job
from tag_keras.sweep.network import Data, Network, load_network
from tag_keras.sweep.sweep import run_sweep

__all__ = ["RIVALS", "build_rival", "small_resnet", "train_rival"]

SIZES: dict[str, Any] = {"input_shape": (8, 8, 1), "depth": (2, 2), "widths": (16, 32)}
# GradNorm measures at the last kernel of the last of these blocks.
_LAST_BLOCK = "stage2_block2"
# AdaShare's search has few steps here: its turns are short, and its temperature falls fast.
_SEARCH: dict[str, Any] = {
    "weight_steps": 10,
    "policy_steps": 10,
    "curriculum_speed": 1,
    "temperature_decay": 0.8,
    "sparsity": 0.001,
}
# Steps of `"mtl_long"`, in those of the others: about the time of the groups' networks, or of the
# updates of Selective Task Group Updates.
_LONG = 5

small_resnet = functools.partial(tag_keras.resnet_encoder, **SIZES)


def _of_experts(build: Callable[..., keras.Model], tasks: Sequence[str]) -> keras.Model:
    """An encoder whose experts have all blocks."""
    stem, stages = resnet_parts(**SIZES)
    return build(tasks, stem, lambda: keras.Sequential([stage() for stage in stages]))


def _of_stages(build: Callable[..., keras.Model], tasks: Sequence[str]) -> keras.Model:
    """An encoder whose levels or parts are the stages of blocks."""
    return build(tasks, *resnet_parts(**SIZES))


_ENCODERS: dict[str, Callable[[Sequence[str]], keras.Model]] = {
    "mtan": functools.partial(tag_keras.mtan_encoder, **SIZES),
    # Half of the channels serve all tasks, each other one serves one task: with twice the width, a
    # task has about as many channels as without routing.
    "task_routing": functools.partial(
        tag_keras.task_routing_encoder, **{**SIZES, "widths": (32, 64)}
    ),
    "mmoe": functools.partial(
        _of_experts, functools.partial(tag_keras.mmoe_encoder, num_experts=4)
    ),
    "cgc": functools.partial(_of_experts, tag_keras.cgc_encoder),
    "ple": functools.partial(_of_stages, tag_keras.ple_encoder),
    "cross_stitch": functools.partial(_of_stages, tag_keras.cross_stitch_encoder),
}


def build_rival(
    tasks: Sequence[str], method: str = "mtl", learning_rate: float = 1e-3, steps: int = 400
) -> TaskModel:
    """Builds the compiled model of a method.

    Args:
        tasks: Some of `data.TASKS`.
        method: One of `RIVALS`, or `"mtl"`. `"mtl"` and `"mtl_long"` are plain joint trainings, and
            `"adashare"` is the model that searches for a policy.
        learning_rate: Learning rate of Adam at the start; it falls to 0 along a cosine.
        steps: Number of training steps.
    """
    if method == "adashare":
        encoder = tag_keras.adashare_encoder(tasks, **SIZES)
        model = tag_keras.AdaShareModel(encoder, network.heads(tasks))
        # A fifth of the steps come before the search, as in the authors' code.
        search = tag_keras.AdaShareSearch(warm_up=steps // 5, **_SEARCH)
        network.compile_model(model, learning_rate, steps, search=search)
        return model
    encoder = _ENCODERS.get(method, small_resnet)(tasks)
    return network.build_model(
        tasks, learning_rate, steps, lambda tasks: encoder, **_options(method, encoder)
    )


def train_rival(
    name: str,
    folder: Path,
    tasks: tuple[str, ...],
    seeds: Sequence[int],
    data: Mapping[str, Data],
    learning_rate: float = 1e-3,
    steps: int = 400,
    processes: int = 0,
    **fit: Any,
) -> list[Row]:
    """Trains a network for all tasks by a method, once with each seed.

    AdaShare trains two: `"adashare_search"` searches for a policy, and `"adashare"` is trained anew
    under a policy drawn from it. `"mtl_long"` makes five times as many steps as the others; its
    learning rate falls more slowly by the same factor.

    Args:
        name: Method, one of `RIVALS` or `"mtl"`.
        folder: Folder for the networks and results. Networks that are there are not trained again.
        tasks: Some of `data.TASKS`.
        seeds: Seeds of weights and batches.
        data: `"train"` and the splits to evaluate on.
        learning_rate: Learning rate of Adam at the start; it falls to 0 along a cosine.
        steps: Number of training steps.
        processes: Number of networks to train at once, each in a process of its own; 0 trains in
            this process.
        **fit: Arguments of `fit`.

    Returns:
        Rows of the networks.
    """
    if name == "mtl_long":
        steps, fit = steps * _LONG, {**fit, "epochs": fit["epochs"] * _LONG}
    build = functools.partial(build_rival, learning_rate=learning_rate, steps=steps)
    study = Study(folder, tasks, build, data, fit, {}, tuple(seeds), processes=processes)
    if name != "adashare":
        return study.train([Network(name, tasks, role=name)], seeds)
    searched = Network(f"{name}_search", tasks, role=name)
    rows = study.train([searched], seeds, folder / "search")
    jobs = []
    for seed in seeds:
        path = folder / "search" / "networks" / dataclasses.replace(searched, seed=seed).file
        build_found = functools.partial(_build_found, path, seed, learning_rate, steps)
        jobs.append(Job(Network(name, tasks, seed, role=name), build_found, fit))
    return [*rows, *run_sweep(folder, jobs, data, processes)]


def _options(method: str, encoder: keras.Model) -> dict[str, Any]:
    """Arguments of `compile` for a method."""
    if method == "selective":
        # The authors average over more batches than there are here.
        return {"gradient_method": tag_keras.SelectiveTaskGroupUpdates(decay=0.01)}
    if method == "mtl_long" or method in _ENCODERS:
        return {}
    kernel = encoder.get_layer(_LAST_BLOCK).second.convolution
    # The gradients are large here: with its default rate, GradNorm's weights would be noise.
    return method_options(method, kernel, learning_rate=1e-3)


def _build_found(
    path: Path, seed: int, learning_rate: float, steps: int, tasks: Sequence[str]
) -> tag_keras.MultiTaskModel:
    """Builds the compiled network of a policy that a search has found."""
    search = load_network(path)
    model: tag_keras.MultiTaskModel = search.retrain_model(search.sample_policy(seed))
    network.compile_model(model, learning_rate, steps)
    return model
