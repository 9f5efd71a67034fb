"""Memory that stays in a process for each network trained in it, beside plain Keras.

    python -m benchmarks.memory

Two tasks, and a network with hidden layers of `--width` units. Each kind trains in a process of its
own, one network after the other: plain Keras with `clear_session` before each, and `run_sweep` with
`processes=0`, with and without affinities. Memory is the resident set after a garbage collection,
with free pages given back. The first networks do not count: much is made once.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pathlib
import re
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tag_keras
from benchmarks.measuring import Figure, run_apart, show
from benchmarks.options import load_lazily, make_parser

keras, tf, sweep = map(load_lazily, ("keras", "tensorflow", "tag_keras.sweep"))

TASKS = ("a", "b")
PLAIN, OURS, MEASURING = "plain Keras", "run_sweep", "run_sweep with affinity"
FIRST = 3


def build_network(width: int) -> keras.Model:
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(width, "relu")(inputs)
    hidden = keras.layers.Dense(width, "relu")(hidden)
    return keras.Model(inputs, {task: keras.layers.Dense(1)(hidden) for task in TASKS})


def train(kind: str, width: int, seed: int, data: tuple) -> None:
    losses = dict.fromkeys(TASKS, "mse")
    if kind == PLAIN:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = build_network(width)
        model.compile("adam", losses)
        model.fit(*data, epochs=2, verbose=0)
        model.evaluate(*data, verbose=0)
        return

    def build_model(tasks: tuple[str, ...]) -> tag_keras.MultiTaskModel:
        model = tag_keras.MultiTaskModel.from_functional(build_network(width))
        affinity = tag_keras.LookaheadAffinity(every=2) if kind == MEASURING else None
        model.compile("adam", losses, affinity=affinity)
        return model

    job = sweep.Job(sweep.Network("joint", TASKS, seed), build_model, {"epochs": 2, "verbose": 0})
    folder = tempfile.mkdtemp()
    sweep.run_sweep(folder, [job], {"train": data, "test": data}, processes=0)
    shutil.rmtree(folder)


def resident_megabytes() -> float:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) / 1024


def growth(kind: str, width: int, networks: int) -> list[float]:
    """Growth of this process with each network, in MB."""
    # Before TensorFlow, which loads a part of Keras, and so none of the rest.
    keras.utils.set_random_seed(0)
    tf.get_logger().setLevel("ERROR")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype("float32")
    data = x, {task: x[:, index] for index, task in enumerate(TASKS)}
    sizes = []
    for seed in range(FIRST + networks):
        train(kind, width, seed, data)
        sizes.append(resident_megabytes())
    return np.diff(sizes[FIRST - 1 :]).tolist()


def main() -> None:
    parser = make_parser("benchmarks.memory", __doc__)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--networks", type=int, default=40)
    kinds = (PLAIN, OURS, MEASURING)
    parser.add_argument("--growth_of", choices=kinds, help="print one kind's growth only, in MB")
    given = parser.parse_args()
    if given.growth_of:
        print(f"\n{json.dumps(growth(given.growth_of, given.width, given.networks))}")
        return
    figures, means = [], {}
    for kind in kinds:
        options = [f"--growth_of={kind}", f"--width={given.width}", f"--networks={given.networks}"]
        text = run_apart("benchmarks.memory", options)
        values = np.array(json.loads(text.strip().rpartition("\n")[2]))
        means[kind] = values.mean()
        figures += [
            Figure.of(kind, "MB per network", values),
            Figure.of(kind, "mean, MB", means[kind]),
            Figure.of(kind, "mean, in that of plain Keras", means[kind] / means[PLAIN]),
        ]
    show(f"width {given.width}, {given.networks} networks", figures)


if __name__ == "__main__":
    main()
