"""A budget of trainings: spent on further groups and on further seeds, until a choice is firm."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tag_keras.decision.decision import decide_groups
from tag_keras.decision.group_losses import estimate_group_losses
from tag_keras.decision.plan import next_groups
from tag_keras.results import Row, load_sweep_results, plain_rows
from tag_keras.study.networks import MOST_TASKS, Group, groups_of
from tag_keras.study.study import Study
from tag_keras.sweep.network import Network
from tag_keras.utils import files
from tag_keras.utils.checks import check, check_whole, is_whole
from tag_keras.utils.text import counted

Budget = int | Literal["all"]
# The tasks and the seed of a network.
Training = tuple[frozenset[str], int]
# A decision is firm if no other option is better with a probability above this.
_FIRM = 0.05


@dataclasses.dataclass(frozen=True)
class _Round:
    """Groups to train, each with all of some seeds."""

    groups: tuple[Group, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def trainings(self) -> set[Training]:
        return {(frozenset(group), seed) for group in self.groups for seed in self.seeds}


def check_budget(
    budget: Budget | None, tasks: Sequence[str], num_groups: int, num_seeds: int
) -> Budget | None:
    """Checks that a budget suffices for the yardsticks and the groups.

    Raises:
        ValueError: If it does not, or the tasks have too many groups to train all.
    """
    if budget == "all":
        enough = f'`budget="all"` takes up to {MOST_TASKS} tasks, which have thousands of groups'
        check(len(tasks) <= MOST_TASKS, enough, num_tasks=len(tasks))
    if budget is None or budget == "all":
        return budget
    check(not isinstance(budget, str), '`budget` should be a number or "all"', budget=budget)
    needed = (1 + len(tasks) + min(num_groups, len(tasks))) * num_seeds
    budget = check_whole("budget", budget)
    check(
        budget >= needed,
        f"`budget` should be at least {needed} trainings, or left out: a joint network, "
        f"{counted(len(tasks), 'network')} of one task and "
        f"{counted(min(num_groups, len(tasks)), 'group')}, each with {counted(num_seeds, 'seed')}",
        budget=budget,
    )
    return budget


def spend(
    study: Study, networks: Sequence[Network], num_groups: int, budget: Budget, probability: float
) -> list[Row]:
    """Trains further groups and seeds within a budget, and returns all rows in the folder.

    Half of what the first networks leave is for other groups, of up to 15 tasks: those that may be
    better by the estimate, first those that would be decided for. The rest is for further seeds of
    the networks that the decision is between. It ends when the decision is firm: no other option is
    better with a probability above 0.05, and groups that serve have further seeds; or when too
    little is left. The rounds are kept in plan.json: a run that was stopped goes on with the same
    ones, and one with a larger budget goes on behind them.

    Args:
        study: The study.
        networks: The yardsticks and the first groups, which were trained with the study's seeds.
        num_groups: Largest number of groups.
        budget: Largest number of trainings, of one network with one seed each, those of `networks`
            included; or `"all"` for every group with each of the study's seeds.
        probability: As in `decide_groups`.
    """
    path = study.folder / "plan.json"
    rounds = _load(path, study.tasks)
    first = len({frozenset(network.tasks) for network in networks}) * len(study.seeds)
    for index, one in enumerate(rounds):
        _, done = _results(study)
        if budget != "all" and len(done | one.trainings) > max(budget, len(done)):
            # The budget is smaller than it was.
            rounds = rounds[:index]
            break
        _train(study, one, networks)
    while True:
        rows, done = _results(study)
        if budget == "all":
            following = _all_groups(study, done)
        else:
            explored = sum(len(one.groups) for one in rounds if one.seeds == study.seeds)
            share = (budget - first) // 2 // len(study.seeds) - explored
            left = max(0, budget - len(done))
            following = _next_round(study, rows, num_groups, probability, share, left)
        number = len(following.trainings - done)
        if not number:
            return load_sweep_results(study.folder)
        study.say(f"{len(done)} trainings of the budget ({budget}) are done; {number} follow.")
        rounds = [*rounds, following]
        files.write_json(path, [dataclasses.asdict(one) for one in rounds])
        _train(study, following, networks)


def _results(study: Study) -> tuple[list[Row], set[Training]]:
    """The rows of plainly trained networks in the folder, and the trainings that they come from."""
    rows = plain_rows(load_sweep_results(study.folder))
    return rows, {(frozenset(row.tasks), row.seed) for row in rows}


def _train(study: Study, one: _Round, networks: Sequence[Network]) -> None:
    study.train([_network(group, study.tasks, networks) for group in one.groups], one.seeds)


def _all_groups(study: Study, done: set[Training]) -> _Round:
    groups = groups_of(study.tasks, len(study.tasks))
    left = [group for group in groups if _Round((group,), study.seeds).trainings - done]
    return _Round(tuple(left), study.seeds)


def _next_round(
    study: Study,
    rows: Sequence[Row],
    num_groups: int,
    probability: float,
    share: int,
    left: int,
) -> _Round:
    """The next round; without groups if the decision is firm or too little is left.

    Args:
        share: Number of groups that may still be trained to learn from.
        left: Number of trainings that are left.
    """
    estimate, seeds = estimate_group_losses(rows), study.seeds
    trained = {frozenset(row.tasks) for row in rows}
    # Over all groups, whether trained or not.
    decision = decide_groups(estimate, num_groups, probability)
    found = [group for group in decision.grouping.groups if frozenset(group) not in trained]
    if found or decision.best_chance > _FIRM:
        found += next_groups(estimate, num_groups, max(0, min(share, 2 * num_groups) - len(found)))
        if groups := [*dict.fromkeys(found)][: left // len(seeds)]:
            return _Round(tuple(groups), seeds)
    decision = decide_groups(estimate, num_groups, probability, only_measured=True)
    number = 1
    if decision.best_chance <= _FIRM:
        # Groups were picked out of many, by the seeds that they have: they get further ones.
        further = {frozenset(row.tasks) for row in rows if row.seed not in seeds}
        if decision.kind != "groups" or {*map(frozenset, decision.grouping.groups)} <= further:
            return _Round()
        number = len(seeds)
    rival = max(decision.options, key=lambda option: option.over_decided.probability)
    compared = [decision.options[0].grouping, decision.grouping, rival.grouping]
    groups = [*dict.fromkeys(itertools.chain.from_iterable(one.groups for one in compared))]
    number = min(number, left // len(groups))
    # Seeds that no network has, so that all of these are compared with them.
    first = max(row.seed for row in rows) + 1
    return _Round(tuple(groups), tuple(range(first, first + number))) if number else _Round()


def _network(group: Group, tasks: Group, networks: Sequence[Network]) -> Network:
    """The network of a group: one of `networks`, or a candidate."""
    for network in networks:
        if {*network.tasks} == {*group}:
            return network
    # Indices, because the names of many tasks are too long for the name of a file.
    name = "candidate_" + "-".join(str(tasks.index(task)) for task in group)
    return Network(name, group, role="candidate")


def _load(path: Path, tasks: Group) -> list[_Round]:
    if not path.exists():
        return []
    value = files.read_json(path)
    if not (isinstance(value, list) and all(_is_round(one, tasks) for one in value)):
        raise ValueError(
            f"{path} should hold a list of rounds, each with groups of {list(tasks)} and seeds. "
            "Delete it, and the same call plans anew; networks that were trained stay."
        )
    return [_Round(tuple(map(tuple, one["groups"])), tuple(one["seeds"])) for one in value]


def _is_round(value: Any, tasks: Group) -> bool:
    lists = isinstance(value, dict) and {*value} == {"groups", "seeds"}
    return (
        lists
        and all(isinstance(one, list) and one for one in value.values())
        and all(_is_group(group, tasks) for group in value["groups"])
        and all(is_whole(seed) and seed >= 0 for seed in value["seeds"])
    )


def _is_group(value: Any, tasks: Group) -> bool:
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return names and bool(value) and len({*value}) == len(value) and {*value} <= {*tasks}
