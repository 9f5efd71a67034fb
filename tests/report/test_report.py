"""The report: its words, its figures and its numbers, each against a computation of its own."""

import dataclasses
import html.parser
import importlib
import itertools
import re
import statistics
import sys

import matplotlib.colors
import matplotlib.pyplot
import numpy as np
import pytest
import scipy.stats

from tag_keras.affinity import Affinity
from tag_keras.comparison.guard import guard_groups
from tag_keras.report import report
from tag_keras.report.tables import costs_table
from tag_keras.results import Row
from tag_keras.selection.grouping import Grouping

TASKS = (
    "is_even",
    "at_least_five",
    "prime",
    "has_loop",
    "multiple_of_three",
    "left_heavy",
    "a<b>",
    "slant",
    "height",
)
GROUPS = (
    ("is_even", "prime", "multiple_of_three", "a<b>"),
    ("at_least_five", "has_loop", "height"),
    ("left_heavy", "a<b>", "slant"),
)
SERVES = {task: index for index, group in enumerate(GROUPS) for task in group}
METRIC_TASKS = ("prime", "has_loop")
MINUS = "\N{MINUS SIGN}"


def make_affinity(tasks=TASKS, epochs=12, **changes):
    generator = np.random.default_rng(0)
    size = len(tasks)
    mean = generator.normal(0.01, 0.02, (size, size)) + 0.2 * np.eye(size)
    noise = generator.normal(0, 0.005, (epochs, size, size))
    decay = np.exp(-np.arange(epochs) / 6)[:, None, None]
    fields = {
        "mean": mean,
        "standard_error": generator.uniform(0.002, 0.01, (size, size)),
        "count": np.full((size, size), 216),
        "history": mean * (0.5 + decay) + noise,
        "skipped": np.zeros((size, size)),
    }
    return Affinity(tasks, **(fields | changes))


def make_grouping(tasks=TASKS, groups=GROUPS, serves=None, **changes):
    serves = serves or {task: index for index, group in enumerate(groups) for task in group}
    fields = {"score": 0.02, "upper_bound": 0.02, "optimal": True}
    return Grouping(tasks, groups, serves, **(fields | changes))


def make_rows(seeds=3):
    """Rows of every kind of network on both splits, and of the training that measured."""
    generator = np.random.default_rng(1)
    level = dict(zip(TASKS, generator.uniform(0.05, 0.6, len(TASKS)), strict=True))
    networks = {"joint": (TASKS, 0.0), "affinity": (TASKS, 0.0)}
    networks |= {f"single_{task}": ((task,), 0.03) for task in TASKS}
    networks |= {f"group_{index}": (group, -0.02) for index, group in enumerate(GROUPS)}
    rows = []
    for network, (tasks, shift) in networks.items():
        for seed in range(1 if network == "affinity" else seeds):
            for task in tasks:
                for split in ("validation", "test"):
                    loss = level[task] + shift + generator.normal(0, 0.003)
                    metrics = {"accuracy": 1 - loss / 3} if task in METRIC_TASKS else {}
                    seconds = 60.0 if network == "affinity" else 10.0 + len(tasks)
                    rows.append(Row(network, tasks, seed, task, split, loss, metrics, seconds))
    return rows


# A smaller problem with totals that are easy to work out: the helper is b in group_1.
ABC = ("a", "b", "c")
ABC_GROUPING = {
    "tasks": ABC,
    "groups": (("a", "b"), ("b", "c")),
    "serves": {"a": 0, "b": 0, "c": 1},
}


def rows_with_totals(**totals):
    """Rows of the kinds of networks whose test losses over a, b, c sum to the given totals."""
    networks = {
        "joint": {"joint": ABC},
        "single": {f"single_{task}": (task,) for task in ABC},
        "grouped": {"group_0": ("a", "b"), "group_1": ("b", "c")},
    }
    return [
        Row(network, tasks, seed, task, "test", total * share, {}, 1.0)
        for kind, values in totals.items()
        for seed, total in enumerate(values)
        for network, tasks in networks[kind].items()
        for task, share in zip(ABC, (0.5, 0.25, 0.25), strict=True)
        if task in tasks
    ]


def conclude(affinity=None, **totals):
    affinity = affinity or make_affinity(ABC)
    return report.conclusion(affinity, make_grouping(**ABC_GROUPING), rows_with_totals(**totals))


# The words.


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
    found = report.conclusion(make_affinity(ABC), make_grouping(**ABC_GROUPING), rows)
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
    trust = report.conclusion(
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
    trust = report.conclusion(affinity, grouping, rows).trust
    assert trust.startswith(f"{number} of the 30 comparisons")
    assert ("few: another run may choose other groups." in trust) == warns


@pytest.mark.parametrize(
    ("error", "number", "warns"), [(0.1, 1, False), (1.0, 0, True), (0.01, 2, False)]
)
def test_trust_of_two_tasks_looks_at_what_is_different_from_0(error, number, warns):
    affinity = Affinity(["a", "b"], [[9, 0.3], [-0.1, 9]], np.full((2, 2), error))
    rows = [Row("joint", ("a", "b"), 0, task, "test", 1.0, {}, 1.0) for task in "ab"]
    trust = report.conclusion(affinity, make_grouping(("a", "b"), (("a", "b"),)), rows).trust
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
    found = report.conclusion(make_affinity(ABC), grouping, rows_with_totals(joint=[1.0]))
    assert found.trust.endswith(
        "The selection is not proven optimal: its score is 0.25, and no choice of as many groups "
        "scores more than 0.5."
    )


def test_one_group_is_the_joint_network():
    grouping = make_grouping(ABC, (ABC,))
    found = report.conclusion(make_affinity(ABC), grouping, rows_with_totals(joint=[1.0]))
    # Trained again or not: `experiment.run` does not.
    assert found.chosen == "Chosen: 1 network for 3 tasks: a joint network."


def test_trust_names_the_affinities_that_groups_were_selected_by():
    rows = rows_with_totals(joint=[1.0])
    found = report.conclusion(make_affinity(ABC), make_grouping(**ABC_GROUPING), rows, True)
    assert found.trust.endswith("The selection is provably optimal for the anchored affinities.")
    # Of two tasks, the anchored affinities are what the joint network gained.
    two = ("a", "b")
    rows = [Row("joint", two, 0, task, "test", 1.0, {}, 1.0) for task in two]
    found = report.conclusion(make_affinity(two), make_grouping(two, (two,)), rows, True)
    assert found.trust.startswith("With two tasks the affinities take no part in the selection: ")


def test_one_task():
    grouping = make_grouping(("a",), (("a",),))
    rows = [Row("joint", ("a",), 0, "a", "test", 0.0, {}, 1.0)]
    found = report.conclusion(Affinity(["a"], [[0.2]]), grouping, rows)
    assert "With one task there are no affinities between tasks." in found.trust


def test_many_tasks_are_not_listed():
    tasks = [f"t{index}" for index in range(13)]
    grouping = make_grouping(tasks, (tasks[:7], tasks[7:]))
    rows = [Row("joint", tuple(tasks), 0, task, "test", 1.0, {}, 1.0) for task in tasks]
    found = report.conclusion(make_affinity(tasks), grouping, rows)
    assert found.chosen == "Chosen: 2 networks for 13 tasks, listed below."


# The figures.


def texts_of(axes):
    return {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}


def test_heat_map_has_sources_in_rows():
    mean = [[0.9, 0.0421, -0.013], [0.011, 0.8, 0.0012], [-0.02, 0.005, 0.7]]
    error = np.full((3, 3), 0.0021)
    axes = report.plot_affinity(make_affinity(ABC, mean=mean, standard_error=error)).axes[0]
    cells = texts_of(axes)
    assert len(cells) == 9
    # Keys are (column, row): source a, target b.
    assert cells[1, 0] == "42.1\n±2.1"
    assert cells[0, 1] == "11.0\n±2.1"
    assert cells[2, 0] == f"{MINUS}13.0\n±2.1"
    # Its interval contains 0.
    assert cells[2, 1] == "(1.2)\n±2.1"
    assert cells[0, 0] == "900.0\n±2.1"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(ABC)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ABC)
    assert "target" in axes.get_xlabel()
    assert "source" in axes.get_ylabel()


def test_heat_map_puts_what_student_t_does_not_tell_from_0_in_parentheses():
    # Mean 0.5 and standard error 0.2: 2.5 of it. Of 4 replicates 3.18 would be needed at 95 %.
    error = np.full((2, 2), 0.2)
    mean = np.full((2, 2), 0.5)
    for replicates, text in ((None, "500\n±200"), (np.full((4, 2, 2), 0.5), "(500)\n±200")):
        affinity = Affinity(["a", "b"], mean, error, replicates=replicates)
        cell = texts_of(report.plot_affinity(affinity).axes[0])[1, 0]
        assert re.sub(r"\.0+", "", cell) == text


def test_heat_map_colours_leave_out_the_diagonal():
    figure = report.plot_affinity(make_affinity(ABC, mean=np.eye(3) * 0.9 - 0.05))
    image = figure.axes[0].images[-1]
    assert image.get_clim() == pytest.approx((-50, 50))
    shown = np.ma.getmaskarray(np.ma.masked_invalid(image.get_array()))
    np.testing.assert_array_equal(shown, np.eye(3, dtype=bool))
    # Negative is red, positive blue.
    red, _, blue, _ = image.cmap(image.norm(-50))
    assert red > blue
    assert "10⁻³" in figure.axes[1].get_ylabel()


def test_heat_map_without_errors_and_with_a_pair_not_measured():
    mean = [[0.9, 2.0, np.nan], [1.0, 0.8, 0.5], [-3.0, 0.5, 0.7]]
    count = np.where(np.isnan(mean), 0, 5)
    cells = texts_of(report.plot_affinity(Affinity(ABC, mean, count=count)).axes[0])
    assert cells[2, 0] == "not\nmeasured"
    assert cells[0, 2] == f"{MINUS}3.00"


@pytest.mark.parametrize(("size", "cells"), [(1, 1), (2, 4), (12, 144), (13, 0)])
def test_heat_map_omits_numbers_that_do_not_fit(size, cells):
    tasks = [f"a_long_name_of_a_task_{index}" for index in range(size)]
    assert len(report.plot_affinity(make_affinity(tasks)).axes[0].texts) == cells


def test_grouping_diagram_has_a_line_for_each_member():
    grouping = make_grouping(**ABC_GROUPING)
    mean = [[0.9, 0.01, 0.0], [0.02, 0.9, 0.03], [0.0, 0.04, 0.9]]
    axes = report.plot_grouping(grouping, Affinity(ABC, mean)).axes[0]
    ticks = dict(
        zip([t.get_text() for t in axes.get_yticklabels()], axes.get_yticks(), strict=True)
    )
    networks = {
        text.get_text().split("\n")[0]: text.get_position()[1]
        for text in axes.texts
        if text.get_text().startswith("group_")
    }
    lines = {(*map(float, line.get_ydata()), line.get_linestyle()) for line in axes.lines}
    assert lines == {
        (ticks["a"], networks["group_0"], "-"),
        (ticks["b"], networks["group_0"], "-"),
        (ticks["b"], networks["group_1"], "--"),
        (ticks["c"], networks["group_1"], "-"),
    }
    words = [text.get_text() for text in axes.texts]
    # a gets b -> a, b gets a -> b, c gets b -> c, in thousandths.
    assert [word for word in words if word[0] in "+" + MINUS] == ["+20", "+10", "+30"]
    assert "group_0\nserves 2" in words
    assert "group_1\nserves 1, helped by 1" in words


def test_grouping_diagram_says_whether_its_numbers_are_means_or_sums():
    # a gets .2 from b and .4 from c; b -.1 and .2; c .3 and .3.
    mean = [[0.9, -0.1, 0.3], [0.2, 0.9, 0.3], [0.4, 0.2, 0.9]]
    grouping = make_grouping(ABC, (ABC,))
    numbers = {"mean": ["+300", "+50", "+300"], "sum": ["+600", "+100", "+600"]}
    words = {"mean": "mean affinity", "sum": "sum of the affinities"}
    for score, expected in numbers.items():
        figure = report.plot_grouping(grouping, Affinity(ABC, mean), score)
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert [text for text in texts if text[0] in "+" + MINUS] == expected
        assert figure.legends[0].get_texts()[0].get_text() == (
            f"served by ({words[score]} from its group, in units of 10⁻³)"
        )
    with pytest.raises(ValueError, match='`score` should be "mean" or "sum"'):
        report.plot_grouping(grouping, Affinity(ABC, mean), "total")


def test_grouping_diagram_of_lone_tasks_and_idle_networks():
    grouping = make_grouping(ABC, (("a",), ("b", "c"), ("a", "c")), {"a": 0, "b": 1, "c": 1})
    axes = report.plot_grouping(grouping, make_affinity(ABC)).axes[0]
    words = [text.get_text() for text in axes.texts]
    assert "alone" in words
    assert "group_2\nserves 0, helped by 2" in words


def test_history_has_a_panel_for_each_target():
    affinity = make_affinity()
    figure = report.plot_history(affinity)
    assert [axes.get_title() for axes in figure.axes] == list(TASKS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(TASKS)
    panel = figure.axes[2]
    curves = [line for line in panel.lines if len(line.get_xdata()) == 12]
    # Every source but the target itself, in order.
    assert len(curves) == len(TASKS) - 1
    np.testing.assert_allclose(curves[0].get_ydata(), 1000 * affinity.history[:, 0, 2])
    np.testing.assert_array_equal(curves[0].get_xdata(), np.arange(1, 13))


def test_history_colours_tell_twelve_sources_apart():
    figure = report.plot_history(make_affinity([f"t{index}" for index in range(12)]))
    handles = figure.legends[0].legend_handles
    assert len({(handle.get_color(), handle.get_linestyle()) for handle in handles}) == 12


def test_history_leaves_gaps():
    history = np.array(make_affinity(ABC).history)
    history[3, 0, 1] = np.nan
    history[:, 2, 1] = np.nan
    history[:, :, 2] = np.nan
    figure = report.plot_history(make_affinity(ABC, history=history))
    curves = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 12]
    assert len(curves) == 1
    assert np.isnan(curves[0].get_ydata()[3])
    assert [text.get_text() for text in figure.axes[2].texts] == ["not measured"]


def test_no_history():
    assert report.plot_history(make_affinity(ABC, epochs=0)) is None
    assert report.plot_history(make_affinity(ABC, history=np.full((2, 3, 3), np.nan))) is None
    assert report.plot_history(make_affinity(["a"])) is None


def test_comparison_figure():
    changes = {
        "single": np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [0.05, 0.05, 0.05]]),
        "grouped": np.array([[-0.1, -0.2, -0.3], [0.0, 0.1, 0.2], [-0.01, 0.0, 0.01]]),
    }
    figure = report.plot_comparison(["x", "_y$z$"], changes)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "_y$z$", "total"]
    single, grouped = (container.lines[0] for container in axes.containers)
    np.testing.assert_allclose(single.get_xdata(), [20, 0, 5])
    np.testing.assert_allclose(grouped.get_xdata(), [-20, 10, 0], atol=1e-12)
    # The two lie on either side of the name.
    heights = np.array([single.get_ydata(), grouped.get_ydata()])
    np.testing.assert_allclose(heights.mean(axis=0), axes.get_yticks())
    # Two standard errors of x: 2 * 10 % / sqrt(3) = 11.547 %.
    low, high = axes.containers[1].lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((-31.547, -8.453), abs=1e-3)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["joint network", "one network per task", "groups"]
    colours = [matplotlib.colors.to_hex(line.get_color()) for line in (single, grouped)]
    assert colours == ["#d55e00", "#009e73"]


def test_comparison_figure_of_one_seed_has_no_bars():
    figure = report.plot_comparison(["x"], {"grouped": np.array([[0.1], [0.2]])})
    assert not figure.axes[0].containers[0].has_xerr
    # A kind on its own is level with the names.
    dots = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(dots.get_ydata(), figure.axes[0].get_yticks())


def test_figures_are_not_pyplot_figures():
    report.plot_affinity(make_affinity(ABC))
    assert matplotlib.pyplot.get_fignums() == []


# The page.


class Tables(html.parser.HTMLParser):
    """Tables of a page as lists of lines of cells, each a list of its words."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside, self.resources, self.marked = [], False, [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.resources += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append([])
            self.inside = True
            if attributes.get("class") == "best":
                self.marked.append(
                    (len(self.tables), len(self.tables[-1]), len(self.tables[-1][-1]))
                )

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("th", "td")

    def handle_data(self, data):
        if self.inside and data.strip():
            self.tables[-1][-1][-1].append(" ".join(data.split()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = make_rows()
    # A seed that the groups lack is left out for all, and so are networks of other names.
    rows += [
        Row("joint", TASKS, 7, task, split, 99.0, {"accuracy": 0.0}, 18.0)
        for task in TASKS
        for split in ("validation", "test")
    ]
    rows.append(Row("pcgrad", ("other",), 0, "other", "test", 99.0, {}, 1000.0))
    report.write_report(folder / "report.html", make_affinity(), make_grouping(serves=SERVES), rows)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text("utf-8")


def test_files(folder):
    names = ["affinity.png", "affinity_history.png", "comparison.png", "grouping.png"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "report.html"]
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_page_needs_no_other_file(page):
    resources = Tables(page).resources
    assert len(resources) == 4
    assert all(resource.startswith("data:image/png;base64,") for resource in resources)
    assert not re.search(r"https?://|<script|<link|url\(|@import", page)


def test_page_escapes_names(page):
    assert "a<b>" not in page
    for task in TASKS:
        assert task.replace("<", "&lt;").replace(">", "&gt;") in page


def test_sections_stand_in_order(page):
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Groups",
        "Test loss by task",
        "Change against the joint network",
        "Affinity between tasks",
        "Affinity over epochs",
        "Cost",
        "Words",
    ]
    assert page.index("Grouping paid") < page.index("<h2>")
    assert page.count("<dt>") <= 6
    assert "Left out, because not every kind of network has them: seeds 7." in page


def loss_of(rows, kind, task, seed, value):
    network = {"joint": "joint", "single": f"single_{task}", "grouped": f"group_{SERVES[task]}"}
    found = [
        value(row)
        for row in rows
        if (row.network, row.task, row.seed, row.split) == (network[kind], task, seed, "test")
    ]
    (value,) = found
    return value


def test_every_loss_of_the_table(page):
    rows, table = make_rows(), Tables(page).tables[0]
    assert [cell for (cell,) in table[0]] == [
        "Task",
        "joint network",
        "one network per task",
        "groups",
    ]
    assert len(table) == len(TASKS) + 2
    for line, tasks in zip(table[1:], [*([task] for task in TASKS), TASKS], strict=True):
        assert line[0] == [tasks[0] if len(tasks) == 1 else "Total"]
        losses = {
            kind: [
                sum(loss_of(rows, kind, t, seed, lambda r: r.loss) for t in tasks)
                for seed in range(3)
            ]
            for kind in ("joint", "single", "grouped")
        }
        joint = statistics.mean(losses["joint"])
        for kind, cell in zip(losses, line[1:], strict=True):
            mean = statistics.mean(losses[kind])
            expected = [f"{mean:.4f}", f"± {statistics.stdev(losses[kind]):.4f}"]
            if kind != "joint":
                expected.append(f"{100 * (mean / joint - 1):+.1f} %".replace("-", MINUS))
            assert cell == expected


def test_the_lowest_of_each_line_is_marked(page):
    # Table 1, lines below the head, fourth cell: the groups win everywhere in these rows.
    assert Tables(page).marked == [(1, line, 4) for line in range(2, len(TASKS) + 3)]


def test_every_metric_of_the_table(page):
    rows, table = make_rows(), Tables(page).tables[1]
    assert [line[0] for line in table[1:]] == [[task] for task in METRIC_TASKS]
    for line, task in zip(table[1:], METRIC_TASKS, strict=True):
        assert line[1] == ["accuracy"]
        for kind, cell in zip(("joint", "single", "grouped"), line[2:], strict=True):
            values = [
                loss_of(rows, kind, task, s, lambda r: r.metrics["accuracy"]) for s in range(3)
            ]
            mean, deviation = float(cell[0]), float(cell[1].removeprefix("± "))
            assert mean == pytest.approx(statistics.mean(values), abs=1e-4)
            assert deviation == pytest.approx(statistics.stdev(values), abs=1e-4)


def test_costs_count_each_network_once(page):
    # Seconds are 10 + the number of tasks: joint 19, of which the fourth seed takes 18; groups 14
    # + 13 + 13 = 40 for each of 3 seeds; single 9 * 11 = 99 for each of 3 seeds. The mean of
    # joint is (3 * 19 + 18) / 4 = 18.75.
    lines = [["".join(cell) for cell in line] for line in Tables(page).tables[2]]
    assert lines[1:] == [
        ["Measuring: joint training with probes", "1", "60.0", "3.20"],
        ["Retraining the groups", "9", "120", "6.40"],
        ["Yardstick: joint network", "4", "75.0", "4.00"],
        ["Yardstick: one network per task", "27", "297", "15.84"],
        ["Sum", "41", "552", "29.44"],
    ]
    # (60 + 40) / 18.75
    assert "To measure once and to train each group once takes 5.33 joint trainings." in page


def test_costs_of_a_group_that_is_a_yardstick():
    # By name: tasks and seconds with each of two seeds. group_1 is single_c under another name, as
    # its losses and seconds to the last bit say; group_0 has only as many.
    networks = {
        "affinity": (ABC, 20.0),
        "joint": (ABC, 10.0),
        **{f"single_{task}": ((task,), 4.0) for task in ABC},
        "group_0": (("a", "b"), 7.0),
        "group_1": (("c",), 4.0),
    }
    rows = [
        Row(name, tasks, seed, task, "test", 0.5, {}, seconds + seed)
        for name, (tasks, seconds) in networks.items()
        for seed in (0, 1)
        for task in tasks
    ]
    costs = costs_table(make_grouping(ABC, (("a", "b"), ("c",))), rows)
    found = {line["stage"]: (line["networks"], line["seconds"]) for line in costs["lines"]}
    assert found == {
        "Measuring: joint training with probes": ("2", "41.0"),
        "Retraining the groups": ("2", "15.0"),
        "Yardstick: joint network": ("2", "21.0"),
        "Yardstick: one network per task": ("6", "27.0"),
        "Sum": ("12", "104"),
    }
    # Means over the seeds: 20.5 + 7.5 + 4.5 of 10.5, and with all yardsticks 20.5 + 10.5 + 3 * 4.5
    # + 7.5.
    assert costs["once"] == "3.10"
    costs = costs_table(make_grouping(ABC, (("a", "b"), ("c",))), rows, by_yardsticks=True)
    assert costs["once"] == "4.95"


def write_small(folder, affinity=None, **totals):
    grouping = make_grouping(**ABC_GROUPING)
    path = folder / "report.html"
    report.write_report(path, affinity or make_affinity(ABC), grouping, rows_with_totals(**totals))
    return path.read_text("utf-8")


def test_page_without_other_networks(tmp_path):
    # Left from an earlier report.
    (tmp_path / "comparison.png").write_bytes(b"old")
    page = write_small(tmp_path, make_affinity(ABC, epochs=0), joint=[1.0])
    assert Tables(page).tables[0][0] == [["Task"], ["joint network"]]
    assert "There is no seed with all test losses of: one network per task." in page
    assert "There is no seed with all test losses of: groups." in page
    assert "There is nothing to compare with a joint network." in page
    assert "The affinities have no history over epochs." in page
    assert "joint trainings" not in page
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["affinity.png", "grouping.png"]


def test_page_without_single_networks(tmp_path):
    page = write_small(tmp_path, joint=[1.0, 1.1], grouped=[0.9, 1.2])
    assert Tables(page).tables[0][0] == [["Task"], ["joint network"], ["groups"]]
    assert "test losses of: one network per task" in page
    assert "test losses of: groups" not in page
    assert "two standard errors over 2 seeds, which are too few to know the noise." in page


def test_page_without_joint_network_and_with_a_loss_of_zero(tmp_path):
    page = write_small(tmp_path, single=[0.0], grouped=[0.0])
    assert Tables(page).tables[0][-1] == [["Total"], ["0.000"], ["0.000"]]


def test_a_joint_loss_of_zero_has_no_relative_change(tmp_path):
    page = write_small(tmp_path, joint=[0.0], grouped=[0.5])
    assert Tables(page).tables[0][-1] == [["Total"], ["0.000"], ["0.500"]]


def test_incomplete_seeds_are_left_out(tmp_path):
    rows = rows_with_totals(joint=[1.0, 2.0, 3.0], grouped=[1.0, 2.0, 4.0])
    rows = [row for row in rows if (row.network, row.seed) != ("group_1", 1)]
    path = tmp_path / "report.html"
    report.write_report(path, make_affinity(ABC), make_grouping(**ABC_GROUPING), rows)
    page = path.read_text("utf-8")
    # Seeds 0 and 2: joint (1 + 3) / 2, groups (1 + 4) / 2, deviations sqrt(2) and sqrt(4.5).
    assert Tables(page).tables[0][-1] == [
        ["Total"],
        ["2.00", "± 1.41"],
        ["2.50", "± 2.12", "+25.0 %"],
    ]
    assert "Left out, because not every kind of network has them: seeds 1." in page


def test_title_and_single_task(tmp_path):
    path = tmp_path / "page.html"
    rows = [Row("joint", ("a",), 0, "a", "test", 0.5, {}, 1.0)]
    grouping = make_grouping(("a",), (("a",),))
    report.write_report(path, Affinity(["a"], [[0.2]]), grouping, rows, title="<mine>")
    assert "<h1>&lt;mine&gt;</h1>" in path.read_text("utf-8")


# What is served.


def rows_to_serve():
    """Rows on both splits: b loses 0.4 or more in its group, and joint 0.1 on test data."""
    rows = rows_with_totals(joint=[1.0, 1.1, 1.2], grouped=[0.8, 0.9, 1.0], single=[2.0, 2.1, 2.2])
    return [
        dataclasses.replace(row, split=split, loss=row.loss + worse + joint)
        for split, shift in (("validation", 0.0), ("test", 0.1))
        for row in rows
        for worse in [(0.4 + 0.1 * row.seed) * ((row.network, row.task) == ("group_0", "b"))]
        for joint in [shift * (row.network == "joint")]
    ]


def write_served(folder, rows, grouping=None, serving=None):
    grouping = grouping or make_grouping(**ABC_GROUPING)
    serving = serving or guard_groups(grouping, rows)
    affinity = make_affinity(grouping.tasks)
    report.write_report(folder / "report.html", affinity, grouping, rows, serving=serving)
    return (folder / "report.html").read_text("utf-8")


def test_page_says_what_is_served(tmp_path):
    page = write_served(tmp_path, rows_to_serve())
    # b goes to group_1, which it helps: 0.2, 0.225, 0.25 there, and 0.4, 0.5, 0.6 more here; the
    # mean difference is 0.5, and two standard errors 2 * 0.1 / sqrt(3) = 0.12.
    assert "The guard moved 1 of 3 tasks: b from group_0 to group_1, better there beyond" in page
    moves, served = Tables(page).tables[:2]
    assert [cell for (cell,) in moves[0]] == [
        "Task",
        "From",
        "To",
        "Validation loss",
        "Difference",
        "Test loss",
        "Why",
    ]
    assert [cell for (cell,) in moves[1]] == [
        "b",
        "group_0",
        "group_1",
        "0.725 → 0.225",
        f"{MINUS}0.50 ± 0.12",
        "0.725 → 0.225",
        "Beyond the noise",
    ]
    # The first seed is the best of each. On test data joint has 3 * 0.1 more.
    assert [[cell for (cell,) in line] for line in served[1:]] == [
        ["what is served", "2", "0.8000", "0.8000"],
        ["the groups without the guard", "2", "1.200", "1.200"],
        ["the joint network", "1", "1.000", "1.300"],
        ["one network per task", "3", "2.000", "2.000"],
    ]
    assert re.findall(r"<h2>(.*?)</h2>", page)[:2] == ["Groups", "What is served"]
    assert "there, what is served may be better or worse than another line" in " ".join(
        page.split()
    )


def test_page_of_a_guard_that_looked_at_the_test_data(tmp_path):
    grouping = make_grouping(**ABC_GROUPING)
    assert "took no part" in write_served(tmp_path, rows_to_serve())
    serving = guard_groups(grouping, rows_to_serve(), split="test")
    assert "took no part" not in write_served(tmp_path, rows_to_serve(), grouping, serving)


def test_page_where_the_guard_moved_nothing(tmp_path):
    rows = rows_with_totals(grouped=[0.8, 0.9, 1.0])
    rows += [dataclasses.replace(row, split="validation") for row in rows]
    page = write_served(tmp_path, rows)
    assert "The guard moved no task: each is served by the network of its group." in page
    assert "nor one network per task to compare with, so nothing is guaranteed." in page
    assert [line[0] for line in Tables(page).tables[0][1:]] == [
        ["what is served"],
        ["the groups without the guard"],
    ]
    assert "What is served" not in write_small(tmp_path, joint=[1.0])


def test_what_is_served_comes_from_the_same_groups(tmp_path):
    serving = guard_groups(make_grouping(**ABC_GROUPING), rows_to_serve())
    other = make_grouping(ABC, (("a", "b", "c"),))
    rows = [row for row in rows_to_serve() if not row.network.startswith("group_")]
    with pytest.raises(ValueError, match="`serving` should be of networks for the groups and"):
        write_served(tmp_path, rows, other, serving)
    assert not list(tmp_path.iterdir())


# Errors, all before anything is written.


def check_error(folder, match, affinity=None, grouping=None, rows=None):
    affinity = affinity or make_affinity(ABC)
    grouping = grouping or make_grouping(**ABC_GROUPING)
    rows = rows_with_totals(joint=[1.0]) if rows is None else rows
    with pytest.raises(ValueError, match=match):
        report.write_report(folder / "report.html", affinity, grouping, rows)
    assert not list(folder.iterdir())


def test_no_rows(tmp_path):
    check_error(tmp_path, r"at least one result. Received: rows=\[\]", rows=[])


def test_tasks_of_grouping_and_affinity_disagree(tmp_path):
    check_error(
        tmp_path,
        r"`affinity` and `grouping` should have the same tasks. Only one of them has: \['c', 'd'\]",
        affinity=make_affinity(["a", "b", "d"]),
    )


def test_joint_network_of_other_tasks(tmp_path):
    rows = [Row("joint", ("a", "b", "x"), 4, "a", "test", 1.0, {}, 1.0)]
    match = r"tasks of the network 'joint', seed 4 differ by \['c', 'x'\]. Delete its results"
    check_error(tmp_path, match, rows=rows)


def test_group_of_another_grouping(tmp_path):
    rows = [Row("group_1", ("a", "c"), 0, "a", "test", 1.0, {}, 1.0)]
    check_error(tmp_path, r"'group_1', seed 0 differ by \['a', 'b'\]", rows=rows)


@pytest.mark.parametrize("network", ["group_2", "single_x"])
def test_unknown_network(tmp_path, network):
    rows = [Row(network, ("a",), 0, "a", "test", 1.0, {}, 1.0)]
    match = f"networks for the groups and tasks of `grouping`. Received: the network '{network}'"
    check_error(tmp_path, match, rows=rows)


def test_loss_that_is_not_finite(tmp_path):
    match = "finite losses. Received: inf for 'a' of the network 'joint', seed 0"
    check_error(tmp_path, match, rows=rows_with_totals(joint=[float("inf")]))


def test_no_seed_in_common(tmp_path):
    rows = rows_with_totals(joint=[1.0, 1.0], grouped=[1.0])
    rows = [row for row in rows if (row.network, row.seed) != ("joint", 0)]
    match = r"seed with the test losses of every kind .* \{'joint': \{1\}, 'grouped': \{0\}\}"
    check_error(tmp_path, match, rows=rows)


@pytest.mark.parametrize(
    ("missing", "module"),
    [("matplotlib", "tag_keras.report.plots"), ("jinja2", "tag_keras.report.pages")],
)
def test_missing_package(monkeypatch, missing, module):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=r'pip install "tag_keras\[experiments\]"'):
        importlib.import_module(module)
