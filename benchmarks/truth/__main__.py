"""Is the choice of groups right? Trains every group of tasks, and judges every way to choose.

    python -m benchmarks.truth --output_dir=runs/truth --sets=digits6

For each set, this trains all groups of tasks with several seeds, which takes most of the time. (Of
the nine digits' tasks, it trains the groups of up to three and some larger ones.) Joint trainings
with other seeds then measure affinities by each estimator. A stopped command goes on when it is
given again. The total test losses of each way to choose go to truth.md and truth.json in the set's
folder; the ways in the figure regret.png are also printed.

The regret of a choice is the relative difference between its total test loss (the mean over the
seeds) and the total of the best choice of as many networks, averaged over 2, 3 and 4 networks. All
choices are among the trained groups; the best choice is the best by the test losses of all seeds.
A choice by the losses of one seed is judged by the other seeds, because the chosen groups would be
trained anew.

"joint or single" takes each task from the joint network or from its own, whichever is better on
validation data. The guard decides by the validation losses of all seeds of the judged networks,
because these are served. It may serve more networks than were asked for; the best choice of as many
networks then judges it.

After ± stands the standard deviation over the runs or seeds behind the choices. It leaves out how
the table itself would vary.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.truth.networks import groups_to_train, measure, train_groups_of
from benchmarks.truth.plot import plot_regret
from benchmarks.truth.promise import PROMISE_HEADER, promises
from benchmarks.truth.regret import NETWORKS, Line, all_lines
from benchmarks.truth.sets import SETS
from benchmarks.truth.table import Truth
from tag_keras.report import pages
from tag_keras.study.command import command
from tag_keras.utils import files
from tag_keras.utils.checks import check
from tag_keras.utils.files import keep_settings
from tag_keras.utils.text import cells_as_markdown

# Labels of the ways to choose in the figure, by way, number of runs, and options.
SHOWN = {
    ("joint", 0, ""): "one joint network",
    ("single", 0, ""): "one network per task",
    ("joint or single", 0, ""): "joint or single, by validation",
    ("random", 0, ""): "random groups",
    ("lookahead, every 10", 1, "forbid, mean"): "TAG as in the paper",
    ("lookahead, every 10", 1, "forbid, mean, guarded"): "TAG as in the paper, guarded",
    ("all sources alike", 0, "measured, sum"): "anchored, without affinities",
    ("lookahead, plain step", 1, "measured, sum"): "anchored affinities",
    ("lookahead, plain step", 1, "measured, sum, guarded"): "anchored affinities, guarded",
    ("HOA", 1, ""): "HOA",
    ("ESA", 1, ""): "ESA",
    ("all groups measured", 1, ""): "all groups measured, another seed",
}
# The choice of one seed needs another one that judges it.
FEWEST = {"seeds": 2, "runs": 1, "epochs": 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.truth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for all it writes")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS], help="problems")
    parser.add_argument("--seeds", type=int, default=3, help="how often each group is trained")
    parser.add_argument("--runs", type=int, default=5, help="how often affinities are measured")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of 20 steps")
    options = parser.parse_args()
    command("benchmarks.truth", functools.partial(run, options))([])


def run(options: argparse.Namespace) -> None:
    """Judges all ways to choose on each set.

    Raises:
        ValueError: If an option is too small, or if a folder holds another run or damaged files.
    """
    for name, fewest in FEWEST.items():
        number = getattr(options, name)
        check(number >= fewest, f"--{name} should be at least {fewest}", **{name: number})
    tf.get_logger().setLevel("ERROR")
    found = {}
    for name in options.sets:
        lines = judge(name, options.output_dir / name, options.seeds, options.runs, options.epochs)
        shown = [line for line in lines if (line.way, line.runs, line.options) in SHOWN]
        print(f"\n{name}\n{cells_as_markdown(as_cells(shown))}\n", flush=True)
        found[name] = lines
    path = options.output_dir / "regret.png"
    pages.write(path, pages.png(plot_regret(found, SHOWN)))
    print(f"Figure: {path}")


def judge(name: str, folder: Path, num_seeds: int, num_runs: int, epochs: int) -> list[Line]:
    """Trains and measures all that is not in the folder yet, and judges every way to choose."""
    truth_set = SETS[name](epochs)
    keep_settings(folder, {"set": name, "epochs": epochs})
    groups, seeds = groups_to_train(truth_set), range(num_seeds)
    print(f"{name}: {len(groups)} groups, {num_seeds} seeds", flush=True)
    rows, early = train_groups_of(truth_set, folder, seeds)
    truth = Truth.from_rows(rows, truth_set.tasks, groups)
    print(f"{name}: affinities of {num_runs} runs by each estimator", flush=True)
    measured = measure(truth_set, folder, num_runs)
    lines = all_lines(truth, truth.with_validation(early), measured)
    kept = [PROMISE_HEADER, *(promise.cells for promise in promises(truth, measured))]
    files.write_json(folder / "truth.json", [_fields(line) for line in lines])
    tables = f"{cells_as_markdown(as_cells(lines))}\n\nThe guard:\n\n{cells_as_markdown(kept)}\n"
    pages.write(folder / "truth.md", tables.encode())
    return lines


def as_cells(lines: Sequence[Line]) -> list[list[str]]:
    """A table of ways to choose, with its header first."""
    header = ["choice by", "runs", "options", *(f"{number} networks" for number in NETWORKS)]
    cells = [[*header, "regret, %", "networks served", "rank agreement"]]
    for line in lines:
        noise = f" ± {100 * line.deviation():.1f}" if len(line.totals) > 1 else ""
        cells.append(
            [
                line.way,
                str(line.runs or ""),
                line.options,
                *(f"{total:.3f}" for total in np.nanmean(line.totals, axis=0)),
                f"{100 * line.regret.mean():.1f}{noise}",
                f"{np.nanmean(line.networks[:, 1:]):.1f}",
                "" if math.isnan(line.agreement) else f"{line.agreement:.2f}",
            ]
        )
    return cells


def _fields(line: Line) -> dict[str, object]:
    """A line as written to truth.json, with null for NaN, which JSON does not have."""
    values = dataclasses.asdict(line)
    values |= {name: value.tolist() for name, value in values.items() if hasattr(value, "tolist")}
    fields: dict[str, object] = json.loads(json.dumps(values).replace("NaN", "null"))
    return fields


if __name__ == "__main__":
    main()
