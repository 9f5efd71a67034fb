"""Is the choice of groups right? Judges ways to choose by tables of all groups of real problems.

    python -m benchmarks.truth

Each table has the losses of every group of up to eight tasks of a problem, trained with eight
seeds, in a regime: a width of the network and a number of training examples. They lie in
benchmarks/truth/tables; `python -m benchmarks.truth.make` makes them anew. A rule chooses by the
validation losses of a random half of the seeds; the test losses of the other half judge it, 20
times over. The figure is the gain in total test loss over the joint network, in percent of it; the
second one is over the better of the joint network and one network per task, by the same validation
losses. After ± stands the standard error over the problems, whose regimes are averaged first.

"other seeds' test losses" chooses the best groups by the test losses of the choosing half: what
noise leaves to choices that see no estimate but better data than any user has.

Then it says how often `decide_groups` was right when it was so sure, and how often the gain was in
its interval of 90 %, given the noise of the judging seeds.

A rule of your own is a function as in benchmarks/truth/rules.py: `--rule=mine:my_rule`.

`--figures=FOLDER` draws what each rule gains for the networks that it trains, and in which regimes
groups pay.
"""

import argparse
import concurrent.futures
import functools
import importlib
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# One thread for each process: the matrices are small.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.options import Renamed, make_parser
from benchmarks.truth.judging import ORACLE, Forecast, Result, by_problem, judge, standard_error
from benchmarks.truth.rules import RULES, SLOW_RULES, Rule
from benchmarks.truth.tables import Table
from tag_keras.utils import files
from tag_keras.utils.checks import check
from tag_keras.utils.text import cells_as_markdown

TABLES = Path(__file__).parent / "tables"
# Parts of the probabilities that are said to be right or not.
BINS = (0.0, 0.2, 0.5, 0.8, 0.95, 1.0)
# Rules that stand in the table of single problems.
SHOWN = ("single", "TAG as in the paper", "HOA", "all groups, raw", "all groups, decided")


def make_table_parser(module: str, text: str) -> argparse.ArgumentParser:
    """The parser of a command that judges choices of networks by tables."""
    parser = make_parser(module, text)
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the tables")
    parser.add_argument("--num_groups", type=int, default=3, help="largest number of networks")
    parser.add_argument("--num_networks", action=Renamed, now="--num_groups")
    return parser


def main() -> None:
    parser = make_table_parser("benchmarks.truth", __doc__)
    parser.add_argument("--splits", type=int, default=20, help="splits of the seeds in halves")
    parser.add_argument(
        "--rule", action="append", default=[], help="module:function, a further rule"
    )
    parser.add_argument(
        "--slow", action="store_true", help="rules that take ten times as long, too"
    )
    parser.add_argument("--output", type=Path, help="file for the tables printed, in Markdown")
    parser.add_argument("--figures", type=Path, help="folder for two figures, needs matplotlib")
    options = parser.parse_args()
    try:
        text = run(options)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"benchmarks.truth: {error}")
    print(text)


def run(options: argparse.Namespace) -> str:
    """Judges all rules on all tables; returns the tables of results in Markdown.

    Raises:
        ValueError: If an option is wrong, there is no table, or a table is damaged.
        ImportError: If figures are asked for, and matplotlib is not installed.
    """
    for name in ("num_groups", "splits"):
        value = getattr(options, name)
        check(value >= 1, f"--{name} should be at least 1", **{name: value})
    paths = sorted(options.tables.glob("*.npz"))
    check(bool(paths), "--tables should be a folder of tables", tables=str(options.tables))
    rules = [*RULES, *(SLOW_RULES if options.slow else ()), *options.rule]
    for rule in options.rule:
        find_rule(rule)
    if options.figures:
        # It needs matplotlib.
        from benchmarks.truth import figures
    for path in paths:
        # So that a damaged table is told before the others are judged.
        Table.load(path)
    judge_one = functools.partial(
        judge_file, rules=rules, num_networks=options.num_groups, num_splits=options.splits
    )
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip((path.stem for path in paths), pool.map(judge_one, paths), strict=True))
    text = as_markdown(results)
    if options.output:
        with files.replacing(options.output) as partial:
            partial.write_text(text, encoding="utf-8")
    if options.figures:
        figures.write([*results.values()], options.num_groups, options.figures)
    return text


def judge_file(path: Path, rules: Sequence[str], num_networks: int, num_splits: int) -> Result:
    """Judges rules, by their names, on the table of a file."""
    found = {name: find_rule(name) for name in rules}
    return judge(Table.load(path), found, num_networks, num_splits)


def find_rule(name: str) -> Rule:
    """A rule by its name in this benchmark, or as "module:function".

    Raises:
        ValueError: If there is no such function.
    """
    if known := {**RULES, **SLOW_RULES}.get(name):
        return known
    module, _, function = name.partition(":")
    try:
        rule: Rule = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--rule should be module:function, such as mine:my_rule. Received: {name} ({error})."
        ) from error
    check(callable(rule), "--rule should be module:function, such as mine:my_rule", rule=name)
    return rule


def as_markdown(results: Mapping[str, Result]) -> str:
    """The results by table: all rules, the problems one by one, and how right forecasts were."""
    forecasts = [forecast for result in results.values() for forecast in result.forecasts]
    parts = (summary_cells(results), problem_cells(results), forecast_cells(forecasts))
    texts = [cells_as_markdown(cells) for cells in parts]
    if forecasts:
        coverage = 100 * np.mean([one.covers(one.gain, one.error) for one in forecasts])
        texts.append(f"90 % intervals cover in {coverage:.0f} %.")
    return "\n\n".join(texts)


def summary_cells(results: Mapping[str, Result]) -> list[list[str]]:
    """A line for each rule, over all tables."""
    header = ["choice by", "gain over joint, %", "over the better yardstick, %", "worst table"]
    cells = [[*header, "networks served"]]
    for rule in next(iter(results.values())).verdicts:
        gains, over, served = (
            [*by_problem(results.values(), rule, field).values()]
            for field in ("gains", "over_yardstick", "served")
        )
        worst = min(one.verdicts[rule].over_yardstick.mean() for one in results.values())
        line = [rule, with_error(gains), with_error(over), f"{100 * worst:.1f}"]
        cells.append([*line, f"{np.mean(served):.1f}"])
    return cells


def with_error(values: Sequence[float]) -> str:
    """Mean of shares, in percent, and its standard error if there are several."""
    if len(values) == 1:
        return f"{100 * values[0]:.1f}"
    return f"{100 * np.mean(values):.1f} ± {100 * standard_error(values):.1f}"


def problem_cells(results: Mapping[str, Result]) -> list[list[str]]:
    """Gain over the joint network in each table, by some rules; after ±, the error over splits."""
    cells = [["table", *SHOWN, ORACLE]]
    for name, result in results.items():
        gains = [result.verdicts[rule].gains for rule in (*SHOWN, ORACLE)]
        cells.append([name, *(with_error(values.tolist()) for values in gains)])
    return cells


def forecast_cells(forecasts: Sequence[Forecast]) -> list[list[str]]:
    """How often there was a gain, by the probability that was told."""
    cells = [["probability told", "choices", "with a gain in test loss"]]
    for low, high in itertools.pairwise(BINS):
        part = [one.gain > 0 for one in forecasts if low <= one.probability < high + (high == 1)]
        share = f"{100 * np.mean(part):.0f} %" if part else ""
        cells.append([f"{low:g} to {high:g}", str(len(part)), share])
    return cells


if __name__ == "__main__":
    main()
