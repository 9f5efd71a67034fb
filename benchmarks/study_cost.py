"""The cost of choosing groups: TAG, training all pairs, and training all groups.

    python -m benchmarks.study_cost

Six tasks of the digits, three networks, one seed. TAG (Fifty et al. 2021) measures in one joint
training, with a probe on every second step, as in `digits.train`. HOA (Standley et al. 2020) trains
every task and every pair, 21 networks. The optimal selection trains all 63 groups. Each method
trains all of its networks in this process, those of the same parts in one graph, with the same
number of steps. The time of a method is the CPU time until the networks that serve are trained, and
includes the selection and the tracing of graphs. It is also given in units of TAG's time.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tag_keras
from benchmarks.measuring import Figure, show
from benchmarks.options import load_lazily, make_parser
from tag_keras.results import load_results

keras, tf, data, network = map(
    load_lazily, ("keras", "tensorflow", "digits.data", "digits.network")
)
methods, table = map(load_lazily, ("tag_keras.study.methods", "tag_keras.study.table"))

TASKS = ("is_even", "at_least_five", "has_loop", "left_heavy", "ink", "slant")
METHODS = ("tag", "hoa", "optimal")
BATCH_SIZE, STEPS_PER_EPOCH = 25, 20


def build_model(
    tasks: tuple[str, ...],
    method: str = "mtl",
    affinity: tag_keras.LookaheadAffinity | None = None,
    half_size: bool = False,
    epochs: int = 20,
) -> tag_keras.MultiTaskModel:
    return network.build_model(tasks, steps=epochs * STEPS_PER_EPOCH, affinity=affinity)


def make_study(folder: Path, tasks: tuple[str, ...], epochs: int) -> tag_keras.study.Study:
    splits = dict(data.load(num_train=100))
    splits["train"] = functools.partial(data.batches, splits["train"], BATCH_SIZE)
    return tag_keras.study.Study(
        folder,
        tasks,
        functools.partial(build_model, epochs=epochs),
        splits,
        {"epochs": epochs, "steps_per_epoch": STEPS_PER_EPOCH, "verbose": 0},
        {"tag": tag_keras.LookaheadAffinity(2, "sgd")},
        seeds=(0,),
        num_groups=(min(3, len(tasks)),),
        processes=0,
    )


def main() -> None:
    parser = make_parser("benchmarks.study_cost", __doc__)
    parser.add_argument("--quick", action="store_true", help="three tasks, one epoch")
    quick = parser.parse_args().quick
    tasks, epochs = (TASKS[:3], 1) if quick else (TASKS, 20)
    # Before TensorFlow, which loads a part of Keras, and so none of the rest.
    keras.utils.set_random_seed(0)
    tf.get_logger().setLevel("ERROR")
    seconds, totals = {}, {}
    for method in METHODS:
        keras.utils.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            study = make_study(Path(folder), tasks, epochs)
            start = time.process_time()
            choices = methods.run_method(study, method)
            seconds[method] = time.process_time() - start
            rows = load_results(Path(folder, "results.json"))
        totals[method] = table.study_lines(rows, {method: choices}, tasks)[0].totals[0]
    figures = []
    for method in METHODS:
        trained = len(methods.METHODS[method].networks(tasks))
        figures += [
            Figure.of(method, "networks to choose by", trained),
            Figure.of(method, "CPU s", seconds[method]),
            Figure.of(method, "in that of TAG", seconds[method] / seconds["tag"]),
            Figure.of(method, "total test loss", totals[method]),
        ]
    show("method", figures)


if __name__ == "__main__":
    main()
