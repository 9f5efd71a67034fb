"""Makes the tables of the truth benchmark: every group of tasks, trained with 8 seeds.

    python -m benchmarks.truth.make --problems rf1 yeast --widths=32 --sizes=1000 \\
        --output_dir=runs/tables

A table is of one problem in one regime: the width of the two shared layers, and the number of
training examples. Tables that are in the folder already are skipped, and a stopped command goes on
when it is given again. A table takes two to ten minutes of one core; all ninety take five hours.

    python -m benchmarks.truth.make --add_affinities --output_dir=benchmarks/truth/tables

measures what tables in the folder lack of the estimators' affinities, and makes no table.

Real data come out of other packages, which are downloaded to ~/.cache/tag_keras, or to
$TAG_KERAS_CACHE. A problem whose file cannot be had is left out, and a sentence says why. Some
files need readers: pip install "tag_keras[benchmarks]".
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.options import Renamed, load_lazily, make_parser, numbers
from benchmarks.truth.problems import PROBLEMS
from benchmarks.truth.problems.packages import MissingProblemError
from benchmarks.truth.problems.problem import Problem
from benchmarks.truth.tables import NUM_SEEDS, Table
from tag_keras.study.command import command
from tag_keras.utils.checks import check

tf, making = map(load_lazily, ("tensorflow", "benchmarks.truth.making"))

ALL = "all"
WIDTHS = (8, 32, 128)
# Numbers of training examples.
SIZES = (100, 1000, ALL)
# Folder of the results of single networks, in the output directory. They go when a table is whole.
WORK = ".networks"


def main() -> None:
    parser = make_parser("benchmarks.truth.make", __doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the tables")
    parser.add_argument(
        "--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS], help="default: all"
    )
    parser.add_argument("--widths", type=numbers, default=WIDTHS, help="units of each shared layer")
    parser.add_argument(
        "--sizes", type=sizes, default=SIZES, help=f"numbers of training examples, or {ALL}"
    )
    words = "how often a group is trained"
    parser.add_argument("--num_seeds", type=int, default=NUM_SEEDS, help=words)
    parser.add_argument("--seeds", action=Renamed, now="--num_seeds")
    words = "only add the affinities that tables in the folder lack"
    parser.add_argument("--add_affinities", action="store_true", help=words)
    options = parser.parse_args()
    command("benchmarks.truth.make", functools.partial(run, options))([])


def sizes(text: str) -> list[int | str]:
    """Whole numbers, or ALL, with commas between them."""
    return [part if part == ALL else int(part) for part in text.split(",")]


def run(options: argparse.Namespace) -> None:
    """Makes all tables that are not in the folder yet.

    Raises:
        ValueError: If an option is too small, or if a folder holds other networks.
    """
    for name, values in {"widths": options.widths, "num_seeds": [options.num_seeds]}.items():
        check(min(values) >= 1, f"--{name} should be at least 1", **{name: list(values)})
    numbers_of_examples = [None if size == ALL else size for size in options.sizes]
    check(
        all(size is None or size >= 1 for size in numbers_of_examples),
        "--sizes should be at least 1",
        sizes=numbers_of_examples,
    )
    tf.get_logger().setLevel("ERROR")
    if options.add_affinities:
        _add_affinities(options.output_dir)
        return
    for name, problem in _problems(options.problems):
        for width, size in itertools.product(options.widths, numbers_of_examples):
            number = len(problem.train[0])
            if size is not None and size > number:
                print(f"{name} has {number} training examples, not {size}: no table", flush=True)
                continue
            _make(name, problem, making.regime(width, size), options.output_dir, options.num_seeds)


def _problems(names: list[str]) -> Iterator[tuple[str, Problem]]:
    """The problems, without those that cannot be had."""
    for name in names:
        try:
            yield name, PROBLEMS[name]()
        except MissingProblemError as error:
            print(f"{name} is left out: {error}", flush=True)


def _make(name: str, problem: Problem, regime: making.Regime, folder: Path, num_seeds: int) -> None:
    path = folder / regime.file_name(name)
    if path.exists():
        print(f"{path} is there", flush=True)
        return
    work = folder / WORK / path.stem
    table = making.make_table(name, problem, regime, work, num_seeds)
    table.save(path)
    shutil.rmtree(work)
    seconds, size = table.about["cpu_seconds"], path.stat().st_size / 1000
    print(f"{path}: {seconds:.0f} CPU seconds, {size:.0f} kB", flush=True)


def _add_affinities(folder: Path) -> None:
    """Adds to the tables in a folder the affinities of the estimators that they lack."""
    for path in sorted(folder.glob("*.npz")):
        table, start = Table.load(path), time.process_time()
        regime = making.regime(table.about["width"], table.about["size"])
        if not {*making.estimators()} - {*table.affinities}:
            print(f"{path} has all affinities", flush=True)
            continue
        for _, problem in _problems([table.about["problem"]]):
            work = folder / WORK / path.stem
            number = len(table.seeds)
            added = making.measure_affinities(problem, regime, work, number, table.affinities)
            affinities = {**table.affinities, **added}
            dataclasses.replace(table, affinities=affinities).save(path)
            shutil.rmtree(work)
            with contextlib.suppress(OSError):
                # Networks of tables that are not whole stay.
                work.parent.rmdir()
            seconds = time.process_time() - start
            print(f"{path}: {', '.join(added)} in {seconds:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
