"""Judges rules by seeds that took no part in the choice, against joint and single networks."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.truth.rules import Measured, Rule, Serving, choose, joint_or_single, serving_of
from benchmarks.truth.tables import Floats, Table
from tag_keras.decision.decision import decide_groups
from tag_keras.utils.checks import check

# Named like a rule, but it sees test losses of the choosing seeds.
ORACLE = "other seeds' test losses"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a rule fares on one table, over S splits of the seeds.

    Args:
        gains: Array (S,): gain in total test loss over the joint network, as a share of it.
        over_yardstick: Array (S,): gain over the better of the joint network and one network per
            task, by the validation losses of the choosing seeds, as a share of the joint network.
        served: Array (S,): number of networks served.
    """

    gains: Floats
    over_yardstick: Floats
    served: Floats


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What `decide_groups` said of one option, and what came.

    Args:
        probability: Its probability of a gain over the joint network.
        low: Lower end of the 90 % interval of the gain, as a share of the joint network.
        high: Upper end.
        gain: Gain in total test loss with the judging seeds.
        error: Standard error of the gain between these seeds.
        same_data: Gain in total validation loss with the judging seeds.
        same_data_error: Its standard error.
    """

    probability: float
    low: float
    high: float
    gain: float
    error: float
    same_data: float
    same_data_error: float

    def covers(self, gain: float, error: float) -> bool:
        """Whether a gain that is measured with an error is where the interval says.

        The interval is for the mean over many seeds, so it is widened by the error as if both were
        normal.
        """
        # 90 % of a normal distribution lie within 1.645 deviations.
        deviation = np.hypot((self.high - self.low) / 3.29, error)
        return bool(abs(gain - (self.low + self.high) / 2) <= 1.645 * deviation)


@dataclasses.dataclass(frozen=True)
class Result:
    """What is found on one table.

    Args:
        about: What the table is of, as in the table.
        num_tasks: Number of its tasks.
        verdicts: By rule, how it fares.
        forecasts: The forecasts of `decide_groups` in all splits.
    """

    about: Mapping[str, Any]
    num_tasks: int
    verdicts: Mapping[str, Verdict]
    forecasts: Sequence[Forecast]

    @property
    def problem(self) -> str:
        """Name of the problem. Problems of factors are one, drawn several times."""
        name = str(self.about["problem"])
        return name.rstrip("0123456789") if name.startswith("factors") else name


def by_problem(results: Iterable[Result], rule: str, field: str) -> dict[str, float]:
    """Mean of a field of the verdicts on a rule for each problem, over splits and regimes."""
    found: dict[str, list[float]] = {}
    for result in results:
        value = getattr(result.verdicts[rule], field).mean()
        found.setdefault(result.problem, []).append(float(value))
    return {problem: float(np.mean(values)) for problem, values in found.items()}


def standard_error(values: Sequence[float] | Floats) -> float:
    """Standard error of the mean of at least two values."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


def splits(num_seeds: int, number: int) -> Iterator[tuple[list[int], list[int]]]:
    """Random halves of the seeds: those that choose, and those that judge."""
    generator = np.random.default_rng(0)
    for _ in range(number):
        order = generator.permutation(num_seeds).tolist()
        yield sorted(order[: num_seeds // 2]), sorted(order[num_seeds // 2 :])


def total_loss(losses: Floats, seeds: Sequence[int], serving: Serving) -> float:
    """Total loss of a choice by losses (S, M, T), mean over some seeds."""
    return float(_totals(losses, seeds, serving).mean())


def _totals(losses: Floats, seeds: Sequence[int], serving: Serving) -> Floats:
    totals: Floats = losses[seeds][:, serving, range(len(serving))].sum(axis=1)
    return totals


def judge(
    table: Table, rules: Mapping[str, Rule], num_networks: int = 3, num_splits: int = 20
) -> Result:
    """Judges rules on a table, and what `decide_groups` forecasts.

    Each split of the seeds into halves gives one choice by the first half, judged by the second.
    Beside the rules, `ORACLE` chooses by the test losses of the choosing half.

    Raises:
        ValueError: If a rule does not give a network for each task, or the table has one seed.
    """
    check(len(table.seeds) > 1, "a table should have at least two seeds", seeds=table.seeds)
    lines: dict[str, list[tuple[float, float, float]]] = {}
    forecasts: list[Forecast] = []
    for choosing, judging in splits(len(table.seeds), num_splits):
        measured = Measured.of(table, choosing)
        choices = {name: rule(measured, num_networks) for name, rule in rules.items()}
        for name, serving in choices.items():
            _check_serving(table, name, serving)
        choices[ORACLE] = choose(table.test[choosing].mean(axis=0), num_networks)
        joint = total_loss(table.test, judging, measured.joint)
        yardstick = total_loss(table.test, judging, joint_or_single(measured, num_networks))
        for name, serving in choices.items():
            loss = total_loss(table.test, judging, serving)
            line = (joint - loss) / joint, (yardstick - loss) / joint, float(len({*serving}))
            lines.setdefault(name, []).append(line)
        forecasts += _forecasts(table, measured, judging, num_networks)
    verdicts = {name: Verdict(*np.array(found).T) for name, found in lines.items()}
    return Result(table.about, len(table.tasks), verdicts, forecasts)


def _check_serving(table: Table, name: str, serving: Serving) -> None:
    wanted = f"the rule {name} should give, for each task, the row of a group that has it"
    places, (number, _) = range(len(table.tasks)), table.members.shape
    valid = len(serving) == len(table.tasks) and all(0 <= row < number for row in serving)
    valid = valid and bool(table.members[serving, places].all())
    check(valid, wanted, rows=list(serving), tasks=table.tasks)


def _forecasts(
    table: Table, measured: Measured, judging: Sequence[int], num_networks: int
) -> list[Forecast]:
    """The forecasts of all options but the joint network; none if one seed judges."""
    if len(judging) < 2:
        return []
    options = decide_groups(measured.estimate, num_networks).options
    found = []
    for option in options[1:]:
        serving, told = serving_of(option.grouping), option.over_joint
        total = measured.estimate.total([measured.tasks] * len(measured.tasks))
        gains: list[float] = []
        for losses in (table.test, table.validation):
            joint, chosen = (_totals(losses, judging, one) for one in (measured.joint, serving))
            difference = (joint - chosen) / joint.mean()
            gains += [difference.mean(), standard_error(difference)]
        low, high = (end / total for end in told.interval)
        found.append(Forecast(told.probability, low, high, *gains))
    return found
