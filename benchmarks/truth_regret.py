"""What each way to choose is worth: total test loss, and regret against the best choice."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.truth_table import Floats, Truth, higher_order, scores_of_affinity
from tag_keras.affinity import Affinity
from tag_keras.checks import check

NETWORKS = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True)
class Line:
    """One way to choose networks.

    Args:
        way: What it goes by.
        runs: How many runs each choice goes by; 0 where it goes by nothing that was measured.
        options: Singletons and score, where there is a choice.
        totals: Array (N, 4): total test losses of N choices of 1 to 4 networks at most; NaN where
            so many cannot serve all tasks.
        best: Array (N, 4): the least totals that choices of as many networks could have.
        agreement: Rank agreement with the gains of pairs; NaN where it is not defined.
    """

    way: str
    runs: int
    options: str
    totals: Floats
    best: Floats
    agreement: float = float("nan")

    @property
    def regret(self) -> Floats:
        """Array (N,): what the total is above the best one, relative, mean of 2 to 4 networks."""
        regret: Floats = np.nanmean((self.totals / self.best - 1)[:, 1:], axis=1)
        return regret

    def deviation(self) -> float:
        """Standard deviation of the regret over the choices.

        Raises:
            ValueError: If there are fewer than two.
        """
        number = len(self.totals)
        check(number > 1, "a deviation needs two choices, by other runs or seeds", choices=number)
        return float(self.regret.std(ddof=1))


def all_lines(truth: Truth, early: Truth, measured: Mapping[str, Sequence[Affinity]]) -> list[Line]:
    """Every way to choose.

    Args:
        truth: The table.
        early: The validation losses of the short trainings, as a table.
        measured: Affinities of some runs, by estimator.
    """
    affinities = itertools.chain.from_iterable(
        _by_affinity(truth, name, runs) for name, runs in measured.items()
    )
    return [*_fixed(truth), *_by_losses(truth, early), *affinities]


def _fixed(truth: Truth) -> Iterator[Line]:
    best = np.array([_best(truth)])
    yield Line("best choice", 0, "", best, best)
    for name, serving in {"joint": truth.joint(), "single": truth.single()}.items():
        yield Line(name, 0, "", np.full_like(best, truth.total(serving)), best)
    totals = [truth.random_total(number) for number in NETWORKS]
    yield Line("random", 0, "", np.array([totals]), best)


def _by_losses(truth: Truth, early: Truth) -> Iterator[Line]:
    """Choices by the losses of one seed are judged by the others, so that no noise is shared."""
    for way, table, approximates in (
        ("all groups measured", truth, False),
        ("HOA", truth, True),
        ("ESA", early, False),
    ):
        totals, best = [], []
        for seed in truth.seeds if len(truth.seeds) > 1 else ():
            judge = truth.only([other for other in truth.seeds if other != seed])
            scores = table.only([seed]).losses("validation")
            scores = higher_order(truth, scores) if approximates else scores
            totals.append(_totals(judge, scores))
            best.append(_best(judge))
        if totals:
            yield Line(way, 1, "", np.array(totals), np.array(best))
        scores = table.losses("validation")
        scores = higher_order(truth, scores) if approximates else scores
        yield Line(
            way, len(truth.seeds), "", np.array([_totals(truth, scores)]), np.array([_best(truth)])
        )


def _by_affinity(truth: Truth, name: str, runs: Sequence[Affinity]) -> Iterator[Line]:
    several = {1: list(runs)}
    if len(runs) > 1:
        several[len(runs)] = [Affinity.combine(runs)]
    for singletons, score in itertools.product(("forbid", "zero"), ("mean", "sum")):
        for number, affinities in several.items():
            totals = [
                _totals(truth, scores_of_affinity(truth, one, singletons, score))
                for one in affinities
            ]
            agreement = float(np.mean([truth.agreement(one) for one in affinities]))
            best = np.tile(_best(truth), (len(totals), 1))
            options = f"{singletons}, {score}"
            yield Line(name, number, options, np.array(totals), best, agreement)


def _totals(truth: Truth, scores: Floats) -> list[float]:
    servings = [truth.choose(scores, number) for number in NETWORKS]
    return [truth.total(serving) if serving else float("nan") for serving in servings]


def _best(truth: Truth) -> list[float]:
    return _totals(truth, truth.losses("test"))
