"""What each way to choose is worth: total test loss, and regret against the best choice."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.truth_guard import guarded
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
        networks: Number of networks that the guard serves, the mean; NaN without it.
    """

    way: str
    runs: int
    options: str
    totals: Floats
    best: Floats
    agreement: float = float("nan")
    networks: float = float("nan")

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
            totals.append(_totals(judge, _choices(judge, scores)))
            best.append(_best(judge))
        if totals:
            yield Line(way, 1, "", np.array(totals), np.array(best))
        scores = table.losses("validation")
        scores = higher_order(truth, scores) if approximates else scores
        totals, best = [_totals(truth, _choices(truth, scores))], [_best(truth)]
        yield Line(way, len(truth.seeds), "", np.array(totals), np.array(best))


def _by_affinity(truth: Truth, name: str, runs: Sequence[Affinity]) -> Iterator[Line]:
    several = {1: list(runs)}
    if len(runs) > 1:
        several[len(runs)] = [Affinity.combine(runs)]
    for singletons, score in itertools.product(("forbid", "zero"), ("mean", "sum")):
        for number, affinities in several.items():
            choices = [
                _choices(truth, scores_of_affinity(truth, one, singletons, score))
                for one in affinities
            ]
            best = np.tile(_best(truth), (len(choices), 1))
            agreement = float(np.mean([truth.agreement(one) for one in affinities]))
            options = f"{singletons}, {score}"
            totals = np.array([_totals(truth, servings) for servings in choices])
            yield Line(name, number, options, totals, best, agreement)
            served = [[_guarded(truth, serving) for serving in one] for one in choices]
            totals = np.array([_totals(truth, servings) for servings in served])
            networks = float(np.mean([len(set(s)) for one in served for s in one[1:]]))
            yield Line(name, number, f"{options}, guarded", totals, best, agreement, networks)


def _guarded(truth: Truth, serving: list[int]) -> list[int]:
    return guarded(truth, serving).serving if serving else []


def _choices(truth: Truth, scores: Floats) -> list[list[int]]:
    return [truth.choose(scores, number) for number in NETWORKS]


def _totals(truth: Truth, servings: Sequence[list[int]]) -> list[float]:
    """Totals of what serves the tasks; NaN where nothing does."""
    return [truth.total(serving) if serving else float("nan") for serving in servings]


def _best(truth: Truth) -> list[float]:
    return _totals(truth, _choices(truth, truth.losses("test")))
