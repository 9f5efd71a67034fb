"""Does the guard keep its promise? Its networks against the joint and the single ones."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.truth.guard import guarded
from benchmarks.truth.regret import NETWORKS, RULES
from benchmarks.truth.scores import scores_of_affinity
from benchmarks.truth.table import Floats, Truth
from tag_keras.affinity import Affinity


@dataclasses.dataclass(frozen=True)
class Promise:
    """The results of N guarded choices of groups that were trained with some seeds.

    Args:
        seeds: The seeds. Each network is served with its best one.
        above: Number of choices with a total validation loss above the joint network's, which
            should be 0.
        change: Array (N,): total test loss of the served networks, relative to the joint network
            or the single ones, whichever are better, less 1.
        without: Array (N,): the same without the guard.
    """

    seeds: tuple[int, ...]
    above: int
    change: Floats
    without: Floats

    @property
    def cells(self) -> list[str]:
        """A row of a table, under `PROMISE_HEADER`."""
        kept = [", ".join(map(str, self.seeds)), str(len(self.change)), str(self.above)]
        return [*kept, *(_text(change) for change in (self.change, self.without))]


PROMISE_HEADER = [
    "seeds",
    "choices",
    "validation loss above joint",
    "test loss against the better of joint and single, %: mean ± deviation, worst",
    "without the guard",
]


def promises(truth: Truth, measured: Mapping[str, Sequence[Affinity]]) -> list[Promise]:
    """Guards all choices of 2 to 4 networks by affinities, with each seed and with all seeds.

    Args:
        truth: The table.
        measured: By estimator, affinities of some runs.
    """
    servings = [
        truth.choose(scores_of_affinity(truth, affinity, singletons, score), number)
        for affinity in itertools.chain.from_iterable(measured.values())
        for singletons, score in RULES
        for number in NETWORKS[1:]
    ]
    trained = [*((seed,) for seed in truth.seeds), truth.seeds]
    return [_promise(truth.only(seeds), servings) for seeds in trained]


def _promise(truth: Truth, servings: Sequence[list[int]]) -> Promise:
    results = [guarded(truth, serving) for serving in servings if serving]
    best = np.array([min(one.test_joint, one.test_single) for one in results])
    return Promise(
        truth.seeds,
        sum(one.validation > one.validation_joint for one in results),
        np.array([one.test for one in results]) / best - 1,
        np.array([one.test_without for one in results]) / best - 1,
    )


def _text(change: Floats) -> str:
    mean, deviation, worst = 100 * change.mean(), 100 * change.std(ddof=1), 100 * change.max()
    return f"{mean:+.1f} ± {deviation:.1f}, {worst:+.1f}"
