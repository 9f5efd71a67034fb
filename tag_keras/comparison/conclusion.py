"""What the results say, in sentences: what was chosen, whether it paid, how far to trust it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.special

from tag_keras import results
from tag_keras.affinity import Affinity
from tag_keras.comparison.comparison import Comparison, check_rows, compare, tasks_of_networks
from tag_keras.comparison.serving import Serving, serving_as_text
from tag_keras.decision.power import plan_seeds
from tag_keras.results import FEWEST_SEEDS, JOINT, Array, Row, mean_and_noise, plain_rows
from tag_keras.selection.grouping import Grouping
from tag_keras.utils.replicates import interval_of_differences
from tag_keras.utils.text import counted, joined, percent, plus_minus

_KINDS = {
    "joint": "one joint network",
    "single": "one network per task",
    "grouped": "the groups",
    "served": "what is served",
}
_VERDICTS = {
    "groups": "Grouping pays.",
    "single": "Sharing does not pay: one network per task is better.",
    "joint": "No evidence that grouping pays: one joint network.",
}
# One network per task is served if it is more likely to be better. Below this, it is not sure.
_SURE = 0.8
# The gain that more seeds should show.
_GAIN = 0.02
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
        verdict: Whether it paid, by what is served.
        progress: How much of the run is there, and what is missing; empty if nothing is.
        gain: The gain over the joint network with its interval and probability; empty if the joint
            network is served or nothing is decided.
        rival: The next best choice, and how likely it is to be better; empty if there is none.
        reason: What is served and how sure it is.
        chosen: The groups as selected.
        numbers: Total test losses, and their differences from the joint network's.
        advice: What to do next.
        trust: How far to trust the affinities and the selection.
    """

    verdict: str
    progress: str
    gain: str
    rival: str
    reason: str
    chosen: str
    numbers: str
    advice: str
    trust: str


def conclusion(
    affinity: Affinity,
    grouping: Grouping,
    rows: Sequence[Row],
    anchored: bool = False,
    serving: Serving | None = None,
    seeds: Sequence[int] = (),
) -> Conclusion:
    """Says what is served and whether it paid, what test data say of it, and how far to trust it.

    What is served is what is advised. Test losses choose nothing.

    Args:
        affinity: Affinities of T tasks.
        grouping: Groups of the same tasks.
        rows: Results of networks named `"joint"`, `"single_<task>"` and `"group_<index>"`, with
            losses on the split `"test"`.
        anchored: Whether the groups were selected by affinities from `anchor_affinity`.
        serving: What is served, from `guard_groups`.
        seeds: Seeds that each network is to be trained with. By default, those that are there.

    Raises:
        ValueError: If the arguments differ in tasks, `rows` is empty, or a loss is not finite.
    """
    if different := sorted({*affinity.tasks} ^ {*grouping.tasks}):
        raise ValueError(
            "`affinity` and `grouping` should have the same tasks. Only one of them has: "
            f"{different}."
        )
    check_rows(grouping, rows)
    missing = progress(grouping, rows, seeds, serving)
    trust = [_noise(affinity, anchored)]
    if len(grouping.tasks) > 1:
        trust += [_probes(affinity), _optimality(grouping, anchored)]
    return Conclusion(
        verdict=_verdict(serving),
        progress=missing,
        gain=_gain(rows, serving) if serving else "",
        rival=_rival(rows, serving) if serving else "",
        reason=serving_as_text(serving) if serving else "",
        chosen=_chosen(grouping),
        numbers=_numbers(compare(grouping, rows, serving), len(grouping.tasks)),
        advice=_advice(rows, serving, missing),
        trust=" ".join(trust),
    )


def progress(
    grouping: Grouping, rows: Sequence[Row], seeds: Sequence[int], serving: Serving | None = None
) -> str:
    """How much of a run is there, and what is missing; the empty string if nothing is.

    Once it is decided what serves, a run is only called half done by `seeds`.
    """
    done = {(frozenset(row.tasks), row.seed) for row in plain_rows(rows)}
    wanted = [*seeds] or ([] if serving else sorted({seed for _, seed in done}))
    networks = {frozenset(tasks): name for name, tasks in tasks_of_networks(grouping).items()}
    missing = {
        name: [seed for seed in wanted if (tasks, seed) not in done]
        for tasks, name in networks.items()
    }
    left, every = sum(map(len, missing.values())), len(networks) * len(wanted)
    if not left:
        return "" if wanted or serving else "Not finished: no network is trained."
    named = [
        name if len(of) == len(wanted) else f"{name} (seed {joined(map(str, of))})"
        for name, of in missing.items()
        if of
    ]
    if len(named) > MOST_NAMES:
        named = [*named[:MOST_NAMES], f"{len(named) - MOST_NAMES} further networks"]
    return f"Not finished: {every - left} of {every} trainings are there. Missing: {joined(named)}."


def _chosen(grouping: Grouping) -> str:
    groups, tasks = len(grouping.groups), len(grouping.tasks)
    chosen = f"Chosen: {counted(groups, 'network')} for {counted(tasks, 'task')}"
    if groups == 1:
        return f"{chosen}{': a joint network' if tasks > 1 else ''}."
    if tasks > MOST_NAMES:
        return f"{chosen}, listed below."
    parts = []
    for index in range(groups):
        part = f"{results.group_name(index)} serves {joined(grouping.served(index)) or 'no task'}"
        if helpers := grouping.helpers(index):
            part += f", helped by {joined(helpers)}"
        parts.append(part)
    return f"{chosen}: {'; '.join(parts)}."


def _numbers(comparison: Comparison, num_tasks: int) -> str:
    if not comparison.losses:
        return "No kind of network has a complete set of test losses."
    seeds = len(comparison.seeds)
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    means = {
        kind: plus_minus(*results.mean_and_deviation(losses[-1]))
        for kind, losses in comparison.losses.items()
    }
    if num_tasks == 1:
        # All kinds are the same network.
        return f"Test loss ({over}): {next(iter(means.values()))}."
    values = [f"{_KINDS[kind]} {mean}" for kind, mean in means.items()]
    text = f"Total test loss ({over}): {', '.join(values)}."
    changes = {kind: 100 * change[-1] for kind, change in comparison.changes().items()}
    known = changes and np.isfinite([*changes.values()]).all()
    if seeds < FEWEST_SEEDS or not known:
        return text
    against = [
        f"{_KINDS[kind]} {'+' if change.mean() > 0 else ''}{plus_minus(*mean_and_noise(change))} %"
        for kind, change in changes.items()
    ]
    # Student's t with S - 1 degrees of freedom: with few seeds, chance often passes two errors.
    chance = percent(2 * float(scipy.special.stdtr(seeds - 1, -2)))
    return (
        f"{text} Against the joint network, paired by seed (mean ± two standard errors): "
        f"{', '.join(against)}. With {seeds} seeds, chance alone passes two standard errors in "
        f"{chance} of cases."
    )


def _verdict(serving: Serving | None) -> str:
    if serving is None:
        return "What to serve is not decided."
    decision = serving.decision
    if len(serving.grouping.tasks) == 1:
        return "One task has nothing to share."
    if decision.kind == "single" and decision.probability < _SURE:
        return "Not sure: one network per task has less estimated loss than sharing."
    if decision.kind == "groups" and decision.over_yardstick.mean < 0:
        return "Groups are about as good as one network per task, with fewer networks."
    return _VERDICTS[decision.kind]


def _gain(rows: Sequence[Row], serving: Serving) -> str:
    if serving.decision.kind == "joint" or _seeds_of_all(rows, serving) < 2:
        return ""
    mean, interval = serving.decision.gain.as_text()
    return (
        f"Gain over one joint network: {mean} (90 % interval {interval}), "
        f"probability {serving.decision.probability:.2f}."
    )


def _rival(rows: Sequence[Row], serving: Serving) -> str:
    """The option that is most likely to be better than what is served."""
    others = [
        option
        for option in serving.decision.options
        if option.grouping.groups != serving.grouping.groups
    ]
    if not others or _seeds_of_all(rows, serving) < 2:
        return ""
    best = max(others, key=lambda option: option.over_decided.probability)
    name = _KINDS[best.kind] if best.kind != "groups" else f"{len(best.grouping.groups)} groups"
    chance = best.over_decided.probability
    return f"Next best: {name}, better with a probability of {chance:.2f}."


def _advice(rows: Sequence[Row], serving: Serving | None, missing: str) -> str:
    if serving is None and missing:
        return "If the run was stopped, the same call goes on."
    if serving is None:
        return "`guard_groups` decides by the validation losses of the trained networks."
    if len(serving.grouping.tasks) == 1:
        return "Deploy its network."
    found = _seeds_of_all(rows, serving)
    if found < 2:
        return f"Train {FEWEST_SEEDS} seeds or more of each network before you deploy."
    if serving.decision.kind != "joint":
        return f"Deploy the {len(serving.networks)} networks, as one model."
    needed = plan_seeds(rows, _GAIN, split=serving.split)
    return f"Deploy the joint network. A gain of {percent(_GAIN)} " + (
        f"would have shown with {found} seeds."
        if needed <= found
        else f"would show with about {needed} seeds; there are {found}."
    )


def _seeds_of_all(rows: Sequence[Row], serving: Serving) -> int:
    """The number of seeds that all yardsticks have."""
    yardsticks = dict.fromkeys([JOINT, *map(results.single_name, serving.grouping.tasks)])
    return len(set.intersection(*(_seeds(rows, name, serving.split) for name in yardsticks)))


def _seeds(rows: Sequence[Row], network: str, split: str) -> set[int]:
    return {row.seed for row in rows if row.network == network and row.split == split}


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
