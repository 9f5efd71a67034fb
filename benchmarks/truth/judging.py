"""Judges rules by seeds that took no part in the choice, against joint and single networks."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.truth.rules import Measured, Rule, Serving, choose, joint_or_single, serving_of
from benchmarks.truth.tables import Floats, Table
from tag_keras.decision.decision import decide_groups

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
) -> tuple[dict[str, Verdict], list[Forecast]]:
    """Judges rules on a table, and what `decide_groups` forecasts.

    Each split of the seeds into halves gives one choice by the first half, judged by the second.
    Beside the rules, `ORACLE` chooses by the test losses of the choosing half.
    """
    lines: dict[str, list[tuple[float, float, float]]] = {}
    forecasts: list[Forecast] = []
    for choosing, judging in splits(len(table.seeds), num_splits):
        measured = Measured.of(table, choosing)
        choices = {name: rule(measured, num_networks) for name, rule in rules.items()}
        choices[ORACLE] = choose(table.test[choosing].mean(axis=0), num_networks)
        joint = total_loss(table.test, judging, measured.joint)
        yardstick = total_loss(table.test, judging, joint_or_single(measured, num_networks))
        for name, serving in choices.items():
            loss = total_loss(table.test, judging, serving)
            line = (joint - loss) / joint, (yardstick - loss) / joint, float(len({*serving}))
            lines.setdefault(name, []).append(line)
        forecasts += _forecasts(table, measured, judging, num_networks)
    return {name: Verdict(*np.array(found).T) for name, found in lines.items()}, forecasts


def _forecasts(
    table: Table, measured: Measured, judging: Sequence[int], num_networks: int
) -> list[Forecast]:
    """The forecasts of all options but the joint network."""
    options = decide_groups(measured.estimate, num_networks).options
    found = []
    for option in options[1:]:
        serving, told = serving_of(option), option.over_joint
        total = measured.estimate.total([measured.tasks] * len(measured.tasks))
        gains: list[float] = []
        for losses in (table.test, table.validation):
            joint, chosen = (_totals(losses, judging, one) for one in (measured.joint, serving))
            difference = (joint - chosen) / joint.mean()
            gains += [difference.mean(), difference.std(ddof=1) / len(judging) ** 0.5]
        low, high = (end / total for end in told.interval)
        found.append(Forecast(told.probability, low, high, *gains))
    return found
