"""What do the affinities of an estimator tell? Judges all estimators by the tables.

    python -m benchmarks.truth.affinities

For each estimator in the tables, out of the affinities of one joint training and of several
(`--trainings`), drawn at random 20 times, it prints

- how affinities rank groups: Spearman's correlation of the mean affinity in a group, as TAG scores
  it, with the gain in test loss, over the groups of at least two tasks, mean over the tasks;
- the gain over the joint network, in percent of it, of the groups that TAG chooses by them;

and for single trainings, how affinities rank the sources of a target, as a correlation with those
of another training (repeated) and with the means of `lookahead_sgd` (as lookahead).

The seeds of the tables take no part in the affinities, so all of them judge. After ± stands the
standard error over the problems, whose regimes are averaged first.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.options import load_lazily, numbers
from benchmarks.truth.__main__ import make_table_parser
from benchmarks.truth.predicted import gains_of, rank_correlation
from benchmarks.truth.rules import serving_of
from benchmarks.truth.tables import Floats, Table
from tag_keras.affinity import Affinity
from tag_keras.selection.groups import select_groups
from tag_keras.utils.checks import check
from tag_keras.utils.text import cells_as_markdown

stats = load_lazily("scipy.stats")

DRAWS = 20
REFERENCE = "lookahead_sgd"


def main() -> None:
    parser = make_table_parser("benchmarks.truth.affinities", __doc__)
    parser.add_argument("--trainings", type=numbers, default=[1, 8], help="numbers of trainings")
    parser.add_argument("--problems", nargs="+", help="default: all in the tables")
    options = parser.parse_args()
    try:
        print(run(options))
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks.truth.affinities: {error}")


def run(options: argparse.Namespace) -> str:
    """Judges all estimators; returns a table in Markdown.

    Raises:
        ValueError: If an option is wrong, there is no table, or a table is damaged.
    """
    tables = [Table.load(path) for path in sorted(options.tables.glob("*.npz"))]
    chosen = options.problems or {table.about["problem"] for table in tables}
    tables = [table for table in tables if table.about["problem"] in chosen]
    check(bool(tables), "--tables should be a folder of tables", tables=str(options.tables))
    most = min(len(one) for table in tables for one in table.affinities.values())
    for number in options.trainings:
        check(1 <= number <= most, f"--trainings should be 1 to {most}", trainings=number)
    cells = [header(options.trainings)]
    for kind in tables[0].affinities:
        lines = defaultdict(list)
        for table in tables:
            line = judge(table, kind, options.trainings, options.num_groups)
            lines[table.about["problem"]].append(line)
        means = np.array([np.mean(one, axis=0) for one in lines.values()])
        cells.append([kind, *map(with_spread, means.T)])
    return cells_as_markdown(cells)


def header(trainings: Sequence[int]) -> list[str]:
    parts = [(f"ranks groups, {n} trained", f"gain over joint, {n} trained") for n in trainings]
    return ["affinities", *itertools.chain(*parts), "repeated", "as lookahead"]


def with_spread(values: Floats) -> str:
    """Mean and standard error over the problems."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}"


def judge(table: Table, kind: str, trainings: Sequence[int], num_groups: int) -> list[float]:
    """The figures of an estimator on a table."""
    affinities = table.affinities[kind]
    line: list[float] = []
    for number in trainings:
        means = draws(affinities, number)
        line.append(float(np.mean([rank_correlation(table, -onto(table, one)) for one in means])))
        line.append(float(np.mean([gain(table, one, num_groups) for one in means])))
    pairs = itertools.combinations(affinities, 2)
    line.append(float(np.mean([same_sources(one, other) for one, other in pairs])))
    reference = table.affinities[REFERENCE].mean(axis=0)
    return [*line, float(np.mean([same_sources(one, reference) for one in affinities]))]


def draws(affinities: Floats, number: int) -> list[Floats]:
    """Means over as many trainings (R, T, T), drawn at random; each alone if it is one."""
    if number == 1:
        return [*affinities]
    if number == len(affinities):
        return [affinities.mean(axis=0)]
    generator = np.random.default_rng(0)
    rows = [generator.choice(len(affinities), number, replace=False) for _ in range(DRAWS)]
    return [affinities[one].mean(axis=0) for one in rows]


def onto(table: Table, affinity: Floats) -> Floats:
    """Mean affinity (M, T) of the other members of each group onto each task."""
    others = np.where(np.eye(len(affinity), dtype=bool), 0.0, affinity)
    number = np.maximum(table.members.sum(axis=1, keepdims=True) - 1, 1)
    mean: Floats = table.members @ others / number
    return mean


def gain(table: Table, affinity: Floats, num_groups: int) -> float:
    """Gain over the joint network, in percent, of the groups that TAG chooses."""
    grouping = select_groups(Affinity(table.tasks, affinity), num_groups, "forbid")
    return 100 * float(gains_of(table, serving_of(grouping)).mean())


def same_sources(one: Floats, other: Floats) -> float:
    """Spearman's correlation between the affinities onto a target, mean over the targets."""
    found = []
    for target in range(len(one)):
        sources = np.arange(len(one)) != target
        found.append(stats.spearmanr(one[sources, target], other[sources, target]).statistic)
    return float(np.mean(found))


if __name__ == "__main__":
    main()
