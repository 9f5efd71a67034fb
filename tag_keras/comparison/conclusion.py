"""What the results say, in sentences: what was chosen, whether it paid, how far to trust it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import check_rows, compare, serving_networks
from tag_keras.results import FEWEST_SEEDS, Array, Row, mean_and_noise
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.replicates import interval_of_differences
from tag_keras.utils.text import counted, joined, percent, plus_minus, sentence

_KINDS = {"joint": "one joint network", "single": "one network per task", "grouped": "the grouping"}
_PAID = {
    "joint": "Grouping did not pay",
    "single": "Sharing did not pay",
    "grouped": "Grouping paid",
}
_FEWEST_PROBES = 30
# If fewer comparisons are significant, chance explains more than a quarter of them. More would be
# too much to ask: with many small clusters, most sources of a target are equally useless.
_FEWEST_SIGNIFICANT = 0.2
# A sentence names no more tasks than these.
MOST_NAMES = 12


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What the results say.

    Args:
        winner: Kind of network (`"joint"`, `"single"`, `"grouped"`) with the lowest total test
            loss, or None if no kind has all losses of a seed.
        advised: Kind to use: of the winner and the kinds within its noise, the one with the fewest
            networks. None if the noise is not known.
        verdict: Who won, and whether beyond the noise.
        chosen: The groups.
        numbers: Totals and their differences.
        advice: What to do.
        trust: How far to trust the affinities and the selection.
    """

    winner: str | None
    advised: str | None
    verdict: str
    chosen: str
    numbers: str
    advice: str
    trust: str


def conclusion(
    affinity: Affinity,
    grouping: Grouping,
    rows: Sequence[Row],
    anchored: bool = False,
    num_served: int | None = None,
) -> Conclusion:
    """Says what was chosen, whether it paid, and how far to trust it.

    A kind of network is within the noise of the winner unless their differences in total test
    loss, paired by seed, have a mean above two of its standard errors.

    Args:
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        rows: Results of networks named `"joint"`, `"single_<task>"` and `"group_<index>"`, with
            losses on the split `"test"`.
        anchored: Whether the groups were selected by affinities from `anchor_affinity`.
        num_served: Number of networks that the guard serves from, if it chose.

    Raises:
        ValueError: If the arguments differ in tasks, `rows` is empty, or a loss is not finite.
    """
    if different := sorted({*affinity.tasks} ^ {*grouping.tasks}):
        raise ValueError(
            "`affinity` and `grouping` should have the same tasks. Only one of them has: "
            f"{different}."
        )
    check_rows(grouping, rows)
    comparison = compare(grouping, rows)
    totals = {kind: losses[-1] for kind, losses in comparison.losses.items()}
    order = sorted(totals, key=lambda kind: float(totals[kind].mean()))
    gaps = {kind: mean_and_noise(totals[kind] - totals[order[0]]) for kind in order[1:]}
    noise_known = len(comparison.seeds) >= FEWEST_SEEDS
    tied = [kind for kind, (mean, noise) in gaps.items() if noise_known and mean <= noise]
    serving = serving_networks(grouping)
    networks = {kind: len({*serves.values()}) for kind, serves in serving.items()}
    advised = None
    if gaps and noise_known:
        # The winner comes first, and so wins a tie in the number of networks.
        advised = min([order[0], *tied], key=lambda kind: networks[kind])
    trust = [_noise(affinity, anchored), _probes(affinity), _optimality(grouping, anchored)]
    return Conclusion(
        winner=order[0] if order else None,
        advised=advised,
        verdict=_verdict(order, tied, len(comparison.seeds)),
        chosen=_chosen(grouping),
        numbers=_numbers(totals, gaps, len(comparison.seeds)),
        advice=_advice(order, tied, networks, advised, num_served),
        trust=" ".join(trust),
    )


def _verdict(order: Sequence[str], tied: Sequence[str], seeds: int) -> str:
    if not order:
        return "No kind of network has a complete set of test losses: nothing can be compared."
    if len(order) == 1:
        return f"Only {_KINDS[order[0]]} has complete test losses: there is nothing to compare."
    won = f"{_KINDS[order[0]]} has the lowest total test loss"
    beaten = joined(_KINDS[kind] for kind in order[1:] if kind not in tied)
    if seeds < FEWEST_SEEDS:
        return f"{sentence(won)}, but with {counted(seeds, 'seed')} the noise is not known."
    if tied:
        level = joined(_KINDS[kind] for kind in tied)
        be = "is" if len(tied) == 1 else "are"
        rest = f"; the difference from {beaten} is beyond it" if beaten else ""
        return f"No clear winner: {won}, but {level} {be} within the noise{rest}."
    won += f"; the difference from {beaten} is beyond the noise."
    return f"{_PAID[order[0]]}: {won}" if {"joint", "grouped"} <= {*order} else sentence(won)


def _chosen(grouping: Grouping) -> str:
    groups, tasks = len(grouping.groups), len(grouping.tasks)
    chosen = f"Chosen: {counted(groups, 'network')} for {counted(tasks, 'task')}"
    if groups == 1:
        return f"{chosen}: a joint network."
    if tasks > MOST_NAMES:
        return f"{chosen}, listed below."
    parts = []
    for index in range(groups):
        part = f"{results.group_name(index)} serves {joined(grouping.served(index)) or 'no task'}"
        if helpers := grouping.helpers(index):
            part += f", helped by {joined(helpers)}"
        parts.append(part)
    return f"{chosen}: {'; '.join(parts)}."


def _numbers(
    totals: Mapping[str, Array], gaps: Mapping[str, tuple[float, float]], seeds: int
) -> str:
    if not totals:
        return ""
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    means = {kind: results.mean_and_deviation(total) for kind, total in totals.items()}
    values = [f"{_KINDS[kind]} {plus_minus(*mean)}" for kind, mean in means.items()]
    text = f"Total test loss ({over}): {', '.join(values)}."
    if not gaps or seeds < FEWEST_SEEDS:
        return text
    above = [f"{_KINDS[kind]} by {plus_minus(*gap)}" for kind, gap in gaps.items()]
    # Student's t with S - 1 degrees of freedom: with few seeds, chance often passes two errors.
    chance = percent(2 * float(scipy.special.stdtr(seeds - 1, -2)))
    return (
        f"{text} Above the lowest, paired by seed (mean ± two standard errors): "
        f"{', '.join(above)}. With {seeds} seeds, chance alone passes two standard errors in "
        f"{chance} of cases."
    )


def _advice(
    order: Sequence[str],
    tied: Sequence[str],
    networks: Mapping[str, int],
    advised: str | None,
    num_served: int | None,
) -> str:
    if len(order) < 2:
        return "Train the other kinds of networks with the same seeds to compare them."
    if advised is None:
        return f"Train at least {FEWEST_SEEDS} seeds of each kind before you choose."
    use, number = f"Use {_KINDS[advised]}", networks[advised]
    if advised == "grouped" and num_served not in (None, number):
        serve = f"{num_served} {'serves' if num_served == 1 else 'serve'}"
        use += f" ({counted(number, 'network')}; {serve}, as the guard moved tasks)"
    elif number > 1:
        use += f" ({number} networks)"
    if tied:
        use += ": of those within the noise it takes the fewest networks. More seeds may tell more"
    return f"{use}."


def _noise(affinity: Affinity, anchored: bool) -> str:
    size = len(affinity.tasks)
    if size == 1:
        return "With one task there are no affinities between tasks."
    if size == 2 and anchored:
        return (
            "With two tasks the affinities take no part in the selection: what the joint network "
            "gained over single ones decides."
        )
    if size == 2:
        low, high = (ends[~np.eye(2, dtype=bool)] for ends in affinity.interval(0.95))
        shares = _significance(low, high, "2 affinities between them are different from 0")
        return f"With two tasks no target has two sources to compare. {shares}"
    # Selection ranks the sources of a target, so each pair of sources is one comparison.
    source, other, target = np.indices((size, size, size))
    pairs = (source < other) & (source != target) & (other != target)
    low, high = interval_of_differences(
        affinity.mean, affinity.standard_error, affinity.replicates, 0.95
    )
    what = f"{pairs.sum()} comparisons between two sources of one target are significant"
    return _significance(low[pairs], high[pairs], what)


def _significance(low: Array, high: Array, what: str) -> str:
    known = int(np.isfinite(low).sum())
    if not known:
        return "The standard errors of the affinities are not known: all of it may be noise."
    # Comparisons with NaN are false: unknown ends do not count.
    beyond = int(((low > 0) | (high < 0)).sum())
    share = percent(beyond / known)
    if known < len(low):
        share += f" of the {known} whose noise is known"
    text = f"{beyond} of the {what} at 95 % ({share}); chance alone would give about 5 %."
    if beyond < _FEWEST_SIGNIFICANT * known:
        text += " These are few: another run may choose other groups."
    return text


def _probes(affinity: Affinity) -> str:
    other = ~np.eye(len(affinity.tasks), dtype=bool)
    text = "The number of probes is not known."
    if affinity.count[other].any():
        fewest = int(affinity.count[other].min())
        few = ", which is few: probe more often or train longer" if fewest < _FEWEST_PROBES else ""
        text = f"The pair with the fewest probes has {fewest}{few}."
    skipped = dict(zip(affinity.tasks, affinity.skipped.sum(axis=0).tolist(), strict=True))
    if not any(skipped.values()):
        return f"{text} No probe value was skipped."
    targets = [f"{task} {number}" for task, number in skipped.items() if number]
    return (
        f"{text} {counted(sum(skipped.values()), 'probe value')} left out because a loss was not "
        f"positive or not finite, by target: {', '.join(targets)}."
    )


def _optimality(grouping: Grouping, anchored: bool) -> str:
    if grouping.optimal:
        which = "the anchored" if anchored else "these"
        return f"The selection is provably optimal for {which} affinities."
    return (
        f"The selection is not proven optimal: its score is {grouping.score:.4g}, and no choice "
        f"of as many groups scores more than {grouping.upper_bound:.4g}."
    )
