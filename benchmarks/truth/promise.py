"""Whether the guard keeps its promise: what it serves, against joint and single networks."""

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
    """What became of N guarded choices of groups that were trained with some seeds.

    Args:
        seeds: The seeds, of each network the best of which is served.
        above: How many choices have a total validation loss above that of the joint network, which
            should be none.
        change: Array (N,): total test loss of what is served, relative to the better of the joint
            network and the single ones, less 1.
        without: The same without the guard.
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
    """With each seed and with all of them: choices of 2 to 4 networks by each run's affinities.

    Args:
        truth: The table.
        measured: Affinities of some runs, by estimator.
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
