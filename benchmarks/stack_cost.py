"""CPU time and memory of networks that are trained in one graph, beside one by one.

    python -m benchmarks.stack_cost

Every group of the tasks is trained with several seeds by `run_sweep` with `processes=0`: all of
them with `stack=True`, and a sample with `stack=False`. For "lookahead", the networks for all tasks
measure affinities, with eight seeds or more. Each is a process of its own, in turns. A ratio is the
CPU time that a network takes one by one, over that in the stack, with all that both take once:
making the graph, building, evaluating, writing files. Memory is the peak of the process above that
of one network alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tag_keras
from benchmarks.measuring import Figure, peak_megabytes, run_apart, show
from benchmarks.options import Renamed, load_lazily, make_parser

keras, sweep, own = map(load_lazily, ("keras", "tag_keras.sweep", "benchmarks.self_attention"))

MEASURING = "lookahead"
# By kind: the shape of an example, the number of tasks, and the keras.layers.
KINDS = {
    "perceptron": (
        *((20,), 7),
        lambda: [keras.layers.Dense(32, "relu"), keras.layers.Dense(32, "relu")],
    ),
    "convolutions": (
        *((8, 8, 1), 6),
        lambda: [
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
        ],
    ),
    "LSTM": ((12, 4), 5, lambda: [keras.layers.LSTM(16)]),
    "attention": (
        *((12, 4), 5),
        lambda: [
            keras.layers.Dense(16),
            own.SelfAttention(2, 8),
            keras.layers.GlobalAveragePooling1D(),
        ],
    ),
}
KINDS[MEASURING] = KINDS["perceptron"]


def train(kind: str, stack: bool, seeds: int, sample: int) -> dict[str, float]:
    """Trains all groups, or a sample of them; returns CPU seconds and megabytes."""
    shape, number, make_layers = KINDS[kind]
    tasks = tuple(f"task{index}" for index in range(number))
    generator = np.random.default_rng(0)

    def split(examples: int) -> tuple:
        x = generator.normal(size=(examples, *shape)).astype("float32")
        return x, {task: generator.normal(size=(examples, 1)).astype("float32") for task in tasks}

    def build_model(group: tuple[str, ...]) -> tag_keras.MultiTaskModel:
        heads = {task: keras.layers.Dense(1) for task in group}
        model = tag_keras.MultiTaskModel(keras.Sequential(make_layers()), heads)
        rate = keras.optimizers.schedules.CosineDecay(0.01, 400)
        model.compile(keras.optimizers.Adam(rate), "mse", affinity=affinity)
        return model

    measures, smallest = kind == MEASURING, 1
    affinity = tag_keras.LookaheadAffinity(every=10) if measures else None
    if measures:
        smallest, seeds = number, max(8, seeds)
    groups = [
        group
        for size in range(smallest, number + 1)
        for group in itertools.combinations(tasks, size)
    ]
    fit = {"batch_size": 32, "epochs": 10, "verbose": 0}
    jobs = [
        sweep.Job(
            sweep.Network("-".join(group), group, seed),
            build_model,
            fit,
            saves=False,
            measures=measures,
        )
        for seed in range(seeds)
        for group in groups
    ]
    if sample:
        jobs = [jobs[place] for place in np.linspace(0, len(jobs) - 1, sample).astype(int)]
    data = {"train": split(1280), "test": split(320)}
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        rows = sweep.run_sweep(folder, jobs, data, processes=0, stack=stack)
    seconds = time.process_time() - start
    if {row.stacked for row in rows} != {stack}:
        raise RuntimeError(f"Networks of {kind} were trained in another way than asked for.")
    return {"each": seconds / len(jobs), "networks": len(jobs), "megabytes": peak_megabytes()}


def apart(*options: object) -> dict[str, float]:
    return json.loads(run_apart("benchmarks.stack_cost", ["--one", *map(str, options)]))


def main() -> None:
    parser = make_parser("benchmarks.stack_cost", __doc__)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    parser.add_argument("--num_seeds", type=int, default=3)
    parser.add_argument("--seeds", action=Renamed, now="--num_seeds")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sample", type=int, default=4, help="Networks trained one by one.")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, *numbers = options.one
        stack, seeds, sample = map(int, numbers)
        print(json.dumps(train(kind, bool(stack), seeds, sample)))
        return
    figures = []
    for kind in options.kinds:
        together, alone = [], []
        for _ in range(options.turns):
            together.append(apart(kind, 1, options.num_seeds, 0))
            alone.append(apart(kind, 0, options.num_seeds, options.sample))
        ratios = [one["each"] / other["each"] for one, other in zip(alone, together, strict=True)]
        above = np.median([one["megabytes"] for one in alone])
        figures += [
            Figure.of(kind, "networks", together[0]["networks"]),
            Figure.of(kind, "times as fast", ratios),
            Figure.of(kind, "CPU s each", [one["each"] for one in together]),
            Figure.of(kind, "MB above one", [one["megabytes"] - above for one in together]),
        ]
    show("kind", figures)


if __name__ == "__main__":
    main()
