"""What the results say in words, each number against a computation of its own."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats
from report_cases import ABC, ABC_GROUPING, make_affinity, make_grouping, rows_with_totals

from tag_keras.affinity import Affinity
from tag_keras.comparison.conclusion import conclusion
from tag_keras.results import Row


def conclude(affinity=None, **totals):
    affinity = affinity or make_affinity(ABC)
    return conclusion(affinity, make_grouping(**ABC_GROUPING), rows_with_totals(**totals))


def test_grouping_wins_beyond_the_noise():
    # Paired differences joint - grouped: .1, .2, .3; mean .2, deviation .1, two standard errors
    # 2 * .1 / sqrt(3) = .1155. Student's t with 2 degrees of freedom: P(|t| > 2) = .1835.
    found = conclude(joint=[1.0, 1.2, 1.4], grouped=[0.9, 1.0, 1.1], single=[2.0, 2.2, 2.4])
    assert (found.winner, found.advised) == ("grouped", "grouped")
    assert found.verdict == (
        "Grouping paid: the grouping has the lowest total test loss; the difference from one "
        "joint network and one network per task is beyond the noise."
    )
    assert found.advice == "Use the grouping (2 networks)."
    assert found.numbers == (
        "Total test loss (mean ± standard deviation over 3 seeds): one joint network 1.20 ± 0.20, "
        "one network per task 2.20 ± 0.20, the grouping 1.00 ± 0.10. Above the lowest, paired by "
        "seed (mean ± two standard errors): one joint network by 0.20 ± 0.12, one network per "
        "task by 1.20 ± 0.12. With 3 seeds, chance alone passes two standard errors in 18 % of "
        "cases."
    )
    assert found.chosen == (
        "Chosen: 2 networks for 3 tasks: group_0 serves a and b; group_1 serves c, helped by b."
    )


@pytest.mark.parametrize(
    ("num_served", "words"),
    [
        (None, "2 networks"),
        (2, "2 networks"),
        (4, "2 networks; 4 serve, as the guard moved tasks"),
        (1, "2 networks; 1 serves, as the guard moved tasks"),
    ],
)
def test_the_advice_says_how_many_networks_are_served(num_served, words):
    rows = rows_with_totals(joint=[1.0, 1.2, 1.4], grouped=[0.9, 1.0, 1.1])
    grouping = make_grouping(**ABC_GROUPING)
    found = conclusion(make_affinity(ABC), grouping, rows, num_served=num_served)
    assert found.advice == f"Use the grouping ({words})."
    # Of other kinds, nothing was moved.
    rows = rows_with_totals(joint=[0.9, 1.0, 1.1], grouped=[1.0, 1.2, 1.4])
    found = conclusion(make_affinity(ABC), grouping, rows, num_served=num_served)
    assert found.advice == "Use one joint network."


def test_joint_wins():
    found = conclude(joint=[0.9, 1.0, 1.1], grouped=[1.0, 1.2, 1.4], single=[2.0, 2.2, 2.4])
    assert (found.winner, found.advised) == ("joint", "joint")
    assert found.verdict.startswith("Grouping did not pay: one joint network has the lowest")
    assert found.advice == "Use one joint network."


def test_single_wins():
    found = conclude(joint=[2.0, 2.2, 2.4], grouped=[1.0, 1.2, 1.4], single=[0.9, 1.0, 1.1])
    assert (found.winner, found.advised) == ("single", "single")
    assert found.verdict.startswith("Sharing did not pay: one network per task has the lowest")
    assert found.advice == "Use one network per task (3 networks)."


def test_within_the_noise_the_fewest_networks_are_advised():
    # Paired differences joint - grouped: -.1, .1, .3; mean .1, two standard errors .2309.
    found = conclude(joint=[0.9, 1.1, 1.3], grouped=[1.0, 1.0, 1.0], single=[2.0, 2.2, 2.4])
    assert (found.winner, found.advised) == ("grouped", "joint")
    assert found.verdict == (
        "No clear winner: the grouping has the lowest total test loss, but one joint network is "
        "within the noise; the difference from one network per task is beyond it."
    )
    assert found.advice.startswith("Use one joint network: of those within the noise")


def test_all_within_the_noise():
    found = conclude(joint=[0.9, 1.1, 1.3], grouped=[1.3, 1.1, 0.9], single=[1.2, 1.0, 1.0])
    assert found.winner == "single"
    assert found.advised == "joint"
    assert "one joint network and the grouping are within the noise." in found.verdict


def test_the_noise_is_of_paired_differences():
    # Each kind varies by far more than the differences between them, which are all alike.
    found = conclude(joint=[1.0, 2.0, 3.0], grouped=[0.99, 1.99, 2.99])
    assert found.verdict.startswith("Grouping paid")


def test_equal_totals_are_within_the_noise():
    found = conclude(joint=[1.0, 2.0, 3.0], grouped=[1.0, 2.0, 3.0])
    assert found.verdict.startswith("No clear winner: one joint network")
    assert found.advised == "joint"


@pytest.mark.parametrize(("seeds", "words"), [(1, "1 seed "), (2, "2 seeds ")])
def test_with_few_seeds_the_noise_is_not_known(seeds, words):
    found = conclude(joint=[1.2, 1.3][:seeds], grouped=[1.0, 1.05][:seeds])
    assert (found.winner, found.advised) == ("grouped", None)
    assert found.verdict == (
        f"The grouping has the lowest total test loss, but with {words}the noise is not known."
    )
    assert found.advice == "Train at least 3 seeds of each kind before you choose."
    assert "two standard errors" not in found.numbers
    if seeds == 1:
        assert found.numbers == (
            "Total test loss (one seed): one joint network 1.2, the grouping 1."
        )


def test_without_joint_network_nothing_is_said_to_have_paid():
    found = conclude(grouped=[0.9, 1.0, 1.1], single=[1.0, 1.2, 1.4])
    assert found.verdict.startswith("The grouping has the lowest total test loss; the difference")


def test_only_one_kind_and_none():
    found = conclude(joint=[1.0, 1.1, 1.2])
    assert (found.winner, found.advised) == ("joint", None)
    assert found.verdict.startswith("Only one joint network has complete test losses")
    rows = [dataclasses.replace(row, split="validation") for row in rows_with_totals(joint=[1.0])]
    found = conclusion(make_affinity(ABC), make_grouping(**ABC_GROUPING), rows)
    assert (found.winner, found.numbers) == (None, "")
    assert found.verdict.startswith("No kind of network has a complete set")


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
    found = conclusion(Affinity(["a"], [[0.2]]), grouping, rows)
    assert "With one task there are no affinities between tasks." in found.trust


def test_many_tasks_are_not_listed():
    tasks = [f"t{index}" for index in range(13)]
    grouping = make_grouping(tasks, (tasks[:7], tasks[7:]))
    rows = [Row("joint", tuple(tasks), 0, task, "test", 1.0, {}, 1.0) for task in tasks]
    found = conclusion(make_affinity(tasks), grouping, rows)
    assert found.chosen == "Chosen: 2 networks for 13 tasks, listed below."
