"""Makes the tables of the truth benchmark: every group of tasks, trained with 8 seeds.

    python -m benchmarks.truth.make --problems rf1 yeast --widths 32 --sizes 1000 \\
        --output_dir=runs/tables

A table is of one problem in one regime: the width of the two shared layers, and the number of
training examples. Tables that are in the folder already are skipped, and a stopped command goes on
when it is given again. A table takes two to ten minutes of one core; all ninety take five hours.

Real data come out of other packages, which are downloaded to ~/.cache/tag_keras, or to
$TAG_KERAS_CACHE. A problem whose file cannot be had is left out, and a sentence says why. Some
files need readers: pip install "tag_keras[benchmarks]".
"""

import argparse
import functools
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from benchmarks.truth.making import NUM_SEEDS, SIZES, WIDTHS, Regime, make_table, regime
from benchmarks.truth.problems import PROBLEMS
from benchmarks.truth.problems.packages import MissingProblemError
from benchmarks.truth.problems.problem import Problem
from tag_keras.study.command import command
from tag_keras.utils.checks import check

ALL = "all"
# Folder of the results of single networks, in the output directory. They go when a table is whole.
WORK = ".networks"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.truth.make",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = [size or ALL for size in SIZES]
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the tables")
    parser.add_argument(
        "--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS], help="default: all"
    )
    parser.add_argument(
        "--widths", nargs="+", type=int, default=WIDTHS, help="units of each shared layer"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=_size, default=sizes, help=f"training examples, or {ALL}"
    )
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help="how often a group is trained")
    options = parser.parse_args()
    command("benchmarks.truth.make", functools.partial(run, options))([])


def _size(text: str) -> int | str:
    return text if text == ALL else int(text)


def run(options: argparse.Namespace) -> None:
    """Makes all tables that are not in the folder yet.

    Raises:
        ValueError: If an option is too small, or if a folder holds other networks.
    """
    for name, values in {"widths": options.widths, "seeds": [options.seeds]}.items():
        check(min(values) >= 1, f"--{name} should be at least 1", **{name: list(values)})
    sizes = [None if size == ALL else size for size in options.sizes]
    check(
        all(size is None or size >= 1 for size in sizes),
        "--sizes should be at least 1",
        sizes=sizes,
    )
    tf.get_logger().setLevel("ERROR")
    for name, problem in _problems(options.problems):
        for width, size in itertools.product(options.widths, sizes):
            number = len(problem.train[0])
            if size is not None and size > number:
                print(f"{name} has {number} training examples, not {size}: no table", flush=True)
                continue
            _make(name, problem, regime(width, size), options.output_dir, options.seeds)


def _problems(names: list[str]) -> Iterator[tuple[str, Problem]]:
    """The problems, without those that cannot be had."""
    for name in names:
        try:
            yield name, PROBLEMS[name]()
        except MissingProblemError as error:
            print(f"{name} is left out: {error}", flush=True)


def _make(name: str, problem: Problem, regime: Regime, folder: Path, num_seeds: int) -> None:
    path = folder / regime.file_name(name)
    if path.exists():
        print(f"{path} is there", flush=True)
        return
    work = folder / WORK / path.stem
    table = make_table(name, problem, regime, work, num_seeds)
    table.save(path)
    shutil.rmtree(work)
    seconds, size = table.about["cpu_seconds"], path.stat().st_size / 1000
    print(f"{path}: {seconds:.0f} CPU seconds, {size:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
