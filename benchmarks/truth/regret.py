"""The worth of each way to choose: total test loss, and regret against the best choice."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.truth.guard import guarded
from benchmarks.truth.scores import higher_order, scores_of_affinity
from benchmarks.truth.table import Floats, Truth
from tag_keras.affinity import Affinity
from tag_keras.selection.anchoring import Singletons
from tag_keras.selection.solvers.problem import Score
from tag_keras.utils.checks import check

NETWORKS = (1, 2, 3, 4)
# Affinities anchored in losses (`"measured"`) are made to be summed.
RULES: list[tuple[Singletons, Score]] = [
    ("forbid", "mean"),
    ("forbid", "sum"),
    ("baseline", "mean"),
    ("baseline", "sum"),
    ("measured", "sum"),
]

# Choices of 1 to 4 networks: for each task, the row of the network that serves it; or empty if no
# such choice serves all tasks.
Choices = list[list[int]]


@dataclasses.dataclass(frozen=True)
class Line:
    """One way to choose networks.

    Args:
        way: Name of the way.
        runs: Number of runs behind each choice; 0 for a choice without runs, or from the judged
            networks themselves.
        options: Singletons, score and guard, where they apply.
        totals: Array (N, 4): total test losses of N choices of up to 1 to 4 networks, NaN where
            these cannot serve all tasks.
        best: Array (N, 4): total test losses of the best choice, by all seeds, of as many networks,
            or of as many as serve if these are more.
        networks: Array (N, 4): number of networks that serve.
        agreement: Rank agreement of affinities with the gains of pairs; NaN if not defined.
    """

    way: str
    runs: int
    options: str
    totals: Floats
    best: Floats
    networks: Floats
    agreement: float = float("nan")

    @property
    def regret(self) -> Floats:
        """Array (N,): relative difference to the best total, mean over 2 to 4 networks."""
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
    """The lines of all ways to choose.

    Args:
        truth: The table.
        early: The table with the validation losses of the short trainings.
        measured: By estimator, affinities of some runs.

    Raises:
        ValueError: If the table has but one seed, which would judge its own choice, or if the
            affinities are of other tasks.
    """
    seeds = truth.seeds
    check(len(seeds) > 1, "choices by one seed need another one to judge them", seeds=seeds)
    affinities = itertools.chain.from_iterable(
        _by_affinity(truth, name, runs) for name, runs in measured.items()
    )
    return [*_fixed(truth), *_by_losses(truth, early), *affinities]


def _fixed(truth: Truth) -> Iterator[Line]:
    joint, single = truth.joint(), truth.single()
    # The best by validation losses without any group. The guard should be worth more.
    either = truth.serve(truth.losses("validation"), [*joint[:1], *single])
    choices = {
        "best choice": _choices(truth, truth.losses("test")),
        "joint": [joint] * len(NETWORKS),
        "single": [single] * len(NETWORKS),
        "joint or single": [either] * len(NETWORKS),
    }
    for way, servings in choices.items():
        yield _line(truth, way, 0, "", [(truth, servings)])
    # Anchored affinities without affinities: all sources of a task are alike.
    alike = Affinity(truth.tasks, np.zeros((len(truth.tasks),) * 2))
    servings = _choices(truth, scores_of_affinity(truth, alike, "measured", "sum"))
    yield from _with_guard(truth, "all sources alike", 0, "measured, sum", [servings])
    totals = np.array([[truth.random_total(number) for number in NETWORKS]])
    best = np.array([[truth.total(truth.best_choice(number)) for number in NETWORKS]])
    yield Line("random", 0, "", totals, best, np.array([NETWORKS], float))


def _by_losses(truth: Truth, early: Truth) -> Iterator[Line]:
    """Lines of choices by losses. The other seeds judge a choice by one seed: no shared noise."""
    tables = {
        ("all groups measured", ""): (truth, False),
        ("HOA", ""): (truth, True),
        ("HOA", "forbid"): (truth, True),
        ("ESA", ""): (early, False),
        ("ESA", "forbid"): (early, False),
    }
    for (way, options), (table, from_pairs) in tables.items():
        judged = [
            (_others(truth, seed), _choose_by_losses(table.only([seed]), from_pairs, options))
            for seed in truth.seeds
        ]
        yield _line(truth, way, 1, options, judged)
        choices = _choose_by_losses(table, from_pairs, options)
        yield _line(truth, way, len(truth.seeds), options, [(truth, choices)])


def _choose_by_losses(table: Truth, from_pairs: bool, options: str) -> Choices:
    scores = table.losses("validation")
    if from_pairs:
        scores = higher_order(table, scores)
    if options == "forbid":
        alone = table.members.sum(axis=1, keepdims=True) == 1
        scores = np.where(alone, -np.inf, scores)
    return _choices(table, scores)


def _by_affinity(truth: Truth, name: str, runs: Sequence[Affinity]) -> Iterator[Line]:
    several = {1: list(runs)}
    if len(runs) > 1:
        several[len(runs)] = [Affinity.combine(runs)]
    for singletons, score in RULES:
        for number, affinities in several.items():
            agreement = float(np.mean([truth.agreement(one) for one in affinities]))
            scores = [scores_of_affinity(truth, one, singletons, score) for one in affinities]
            choices = [_choices(truth, one) for one in scores]
            options = f"{singletons}, {score}"
            yield from _with_guard(truth, name, number, options, choices, agreement)


def _with_guard(
    truth: Truth,
    way: str,
    runs: int,
    options: str,
    choices: Sequence[Choices],
    agreement: float = float("nan"),
) -> Iterator[Line]:
    """The line of some choices, and the line of the same choices with the guard."""
    judged = [(truth, servings) for servings in choices]
    yield _line(truth, way, runs, options, judged, agreement)
    served = [(truth, [_guarded(truth, one) for one in servings]) for servings in choices]
    yield _line(truth, way, runs, f"{options}, guarded", served, agreement)


def _others(truth: Truth, seed: int) -> Truth:
    """The table of the seeds that judge the choice of one seed."""
    return truth.only([other for other in truth.seeds if other != seed])


def _line(
    truth: Truth,
    way: str,
    runs: int,
    options: str,
    judged: Sequence[tuple[Truth, Choices]],
    agreement: float = float("nan"),
) -> Line:
    """The line of some choices, each with the table of the seeds that judge it."""
    cells = [
        [_cell(truth, judge, *one) for one in zip(servings, NETWORKS, strict=True)]
        for judge, servings in judged
    ]
    return Line(way, runs, options, *np.moveaxis(np.array(cells), -1, 0), agreement)


def _cell(
    truth: Truth, judge: Truth, serving: list[int], number: int
) -> tuple[float, float, float]:
    """Total of a choice, total of the best choice, and the number of networks that serve.

    The best choice is the best by all seeds, whichever seeds judge. The best by the judges alone
    would fit their noise, so a choice with few judges would look worse than others.
    """
    networks = len(set(serving))
    best = judge.total(truth.best_choice(max(number, networks)))
    return (judge.total(serving), best, networks) if serving else (np.nan, best, np.nan)


def _guarded(truth: Truth, serving: list[int]) -> list[int]:
    return guarded(truth, serving).serving if serving else []


def _choices(truth: Truth, scores: Floats) -> Choices:
    return [truth.choose(scores, number) for number in NETWORKS]
