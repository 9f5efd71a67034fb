"""What the results say in words, each number against a computation of its own."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats
from guard_cases import GROUPING, LEVELS, TASKS, make_rows
from report_cases import ABC, ABC_GROUPING, make_affinity, make_grouping, rows_with_totals

import tag_keras
from tag_keras.affinity import Affinity
from tag_keras.comparison.conclusion import conclusion, progress
from tag_keras.comparison.guard import guard_groups
from tag_keras.comparison.serving import serving_as_text
from tag_keras.results import Row


def conclude(affinity=None, **totals):
    affinity = affinity or make_affinity(ABC)
    return conclusion(affinity, make_grouping(**ABC_GROUPING), rows_with_totals(**totals))


def test_without_serving_nothing_is_decided():
    # Differences from joint: -.1, -.2, -.3 of a mean of 1.2: -16.7 % with two standard errors of
    # 2 * 8.33 / sqrt(3) = 9.6; and 1, 1.1, 1: 86.1 % with 2 * 4.81 / sqrt(3) = 5.6. Student's t
    # with 2 degrees of freedom: P(|t| > 2) = .1835.
    found = conclude(joint=[1.0, 1.2, 1.4], grouped=[0.9, 1.0, 1.1], single=[2.0, 2.3, 2.4])
    assert found.verdict == "What to serve is not decided."
    assert found.advice.startswith("`guard_groups` decides by the validation losses")
    assert found.reason == ""
    assert found.numbers == (
        "Total test loss (mean ± standard deviation over 3 seeds): one joint network 1.20 ± 0.20, "
        "one network per task 2.23 ± 0.21, the groups 1.00 ± 0.10. Against the joint network, "
        "paired by seed (mean ± two standard errors): one network per task +86.1 ± 5.6 %, the "
        "groups -16.7 ± 9.6 %. With 3 seeds, chance alone passes two standard errors in 18 % of "
        "cases."
    )
    assert found.chosen == (
        "Chosen: 2 networks for 3 tasks: group_0 serves a and b; group_1 serves c, helped by b."
    )


@pytest.mark.parametrize(
    ("levels", "verdict", "advice"),
    [
        ({}, "Grouping pays.", "Deploy the 2 networks, as one model."),
        (
            {f"single_{task}": {task: 0.1} for task in TASKS},
            "Sharing does not pay: one network per task is better.",
            "Deploy the 3 networks, as one model.",
        ),
        (
            {"joint": {"a": 0.4, "b": 0.3, "c": 0.6}},
            "No evidence that grouping pays: one joint network.",
            "Deploy the joint network. A gain of 2 % would have shown with 3 seeds.",
        ),
    ],
)
def test_what_is_served_is_advised(levels, verdict, advice):
    rows = make_rows({**LEVELS, **levels}, noise=0.1)
    serving = guard_groups(GROUPING, rows)
    found = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving)
    assert (found.verdict, found.advice) == (verdict, advice)
    assert found.reason == serving_as_text(serving)
    assert found.numbers == "No kind of network has a complete set of test losses."


@pytest.mark.parametrize(("noise", "words"), [(1.0, "would show with about"), (0.1, "would have")])
def test_the_advice_says_how_many_seeds_show_a_gain(noise, words):
    rows = make_rows({**LEVELS, "joint": {"a": 0.3, "b": 0.2, "c": 0.4}}, noise=noise)
    serving = guard_groups(GROUPING, rows)
    assert serving.decision.kind == "joint"
    advice = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving).advice
    assert f"A gain of 2 % {words}" in advice
    if noise == 1:
        needed = tag_keras.plan_seeds(rows, 0.02)
        assert advice.endswith(f"with about {needed} seeds; there are 3.")


def test_single_networks_that_are_hardly_better_are_not_called_sure():
    rows = make_rows({**LEVELS, **{f"single_{task}": {task: 0.1} for task in TASKS}})
    serving = guard_groups(GROUPING, rows)
    gain = dataclasses.replace(serving.decision.gain, probability=0.79)
    decision = dataclasses.replace(serving.decision, gain=gain)
    unsure = dataclasses.replace(serving, decision=decision)
    found = conclusion(make_affinity(TASKS), GROUPING, rows, serving=unsure)
    assert found.verdict == ("Not sure: one network per task has less estimated loss than sharing.")


def test_groups_that_are_a_little_worse_than_single_networks_do_not_pay():
    rows = make_rows()
    serving = guard_groups(GROUPING, rows)
    gain = dataclasses.replace(serving.decision.over_yardstick, mean=-0.01)
    decision = dataclasses.replace(serving.decision, over_yardstick=gain)
    worse = dataclasses.replace(serving, decision=decision)
    assert conclusion(make_affinity(TASKS), GROUPING, rows, serving=worse).verdict == (
        "Groups are about as good as one network per task, with fewer networks."
    )


def test_one_seed_advises_more():
    rows = make_rows({**LEVELS, "joint": {"a": 0.3, "b": 0.2, "c": 0.4}}, seeds=(0,))
    serving = guard_groups(GROUPING, rows)
    advice = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving).advice
    assert advice == "Train 3 seeds or more of each network before you deploy."
    # Nor where single networks have one seed in common with the joint one.
    rows = make_rows({**LEVELS, "joint": {"a": 0.3, "b": 0.2, "c": 0.4}})
    rows = [row for row in rows if row.role != "single" or row.seed == 0]
    serving = guard_groups(GROUPING, rows)
    again = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving).advice
    assert again == advice


def test_what_is_served_has_numbers_of_its_own():
    levels = {**LEVELS, "single_c": {"c": 0.3}}
    rows = make_rows(levels) + make_rows(levels, split="test")
    serving = guard_groups(GROUPING, rows)
    numbers = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving).numbers
    # Served: group_0 and single_c, which are no groups of GROUPING.
    table = {(row.network, row.seed, row.task): row.loss for row in rows}
    served = [
        table["group_0", seed, "a"] + table["group_0", seed, "b"] + table["single_c", seed, "c"]
        for seed in range(3)
    ]
    assert f"what is served {np.mean(served):.2f}" in numbers
    # Where it is one of the kinds, it has none.
    rows = make_rows() + make_rows(split="test")
    serving = guard_groups(GROUPING, rows)
    numbers = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving).numbers
    assert "what is served" not in numbers


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_few_seeds_the_noise_is_not_known(seeds):
    found = conclude(joint=[1.2, 1.3][:seeds], grouped=[1.0, 1.05][:seeds])
    assert "two standard errors" not in found.numbers
    if seeds == 1:
        assert found.numbers == "Total test loss (one seed): one joint network 1.2, the groups 1."


def test_only_one_kind_and_none():
    found = conclude(joint=[1.0, 1.1, 1.2])
    assert found.numbers.endswith("over 3 seeds): one joint network 1.10 ± 0.10.")
    rows = [dataclasses.replace(row, split="validation") for row in rows_with_totals(joint=[1.0])]
    found = conclusion(make_affinity(ABC), make_grouping(**ABC_GROUPING), rows)
    assert found.numbers == "No kind of network has a complete set of test losses."


def test_trust_counts_comparisons_of_two_sources_of_one_target():
    # One comparison for each target: a has .3 and .1 of b and c, b has .3 and .6, c .1 and .4.
    # Differences have the error .1 * sqrt(2), and 1.96 of it are .277; the diagonal must not count.
    mean = [[9, 0.3, 0.1], [0.3, -9, 0.4], [0.1, 0.6, 9]]
    affinity = make_affinity(ABC, mean=mean, standard_error=np.full((3, 3), 0.1))
    trust = conclude(affinity, joint=[1.0]).trust
    assert trust == (
        "2 of the 3 comparisons between two sources of one target are significant at 95 % (67 %); "
        "chance alone would give about 5 %. The pair with the fewest probes has 216. No "
        "probe value was skipped. The selection is provably optimal for these affinities."
    )


def test_trust_counts_by_the_paired_t_test():
    generator = np.random.default_rng(5)
    replicates = generator.normal(size=(8, 1, 6)) + generator.normal(size=(8, 6, 6))
    replicates += np.arange(6)[:, None] / 2
    # Nothing of one pair is known, and so nothing of its four comparisons.
    replicates[1:, 2, 4] = np.nan
    tasks = tuple("abcdef")
    fields = {"mean": np.nanmean(replicates, axis=0), "standard_error": None}
    trust = conclusion(
        make_affinity(tasks, replicates=replicates, **fields),
        make_grouping(tasks, (tasks,)),
        [Row("joint", tasks, 0, task, "test", 1.0, {}, 1.0) for task in tasks],
    ).trust
    significant = 0
    for target in range(6):
        for pair in itertools.combinations({*range(6)} - {target}, 2):
            if (2, 4) not in [(source, target) for source in pair]:
                test = scipy.stats.ttest_rel(*replicates[:, pair, target].T)
                significant += int(test.pvalue < 0.05)
    # Six targets with ten pairs of five sources each.
    assert 20 < significant < 50
    expected = (
        f"{significant} of the 60 comparisons between two sources of one target are significant "
        f"at 95 % ({100 * significant / 56:.0f} % of the 56 whose noise is known)"
    )
    assert trust.startswith(expected)


@pytest.mark.parametrize(("targets", "number", "warns"), [("a", 3, True), ("abc", 9, False)])
def test_trust_warns_where_chance_explains_much(targets, number, warns):
    # Each of five targets has six comparisons; where "e" is the one good source, it wins three.
    mean = np.zeros((5, 5))
    mean[4, : len(targets)] = 1.0
    affinity = make_affinity(tuple("abcde"), mean=mean, standard_error=np.full((5, 5), 0.1))
    rows = [Row("joint", affinity.tasks, 0, task, "test", 1.0, {}, 1.0) for task in "abcde"]
    grouping = make_grouping(affinity.tasks, (affinity.tasks,))
    trust = conclusion(affinity, grouping, rows).trust
    assert trust.startswith(f"{number} of the 30 comparisons")
    assert ("few: another run may choose other groups." in trust) == warns


@pytest.mark.parametrize(
    ("error", "number", "warns"), [(0.1, 1, False), (1.0, 0, True), (0.01, 2, False)]
)
def test_trust_of_two_tasks_looks_at_what_is_different_from_0(error, number, warns):
    affinity = Affinity(["a", "b"], [[9, 0.3], [-0.1, 9]], np.full((2, 2), error))
    rows = [Row("joint", ("a", "b"), 0, task, "test", 1.0, {}, 1.0) for task in "ab"]
    trust = conclusion(affinity, make_grouping(("a", "b"), (("a", "b"),)), rows).trust
    assert trust.startswith(
        "With two tasks no target has two sources to compare. "
        f"{number} of the 2 affinities between them are different from 0 at 95 % ({50 * number} "
        "%); chance alone would give about 5 %."
    )
    assert ("few: another run" in trust) == warns


def test_trust_when_errors_and_counts_are_not_known():
    trust = conclude(Affinity(ABC, np.eye(3)), joint=[1.0]).trust
    assert trust.startswith("The standard errors of the affinities are not known: all of it may")
    assert "The number of probes is not known." in trust


def test_trust_warns_of_few_probes():
    count = np.full((3, 3), 40)
    count[0, 2] = 12
    # The diagonal says nothing about pairs of tasks.
    count[1, 1] = 5
    trust = conclude(make_affinity(ABC, count=count), joint=[1.0]).trust
    assert "The pair with the fewest probes has 12, which is few: probe more often" in trust
    count[0, 2] = 30
    assert "few:" not in conclude(make_affinity(ABC, count=count), joint=[1.0]).trust


def test_trust_names_the_targets_of_skipped_probes():
    skipped = [[0, 0, 2], [0, 0, 5], [1, 0, 0]]
    trust = conclude(make_affinity(ABC, skipped=skipped), joint=[1.0]).trust
    assert "8 probe values left out because a loss was not positive or not finite" in trust
    assert "by target: a 1, c 7." in trust


def test_trust_says_when_the_selection_is_not_proven():
    grouping = make_grouping(**ABC_GROUPING, score=0.25, upper_bound=0.5, optimal=False)
    found = conclusion(make_affinity(ABC), grouping, rows_with_totals(joint=[1.0]))
    assert found.trust.endswith(
        "The selection is not proven optimal: its score is 0.25, and no choice of as many groups "
        "scores more than 0.5."
    )


def test_one_group_is_the_joint_network():
    grouping = make_grouping(ABC, (ABC,))
    found = conclusion(make_affinity(ABC), grouping, rows_with_totals(joint=[1.0]))
    # Trained again or not: `experiment.run` does not.
    assert found.chosen == "Chosen: 1 network for 3 tasks: a joint network."


def test_trust_names_the_affinities_that_groups_were_selected_by():
    rows = rows_with_totals(joint=[1.0])
    found = conclusion(make_affinity(ABC), make_grouping(**ABC_GROUPING), rows, True)
    assert found.trust.endswith("The selection is provably optimal for the anchored affinities.")
    # Of two tasks, the anchored affinities are what the joint network gained.
    two = ("a", "b")
    rows = [Row("joint", two, 0, task, "test", 1.0, {}, 1.0) for task in two]
    found = conclusion(make_affinity(two), make_grouping(two, (two,)), rows, True)
    assert found.trust.startswith("With two tasks the affinities take no part in the selection: ")


def test_one_task():
    grouping = make_grouping(("a",), (("a",),))
    rows = [Row("joint", ("a",), 0, "a", "test", 0.0, {}, 1.0)]
    affinity = Affinity(["a"], [[0.2]])
    found = conclusion(affinity, grouping, rows)
    assert found.trust == "With one task there are no affinities between tasks."
    assert found.chosen == "Chosen: 1 network for 1 task."
    # All networks are the same one, so nothing is compared.
    networks = {"joint": "joint", "single_a": "single", "group_0": "group"}
    rows = [
        Row(name, ("a",), seed, "a", split, 0.5 + 0.1 * seed, {}, 1.0, role=role)
        for name, role in networks.items()
        for split in ("validation", "test")
        for seed in range(3)
    ]
    found = conclusion(affinity, grouping, rows, serving=guard_groups(grouping, rows))
    assert (found.verdict, found.advice) == (
        "One task has nothing to share.",
        "Deploy its network.",
    )
    assert found.gain == found.rival == found.progress == ""
    assert found.reason == (
        "One task: its network, as there is nothing to share. 1 network served. Total validation "
        "loss at the best seeds: 0.5 by it."
    )
    # The mean of 0.5, 0.6 and 0.7.
    assert found.numbers == ("Test loss (mean ± standard deviation over 3 seeds): 0.60 ± 0.10.")


def test_many_tasks_are_not_listed():
    tasks = [f"t{index}" for index in range(13)]
    grouping = make_grouping(tasks, (tasks[:7], tasks[7:]))
    rows = [Row("joint", tuple(tasks), 0, task, "test", 1.0, {}, 1.0) for task in tasks]
    found = conclusion(make_affinity(tasks), grouping, rows)
    assert found.chosen == "Chosen: 2 networks for 13 tasks, listed below."


# How much of a run is there.


def test_a_run_that_is_half_done_says_what_is_missing():
    rows = make_rows()
    left = [row for row in rows if row.network not in ("group_1", "single_c")]
    left += [row for row in rows if row.network == "single_c" and row.seed != 1]
    # group_0, group_1, joint and three single networks with three seeds.
    expected = "Not finished: 14 of 18 trainings are there. Missing: group_1 and single_c (seed 1)."
    assert progress(GROUPING, left, (0, 1, 2)) == expected
    # Without seeds, those that are there.
    assert progress(GROUPING, left, ()) == expected
    assert progress(GROUPING, left, (0, 1, 2, 3)).startswith("Not finished: 14 of 24 trainings")
    found = conclusion(make_affinity(TASKS), GROUPING, left, seeds=(0, 1, 2))
    assert (found.progress, found.advice) == (
        expected,
        "If the run was stopped, the same call goes on.",
    )
    assert progress(GROUPING, rows, (0, 1, 2)) == progress(GROUPING, rows, (0,)) == ""


def test_further_seeds_of_some_networks_are_not_half_a_run():
    rows = make_rows() + [row for row in make_rows(seeds=(3,)) if row.role == "joint"]
    assert progress(GROUPING, rows, (), guard_groups(GROUPING, rows)) == ""
    assert progress(GROUPING, rows, (0, 1, 2)) == ""
    assert progress(GROUPING, rows, ()).startswith("Not finished: 19 of 24")


def test_a_group_that_is_a_yardstick_is_one_training():
    levels = {"joint": LEVELS["joint"], "single_a": {"a": 0.9}, "group_1": {"c": 1.0}}
    grouping = make_grouping(ABC, (("a", "b"), ("c",)))
    rows = [row for row in make_rows(grouping=grouping, levels=levels) if row.seed == 0]
    assert progress(grouping, rows, (0,)) == (
        "Not finished: 3 of 5 trainings are there. Missing: group_0 and single_b."
    )


def test_of_many_missing_networks_some_are_named():
    tasks = tuple(f"t{index}" for index in range(20))
    rows = [Row("joint", tasks, 0, task, "validation", 0.5, {}, 1.0) for task in tasks]
    words = progress(make_grouping(tasks, (tasks[:9], tasks[9:])), rows, (0,))
    assert words.startswith("Not finished: 1 of 23 trainings are there. Missing: group_0, group_1,")
    assert words.endswith("single_t9 and 10 further networks.")
    measured = [dataclasses.replace(row, network="affinity", role="affinity") for row in rows]
    nothing = progress(make_grouping(tasks, (tasks,)), measured, ())
    assert nothing == "Not finished: no network is trained."


# The gain and the next best choice, in few words.


def test_the_gain_and_the_next_best_choice():
    rows = make_rows(noise=0.1)
    serving = guard_groups(GROUPING, rows)
    found = conclusion(make_affinity(TASKS), GROUPING, rows, serving=serving)
    assert serving.decision.kind == "groups"
    low, high = (100 * end / 2.8 for end in serving.decision.interval)
    chance = serving.decision.probability
    assert found.gain == (
        f"Gain over one joint network: {100 * serving.decision.gain.share:.1f} % "
        f"(90 % interval {low:.1f} to {high:.1f} %), probability {chance:.2f}."
    )
    chances = {
        option.kind: option.over_decided.probability
        for option in serving.decision.options
        if option.kind != "groups"
    }
    name = max(chances, key=chances.get)
    words = {"single": "one network per task", "joint": "one joint network"}[name]
    chance = f"{chances[name]:.2f}"
    assert found.rival == f"Next best: {words}, better with a probability of {chance}."


def test_the_next_best_choice_is_the_one_that_is_most_likely_better():
    rows = make_rows(noise=0.1)
    serving = guard_groups(GROUPING, rows)
    options = []
    for option in serving.decision.options:
        chance = {"joint": 0.4, "single": 0.3, "groups": 0.0}[option.kind]
        gain = dataclasses.replace(option.over_decided, probability=chance)
        options.append(dataclasses.replace(option, over_decided=gain))
    decision = dataclasses.replace(serving.decision, options=tuple(options))
    likely = dataclasses.replace(serving, decision=decision)
    assert conclusion(make_affinity(TASKS), GROUPING, rows, serving=likely).rival == (
        "Next best: one joint network, better with a probability of 0.40."
    )


def test_where_the_joint_network_serves_there_is_a_next_best_choice_only():
    rows = make_rows({**LEVELS, "joint": {"a": 0.3, "b": 0.2, "c": 0.4}})
    found = conclusion(make_affinity(TASKS), GROUPING, rows, serving=guard_groups(GROUPING, rows))
    assert found.gain == "" and found.rival.startswith("Next best: ")
    # Of one seed, neither is known.
    rows = make_rows(seeds=(0,))
    found = conclusion(make_affinity(TASKS), GROUPING, rows, serving=guard_groups(GROUPING, rows))
    assert found.gain == found.rival == ""
