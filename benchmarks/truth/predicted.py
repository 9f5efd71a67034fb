"""Do joint networks alone tell which tasks to group? Judges `predict_group_losses` by the tables.

    python -m benchmarks.truth.predicted

For each table, this trains a few joint networks with seeds that the table does not have, predicts
the losses of all groups out of each, and lets `select_predicted_groups` choose. The test losses in
the table judge the choice, as means over its eight seeds: none of them took part. It prints the
gain over the joint network in percent of it, with the standard error over these seeds, and how
predicted losses rank groups: Spearman's correlation of predicted losses with test losses over the
groups of at least two tasks, as a mean over the tasks. Beside it stands the correlation of mean
affinities in the group, as TAG scores it, with gains, out of as many joint networks.

It takes a quarter of an hour of one core. --problems takes only some.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tag_keras
from benchmarks.options import load_lazily
from benchmarks.truth.__main__ import make_table_parser, with_error
from benchmarks.truth.problems import PROBLEMS
from benchmarks.truth.problems.packages import MissingProblemError
from benchmarks.truth.problems.problem import Examples, Problem
from benchmarks.truth.rules import Serving, serving_of
from benchmarks.truth.tables import Floats, Table
from tag_keras.utils.text import cells_as_markdown

if TYPE_CHECKING:
    from benchmarks.truth.making import Regime

making, stats = map(load_lazily, ("benchmarks.truth.making", "scipy.stats"))

# Neither a network of a table nor a joint training that measures affinities has such a seed.
FIRST_SEED = 200
# More do not tell more.
MOST_EXAMPLES = 2000
HEADER = ["table", "networks served", "gain over joint, %", "rank correlation", "of affinities"]


def main() -> None:
    parser = make_table_parser("benchmarks.truth.predicted", __doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=[*PROBLEMS])
    parser.add_argument("--joint_networks", type=int, default=4, help="joint networks to train")
    options = parser.parse_args()
    cells = [HEADER]
    for path in sorted(options.tables.glob("*.npz")):
        try:
            table = Table.load(path)
            if (name := str(table.about["problem"])) in options.problems:
                line = judge(table, PROBLEMS[name](), options.num_groups, options.joint_networks)
                cells.append([path.stem, *line])
                print(*cells[-1], flush=True)
        except (ValueError, MissingProblemError) as error:
            sys.exit(f"benchmarks.truth.predicted: {error}")
    print(cells_as_markdown(cells))


def judge(table: Table, problem: Problem, num_networks: int, joint_networks: int) -> list[str]:
    """The cells of a table: networks served, gain, and rank correlations."""
    how = making.regime(table.about["width"], table.about["size"])
    seeds = range(FIRST_SEED, FIRST_SEED + joint_networks)
    predicted = predict(problem, how, seeds)
    serving = serving_of(tag_keras.select_predicted_groups(predicted, num_networks))
    mean = np.mean([one.scores for one in predicted], axis=0)
    affinity = table.affinities["lookahead"][:joint_networks].mean(axis=0)
    np.fill_diagonal(affinity, 0.0)
    onto = table.members @ affinity / np.maximum(table.members.sum(axis=1, keepdims=True) - 1, 1)
    correlations = [f"{rank_correlation(table, one):.2f}" for one in (mean, -onto)]
    gains = gains_of(table, serving)
    return [str(len({*serving})), with_error(gains.tolist()), *correlations]


def predict(problem: Problem, how: Regime, seeds: Sequence[int]) -> list[tag_keras.NetworkTable]:
    """The losses of all groups, predicted out of a joint network for each seed."""
    number = min(len(problem.train[0]) if how.size is None else how.size, MOST_EXAMPLES)
    x, y = problem.train
    train: Examples = x[:number], {task: values[:number] for task, values in y.items()}
    with tempfile.TemporaryDirectory() as folder:
        models = making.train_joint(problem, how, Path(folder), seeds)
    return [
        tag_keras.predict_group_losses(model, train, problem.validation, seed=seed)
        for model, seed in zip(models, seeds, strict=True)
    ]


def gains_of(table: Table, serving: Serving) -> Floats:
    """Gain of a choice over the joint network by the test losses of each seed, as a share."""
    places = range(len(table.tasks))
    joint, chosen = (table.test[:, rows, places].sum(axis=1) for rows in (-1, list(serving)))
    gains: Floats = (joint - chosen) / joint.mean()
    return gains


def rank_correlation(table: Table, losses: Floats) -> float:
    """Spearman's correlation of losses (M, T) with test losses over groups, mean over tasks."""
    several = table.members.sum(axis=1) > 1
    test = table.test.mean(axis=0)
    found = []
    for task, inside in enumerate(table.members.T):
        rows = inside & several
        found.append(stats.spearmanr(losses[rows, task], test[rows, task]).statistic)
    return float(np.mean(found))


if __name__ == "__main__":
    main()
