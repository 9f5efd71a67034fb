"""A budget of trainings: what it is spent on, that it is kept to, and that a run goes on."""

import json

import numpy as np
import pytest

from tag_keras.results import JOINT, Row, group_name, load_sweep_results, save_results, single_name
from tag_keras.study.budget import check_budget, spend
from tag_keras.sweep.network import Network

TASKS = ("a", "b", "c", "d")


class Stopped(Exception):
    pass


def loss_of(group, seed, task, gains, noise):
    """1, less what a pair of tasks gains in the group, and noise that is the same at each call."""
    place = TASKS.index(task)
    random = np.random.default_rng([seed, place, sum(1 << TASKS.index(one) for one in group)])
    pairs = sum(gains.get(frozenset((task, other)), 0.0) for other in group)
    alone = gains.get("alone", 0.0) * (len(group) == 1)
    return float(1 - pairs - alone + noise * random.normal())


class FakeStudy:
    """Trains networks of a simulated problem, as a `Study` does; may stop before a training."""

    def __init__(self, folder, gains, noise=0.02, seeds=(0, 1, 2)):
        self.folder, self.tasks, self.seeds = folder, TASKS, seeds
        self.gains, self.noise = gains, noise
        self.stop_at, self.said = None, []

    def train(self, networks, seeds):
        self.folder.mkdir(exist_ok=True)
        rows = load_sweep_results(self.folder)
        done = {(row.network, row.seed) for row in rows}
        for network in networks:
            for seed in seeds:
                if (network.name, seed) in done:
                    continue
                if self.stop_at is not None and len(trained(rows)) >= self.stop_at:
                    raise Stopped
                rows += [
                    Row(network.name, network.tasks, seed, task, "validation", loss, {}, 1.0)
                    if network.role != "candidate"
                    else Row(
                        *(network.name, network.tasks, seed, task, "validation", loss, {}, 1.0),
                        role="candidate",
                    )
                    for task in network.tasks
                    for loss in [loss_of(network.tasks, seed, task, self.gains, self.noise)]
                ]
                save_results(self.folder / "results.json", rows)

    def say(self, message):
        self.said.append(message)


FIRST = [
    Network(JOINT, TASKS, role="joint"),
    *(Network(single_name(task), (task,), role="single") for task in TASKS),
    Network(group_name(0), ("a", "c"), role="group", index=0),
    Network(group_name(1), ("b", "d"), role="group", index=1),
]
# a and b gain together, and so do c and d; the first groups are the wrong ones.
PAIRS = {frozenset("ab"): 0.1, frozenset("cd"): 0.1}
OTHERS = dict.fromkeys(map(frozenset, ("ac", "ad", "bc", "bd")), -0.03)
# Four tasks, a joint network and two groups, each with three seeds.
NEEDED = 21


def trained(rows):
    return {(frozenset(row.tasks), row.seed) for row in rows}


def run(folder, budget, gains=None, **options):
    study = FakeStudy(folder, {**PAIRS, **OTHERS} if gains is None else gains, **options)
    study.train(FIRST, study.seeds)
    return study, spend(study, FIRST, 2, budget, 0.8)


@pytest.mark.parametrize(
    ("budget", "noise"),
    [
        (NEEDED, 0.02),
        (NEEDED + 2, 0.5),
        pytest.param(40, 0.5, marks=pytest.mark.slow),
        pytest.param(75, 0.02, marks=pytest.mark.slow),
        pytest.param(75, 0.5, marks=pytest.mark.slow),
    ],
)
def test_no_budget_is_exceeded(tmp_path, budget, noise):
    _, rows = run(tmp_path, budget, noise=noise)
    assert NEEDED <= len(trained(rows)) <= budget


def test_the_groups_that_pay_are_found(tmp_path):
    _, rows = run(tmp_path, 60)
    assert {("a", "b"), ("c", "d")} <= {row.tasks for row in rows if row.role == "candidate"}
    # Nothing is left to find out, and so not all of it is spent. Three seeds that took no part in
    # choosing confirm the choice, against the joint network.
    assert len(trained(rows)) < 60
    fresh = {(group, seed) for group, seed in trained(rows) if seed > 2}
    assert fresh >= {
        (frozenset(group), seed) for group in ("ab", "cd", "abcd") for seed in (3, 4, 5)
    }


def test_what_is_firm_from_the_start_costs_nothing(tmp_path):
    study, rows = run(tmp_path, 75, {"alone": 0.5})
    assert len(trained(rows)) == NEEDED and not study.said
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.slow
def test_half_is_for_groups_and_half_for_seeds(tmp_path):
    _, rows = run(tmp_path, 51, {}, noise=0.5)
    new = [one for one in trained(rows) if one[1] in (0, 1, 2)]
    further = [one for one in trained(rows) if one[1] > 2]
    # Of 51 - 21, 15 for five groups with three seeds; 15 groups less seven are eight.
    assert len(new) == NEEDED + 3 * 5 and further
    # A further seed is one of all networks that are compared, the joint one among them.
    for seed in {seed for _, seed in further}:
        assert (frozenset(TASKS), seed) in further
        assert len([one for one in further if one[1] == seed]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_stopped_anywhere_it_trains_the_same_networks(tmp_path, noise):
    _, expected = run(tmp_path / "whole", 60, noise=noise)
    for number in [*range(1, 60, 4), 60]:
        study = FakeStudy(tmp_path / "parts", {**PAIRS, **OTHERS}, noise=noise)
        study.stop_at = number
        try:
            study.train(FIRST, study.seeds)
            rows = spend(study, FIRST, 2, 60, 0.8)
        except Stopped:
            continue
    assert {*map(str, rows)} == {*map(str, expected)}
    plans = [(tmp_path / name / "plan.json").read_text() for name in ("whole", "parts")]
    assert plans[0] == plans[1]


def test_groups_may_have_their_tasks_in_another_order(tmp_path):
    networks = [*FIRST[:-2], Network("group_0", ("b", "a"), role="group", index=0)]
    networks.append(Network("group_1", ("d", "c"), role="group", index=1))
    study = FakeStudy(tmp_path, {**PAIRS, **OTHERS})
    study.train(networks, study.seeds)
    rows = spend(study, networks, 2, 40, 0.8)
    assert NEEDED <= len(trained(rows)) <= 40
    assert not any(row.role == "candidate" and len(row.tasks) == 2 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("larger", ["all", 75])
def test_stopped_and_with_a_smaller_budget_it_keeps_to_that(tmp_path, larger):
    study = FakeStudy(tmp_path, {}, noise=0.5)
    study.train(FIRST, study.seeds)
    study.stop_at = NEEDED + 2
    with pytest.raises(Stopped):
        spend(study, FIRST, 2, larger, 0.8)
    _, rows = run(tmp_path, NEEDED + 3, {}, noise=0.5)
    assert len(trained(rows)) <= NEEDED + 3


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_no_budget_of_many_is_exceeded(tmp_path, noise):
    for budget in range(NEEDED, NEEDED + 20, 3):
        _, rows = run(tmp_path / str(budget), budget, noise=noise)
        assert NEEDED <= len(trained(rows)) <= budget


def test_all_groups_of_an_unfinished_plan(tmp_path):
    study = FakeStudy(tmp_path, {})
    study.train(FIRST, study.seeds)
    study.stop_at = NEEDED + 4
    with pytest.raises(Stopped):
        spend(study, FIRST, 2, "all", 0.8)
    (tmp_path / "plan.json").unlink()
    assert len(trained(run(tmp_path, "all", {})[1])) == 45


@pytest.mark.slow
def test_a_larger_budget_goes_on(tmp_path):
    _, before = run(tmp_path, 30, noise=0.5)
    plan = json.loads((tmp_path / "plan.json").read_text())
    _, after = run(tmp_path, 75, noise=0.5)
    assert after[: len(before)] == before and len(trained(after)) > len(trained(before))
    assert json.loads((tmp_path / "plan.json").read_text())[: len(plan)] == plan
    # A smaller one leaves everything as it is.
    assert run(tmp_path, 30, noise=0.5)[1] == after


def test_all_groups(tmp_path):
    study, rows = run(tmp_path, "all")
    groups = {group for group, _ in trained(rows)}
    assert len(groups) == 15 and len(trained(rows)) == 45
    assert study.said == ["21 trainings of the budget (all) are done; 24 follow."]


@pytest.mark.slow
def test_one_seed_gets_further_ones(tmp_path):
    _, rows = run(tmp_path, 25, seeds=(4,), noise=0.5)
    assert {row.seed for row in rows} > {4}
    assert len(trained(rows)) <= 25


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '[{"groups": [["a"]]}]',
        '[{"groups": [["a", "z"]], "seeds": [0]}]',
        '[{"groups": [["a"]], "seeds": []}]',
        '[{"groups": [["a"]], "seeds": [-1]}]',
        '[{"groups": ["a"], "seeds": [0]}]',
        '[{"groups": [[["a"]]], "seeds": [0]}]',
        '[{"groups": [[]], "seeds": [0]}]',
        '[{"groups": [["a", "a"]], "seeds": [0]}]',
    ],
)
def test_a_damaged_plan_is_named(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json should hold a list of rounds.*Delete it"):
        run(tmp_path, 40)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (20, "`budget` should be at least 21 trainings, or left out: a joint network, 4 networks"),
        (-1, "`budget` should be an integer from 0 on"),
        (30.5, "`budget` should be an integer from 0 on"),
        ("some", '`budget` should be a number or "all"'),
    ],
)
def test_budgets_that_do_not_suffice(budget, message):
    with pytest.raises(ValueError, match=message):
        check_budget(budget, TASKS, 2, 3)


def test_budgets_that_do():
    assert check_budget(None, TASKS, 2, 3) is None
    assert check_budget("all", TASKS, 2, 3) == "all"
    assert check_budget(np.int64(21), TASKS, 2, 3) == 21
    # There are no more groups than tasks.
    assert check_budget(27, TASKS, 9, 3) == 27
    with pytest.raises(ValueError, match='`budget="all"` takes up to 12 tasks'):
        check_budget("all", [f"t{index}" for index in range(13)], 2, 3)
