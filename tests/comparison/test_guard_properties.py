"""The guard over random losses: its guarantee, and against its rules written out plainly."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats
from guard_cases import make_rows, networks_of

import tag_keras
from tag_keras.comparison.comparison import tasks_of_networks


def random_case(seed):
    """Groups with helpers, and losses at 1 to 4 seeds, of which some networks are missing."""
    rng = np.random.default_rng(seed)
    tasks = tuple(f"t{index}" for index in range(rng.integers(1, 6)))
    groups = [list(rng.permutation(tasks)[: rng.integers(1, len(tasks) + 1)]) for _ in range(2)]
    if rest := [task for task in tasks if task not in groups[0] + groups[1]]:
        groups.append(rest)
    serves = {
        task: int(rng.choice([index for index, group in enumerate(groups) if task in group]))
        for task in tasks
    }
    grouping = tag_keras.Grouping(tasks, groups, serves, 0.0, 0.0, True)
    noise, num_seeds = rng.choice([0.01, 0.1, 1.0]), rng.integers(1, 5)
    losses = {}
    for name, trained in tasks_of_networks(grouping).items():
        if name.startswith("group_") or rng.random() < 0.8:
            level = rng.normal(1, 0.2, (len(trained), 1))
            values = level + noise * rng.normal(size=(len(trained), num_seeds))
            # Rounded, so that ties are met, too.
            values = values.round(1) if rng.random() < 0.2 else values
            losses[name] = {
                str(task): tuple(map(float, row)) for task, row in zip(trained, values, strict=True)
            }
    return grouping, losses


def least_total(losses, serves):
    """Sum of the losses served by the best of all choices of a seed for each network."""
    names = sorted({*serves.values()})
    num_seeds = len(next(iter(losses["group_0"].values())))
    return min(
        sum(losses[name][task][seeds[names.index(name)]] for task, name in serves.items())
        for seeds in itertools.product(range(num_seeds), repeat=len(names))
    )


def served_by_best_seeds(losses, serves):
    served = {}
    for name in {*serves.values()}:
        mine = [task for task in serves if serves[task] == name]
        seeds = range(len(losses[name][mine[0]]))
        best = min(seeds, key=lambda seed: sum(losses[name][task][seed] for task in mine))
        served |= {task: losses[name][task][best] for task in mine}
    return served


def plain_guard(grouping, losses):
    """The rules, one after the other."""
    own = {task: f"group_{index}" for task, index in grouping.serves.items()}
    serves, better = dict(own), []
    num_seeds = len(next(iter(losses["group_0"].values())))
    for task, name in own.items():
        found = []
        for other in losses:
            if num_seeds >= 3 and other != name and task in losses[other]:
                differences = np.subtract(losses[name][task], losses[other][task])
                mean = differences.mean()
                if differences.std() < 1e-12:
                    beyond = mean > 1e-12
                else:
                    beyond = scipy.stats.ttest_1samp(differences, 0).statistic > 2
                if beyond:
                    found.append((statistics.mean(losses[other][task]), other, mean))
        if found:
            _, other, gain = min(found, key=lambda one: one[0])
            better.append((-gain, task, other))
    for _, task, other in sorted(better):
        if least_total(losses, {**serves, task: other}) <= least_total(losses, serves) + 1e-12:
            serves[task] = other
    kinds = [dict.fromkeys(own, "joint"), {task: f"single_{task}" for task in own}]
    kinds = [kind for kind in kinds if {*kind.values()} <= {*losses}]
    for kind in sorted(kinds, key=lambda kind: least_total(losses, kind))[:1]:
        other = served_by_best_seeds(losses, kind)
        while least_total(losses, serves) > sum(other.values()) + 1e-12:
            served = served_by_best_seeds(losses, serves)
            moves = [task for task in serves if serves[task] != kind[task]]
            worst = max(moves, key=lambda task: served[task] - other[task])
            serves[worst] = kind[worst]
    limit, start = min(least_total(losses, kind) for kind in [own, *kinds]), serves
    while len({*serves.values()}) > len({*own.values()}):
        fewer = [plain_takeover(losses, serves, name, start) for name in {*serves.values()}]
        totals = {least_total(losses, one): one for one in fewer if None not in one.values()}
        if min(totals, default=math.inf) > limit + 1e-12:
            break
        serves = totals[min(totals)]
    return serves


def plain_takeover(losses, serves, left_out, start):
    """The tasks of a network go to the best of the others, none worse than at the start."""
    after = dict(serves)
    for task in [task for task, name in serves.items() if name == left_out]:
        means = {}
        for name in {*serves.values()} - {left_out}:
            if task in losses[name]:
                own, other = losses[start[task]][task], losses[name][task]
                known = len(own) >= 3
                if not (known and scipy.stats.ttest_rel(other, own).statistic > 2):
                    means[statistics.mean(other)] = name
        after[task] = means[min(means)] if means else None
    return after


@pytest.mark.parametrize("part", range(4))
def test_the_guarantee_over_random_losses(part):
    moved = set()
    for seed in range(150 * part, 150 * (part + 1)):
        grouping, losses = random_case(seed)
        serving = tag_keras.guard_groups(grouping, make_rows(losses, grouping))
        own = {task: f"group_{index}" for task, index in grouping.serves.items()}
        served = networks_of(serving)
        # What it says is served is what the rows say.
        total = math.fsum(losses[name][task][at] for task, (name, at) in served.items())
        assert serving.total == total
        assert total == pytest.approx(least_total(losses, {t: n for t, (n, _) in served.items()}))
        assert serving.total_without == pytest.approx(least_total(losses, own))
        # The guarantee, to the last bit.
        assert total <= serving.total_without
        assert (serving.total_joint is None) == ("joint" not in losses)
        if "joint" in losses:
            whole = [math.fsum(column) for column in zip(*losses["joint"].values(), strict=True)]
            assert serving.total_joint == min(whole)
            assert total <= min(whole)
        alone = [f"single_{task}" for task in grouping.tasks]
        assert (serving.total_single is None) == (not {*alone} <= {*losses})
        if serving.total_single is not None:
            best = [min(losses[name][task]) for name, task in zip(alone, own, strict=True)]
            assert serving.total_single == math.fsum(best)
            assert total <= serving.total_single
        # One seed's network under each name, and each serves something.
        assert len({name for name, _ in serving.networks}) == len(serving.networks)
        assert {*served.values()} == {*serving.networks}
        for (name, _), group in zip(serving.networks, serving.grouping.groups, strict=True):
            assert group == tasks_of_networks(grouping)[name]
        assert [move.task for move in serving.moves] == [t for t in own if served[t][0] != own[t]]
        moved |= {move.reason for move in serving.moves}
    assert moved == {"beyond the noise", "the guarantee", "fewer networks"}


@pytest.mark.parametrize("part", range(2))
def test_it_does_what_the_plain_rules_say(part):
    # In the last ones it matters which move comes first, as in one of 500.
    seeds = [*range(1000 + 200 * part, 1200 + 200 * part), 7023, 7562, 9873, 10363, 11897]
    for seed in seeds:
        grouping, losses = random_case(seed)
        values = [value for network in losses.values() for row in network.values() for value in row]
        if len({*values}) < len(values):
            continue  # Either of two networks that are as good may serve.
        serving = tag_keras.guard_groups(grouping, make_rows(losses, grouping))
        found = {task: name for task, (name, _) in networks_of(serving).items()}
        assert found == plain_guard(grouping, losses), seed


def test_the_order_of_tasks_and_rows_does_not_matter():
    for seed in range(2000, 2150):
        grouping, losses = random_case(seed)
        rng = np.random.default_rng(seed)
        tasks = tuple(str(task) for task in rng.permutation(grouping.tasks))
        groups = tuple(tuple(rng.permutation(group).tolist()) for group in grouping.groups)
        other = dataclasses.replace(grouping, tasks=tasks, groups=groups)
        rows = make_rows(losses, other)
        rows = [rows[place] for place in rng.permutation(len(rows))]
        serving = tag_keras.guard_groups(grouping, make_rows(losses, grouping))
        permuted = tag_keras.guard_groups(other, rows)
        assert networks_of(permuted) == networks_of(serving)
        assert permuted.total == serving.total
        assert {move.task: move for move in permuted.moves} == {m.task: m for m in serving.moves}
        assert [move.task for move in permuted.moves] == [
            task for task in tasks if task in {move.task for move in serving.moves}
        ]
