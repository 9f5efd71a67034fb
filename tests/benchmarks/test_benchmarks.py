"""The benchmarks: what they compare with, what they draw, and that they train what they say."""

import itertools
import json
import subprocess
import sys
import types

import digits_eagerly
import keras
import numpy as np
import pytest
from selection_oracle import score_in_group, search_exhaustively

import tag_keras
from benchmarks import measuring, memory, method_cost, selection, stack_cost, study_cost
from benchmarks.original_selection import original_groups, original_selection
from benchmarks.plain_program import plain_program
from tag_keras.study.methods import METHODS


@pytest.mark.parametrize("kind", selection.KINDS)
@pytest.mark.parametrize(("num_tasks", "num_groups"), [(4, 1), (4, 3), (5, 2), (5, 3)])
def test_the_originals_algorithm_finds_what_ours_finds(kind, num_tasks, num_groups):
    affinity = selection.make_affinity(kind, num_tasks, seed=0)
    ours = tag_keras.select_groups(affinity, num_groups)
    score, family = original_selection(affinity, num_groups)
    assert score == pytest.approx(ours.score, rel=1e-12)
    assert score == pytest.approx(search_exhaustively(affinity.mean, num_groups, "forbid")[-1][0])
    # No ties: there is one best family, but for groups that serve nobody.
    assert {"|".join(group) for group in ours.groups} <= set(family)
    assert len(family) <= num_groups


def test_the_original_lists_single_tasks_after_the_groups_that_begin_with_them():
    affinity = selection.make_affinity("noise", 3, seed=0)
    a, b, c = affinity.tasks
    groups = original_groups(affinity)
    wanted = [f"{a}|{b}", f"{a}|{b}|{c}", f"{a}|{c}", a, f"{b}|{c}", b, c]
    assert list(groups) == wanted
    assert groups[a] == {a: -1e6}
    scores = [score_in_group(affinity.mean, (0, 1, 2), task) for task in range(3)]
    assert list(groups[f"{a}|{b}|{c}"].values()) == pytest.approx(scores)


@pytest.mark.parametrize("kind", selection.KINDS)
@pytest.mark.parametrize("num_tasks", [2, 9, 40])
def test_instances_are_drawn_from_their_seed(kind, num_tasks):
    mean = selection.make_affinity(kind, num_tasks, seed=1).mean
    assert mean.shape == (num_tasks, num_tasks)
    assert np.isfinite(mean).all()
    assert not mean.diagonal().any()
    assert np.array_equal(mean, selection.make_affinity(kind, num_tasks, seed=1).mean)
    assert not np.array_equal(mean, selection.make_affinity(kind, num_tasks, seed=2).mean)


def test_kinds_are_what_they_are_called():
    random = np.random.default_rng(0)
    low_rank = selection.draw_low_rank(random, 40)
    assert np.linalg.matrix_rank(low_rank - low_rank.mean(axis=0)) == 3
    # Of 80 clusters a source helps one, and every fifth source another.
    planted = selection.draw_planted(random, 400)
    assert planted.mean() == pytest.approx(1.2 / 80, abs=0.004)
    assert selection.draw_noise(random, 400).std() == pytest.approx(1, abs=0.01)


def test_one_selection_gives_its_figures(capsys):
    selection.main(["--solve=noise", "--num_tasks=6", "--num_groups=2", "--seeds=3"])
    figures = json.loads(capsys.readouterr().out)
    affinity = selection.make_affinity("noise", 6, seed=3)
    one, two = tag_keras.selection_frontier(affinity, 2)
    assert figures["score"] == two.score
    assert figures["gain"] == pytest.approx(two.score - one.score)
    assert (figures["gap"], figures["proven"]) == (0, 1)
    assert 10 < figures["megabytes"] < 10_000
    selection.main(["--solve=noise", "--num_tasks=6", "--num_groups=6", "--seeds=3"])
    last = tag_keras.selection_frontier(affinity, 6)[-1]
    assert json.loads(capsys.readouterr().out)["score"] == last.score


def test_a_target_is_met_where_it_is_met_every_time():
    targets = {}
    for met in (True, False, True):
        selection.note(targets, "in time", met)
    selection.note(targets, "in memory", True)
    assert targets == {"in time": False, "in memory": True}


def test_steps_are_timed_in_turns():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    # Less than a step takes: one step per turn.
    times, tracing = measuring.time_in_turns(steps, turns=3, seconds=0)
    # Two of each to warm up, and then the turns.
    assert "".join(calls) == "aabb" + "ab" * 3
    assert [values.shape for values in times.values()] == [(3,), (3,)]
    assert list(tracing) == ["a", "b"]


def cells_of(printed):
    """The cells of all lines of tables in Markdown."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_figures_are_shown_as_median_and_spread(capsys):
    ratios = {"plain": np.ones(3), "other": np.array([4.0, 1.0, 2.5])}
    tracing = {"plain": 0.5, "other": 1.5}
    measuring.print_costs("2 tasks", ratios, tracing, {"plain": 0.0, "other": 1234.5})
    measuring.print_costs("3 tasks", ratios, tracing, {})
    title, _, *rows, again, _, _, last = cells_of(capsys.readouterr().out)
    measures = ["CPU time, plain steps", "tracing, CPU s"]
    assert title == ["2 tasks", *measures, "memory, MB over plain"]
    assert rows[0] == ["plain", "1", "0.500", "0"]
    # Three digits, or all before the point.
    assert rows[1] == ["other", "2.50 (1 to 4)", "1.50", "1,234"]
    assert again == ["3 tasks", *measures] and last == ["other", "2.50 (1 to 4)", "1.50"]


def test_a_table_has_a_place_for_each_thing_and_measure(capsys):
    pairs = [("a", "x"), ("b", "y"), ("b", "x")]
    measuring.show("what", [measuring.Figure.of(*pair, 0.01234) for pair in pairs])
    printed = capsys.readouterr().out
    head, _, *rows = cells_of(printed)
    assert head == ["what", "x", "y"] and rows == [["a", "0.0123", ""], ["b", *["0.0123"] * 2]]
    # What follows is no row of it.
    assert printed.endswith("|\n\n")


def test_time_is_cpu_time(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    # Nothing but the CPU time is there to be asked for.
    fake = types.SimpleNamespace(process_time=lambda: clock.now)
    monkeypatch.setattr(measuring, "time", fake)

    def step():
        clock.now += 0.25

    times, tracing = measuring.time_in_turns({"work": step}, 3, seconds=1.0)
    assert times["work"].tolist() == [0.25] * 3 and tracing == {"work": 0.0}
    assert clock.now == (2 + 3 * 4) * 0.25


def test_a_command_that_fails_apart_tells_why():
    assert measuring.run_apart("calendar", ["2000", "1"]).split()[:2] == ["January", "2000"]
    with pytest.raises(RuntimeError, match=r"No module named benchmarks\.nothing"):
        measuring.run_apart("benchmarks.nothing", [])


@pytest.mark.parametrize(
    ("method", "attribute", "wanted"),
    [
        ("equal", "loss_weighting", tag_keras.EqualWeighting),
        ("uw", "loss_weighting", tag_keras.UncertaintyWeighting),
        ("dwa", "loss_weighting", tag_keras.DynamicWeightAverage),
        ("gradnorm", "loss_weighting", tag_keras.GradNorm),
        ("pcgrad", "gradient_method", tag_keras.PCGrad),
        ("upgrad", "gradient_method", tag_keras.UPGrad),
        ("famo", "loss_weighting", tag_keras.FAMO),
        ("selective, tasks alone", "gradient_method", tag_keras.SelectiveTaskGroupUpdates),
        ("selective, 3 groups", "gradient_method", tag_keras.SelectiveTaskGroupUpdates),
    ],
)
def test_a_model_differs_from_plain_ones_by_its_method(method, attribute, wanted):
    model = method_cost.build_model(method, ["a", "b"])
    found = {one: type(getattr(model, one)) for one in ("loss_weighting", "gradient_method")}
    # Of the other one there is none.
    assert found == {**dict.fromkeys(found, type(None)), attribute: wanted}
    assert model.encoder.name == "resnet_encoder"


def test_networks_have_encoders_of_their_own(monkeypatch):
    # MTAN looks between two blocks.
    small = {"input_shape": (8, 8, 3), "depth": (2,), "widths": (4,)}
    monkeypatch.setattr(method_cost, "NETWORK", small)
    names = ("plain", "mtan", "task routing", "mmoe", "cgc", "ple", "cross-stitch")
    searches = ("adashare, weights", "adashare, policy")
    models = [method_cost.build_model(name, ["a", "b"]) for name in (*names, *searches)]
    assert [type(model) is tag_keras.AdaShareModel for model in models] == [False] * 7 + [True] * 2
    assert [model.encoder.name.removesuffix("_encoder") for model in models[:7]] == [
        *("resnet", "mtan", "task_routing", "mmoe", "cgc", "ple", "cross_stitch"),
    ]


@pytest.mark.slow
def test_peak_memory_of_a_method_is_printed(capsys):
    method_cost.main(["--peak_of=equal", "--num_tasks=2"])
    assert 100 < float(capsys.readouterr().out) < 10_000


@pytest.fixture
def small_network(monkeypatch):
    """Networks of one block, for images of 8 pixels, and few images: all that counts is traced."""
    small = {"input_shape": (8, 8, 3), "depth": (1,), "widths": (4,)}
    monkeypatch.setattr(method_cost, "NETWORK", small)
    monkeypatch.setattr(method_cost, "LAST_SHARED", "stage1_block1_second_convolution")
    monkeypatch.setattr(method_cost, "BATCH_SIZE", 4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adashare, weights", "adashare, policy"])
def test_adashare_trains_either_weights_or_policy(method, small_network):
    tasks = ["a", "b"]
    model = method_cost.build_model(method, tasks)
    step = measuring.step_of(model, method_cost.make_batch(tasks))
    values = []
    for _ in range(3):
        step()
        parts = ([model.encoder.policy.logits], model.trainable_variables)
        values.append([np.concatenate([v.numpy().ravel() for v in part]) for part in parts])
    moved = [
        [not np.array_equal(*pair) for pair in zip(*both, strict=True)]
        for both in itertools.pairwise(values)
    ]
    # The first step, before these, is one of the weights in both.
    assert moved == [[method.endswith("policy"), method.endswith("weights")]] * 2


@pytest.mark.slow
def test_selective_updates_form_the_planted_groups_after_every_batch(small_network):
    pytest.importorskip("sklearn")
    tasks = list("abcdef")
    model = method_cost.build_model("selective, 3 groups", tasks)
    # So that the groups are formed, and not only kept.
    model.gradient_method.assignment.assign(np.arange(6.0))
    step = measuring.step_of(model, method_cost.make_batch(tasks))
    for number in (1, 2):
        step()
        assert model.gradient_method.groups == (tuple("ad"), tuple("be"), tuple("cf"))
        assert int(model.gradient_method.grouped_at.numpy()) == number


@pytest.mark.slow
def test_the_quick_run_has_a_row_for_every_method(capsys, monkeypatch, small_network):
    def one_turn(steps, turns, seconds):
        return measuring.time_in_turns(steps, 1, seconds)

    monkeypatch.setattr(method_cost, "time_in_turns", one_turn)
    build = method_cost.build_model

    def build_model(method, tasks):
        # MTAN looks between two blocks.
        monkeypatch.setitem(method_cost.NETWORK, "depth", (2 if method == "mtan" else 1,))
        # Eager steps are made sooner than a graph; one method shows that there is one.
        model = build(method, tasks)
        model.run_eagerly = method != "plain"
        return model

    monkeypatch.setattr(method_cost, "build_model", build_model)
    method_cost.main(["--quick"])
    printed = capsys.readouterr().out
    title, _, *rows = cells_of(printed)
    assert title[0] == "3 tasks"
    # With three tasks, three groups are the tasks alone.
    wanted = [name for name in method_cost.METHODS if name != "selective, 3 groups"]
    assert [row[0] for row in rows] == wanted
    assert all(float(row[1].split()[0]) > 0 for row in rows)
    assert printed.strip().splitlines()[-1].startswith("A plain step takes ")


@pytest.mark.slow
def test_the_cost_of_choosing_is_printed_in_times_of_tag(capsys, monkeypatch):
    digits_eagerly.patch(monkeypatch)
    # Without Adam's slots, as its eager steps take most of the time of these.
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
    monkeypatch.setattr(study_cost.network, "build_model", digits_eagerly.build_model)
    monkeypatch.setattr(study_cost, "STEPS_PER_EPOCH", 2)
    monkeypatch.setattr(study_cost, "TASKS", study_cost.TASKS[:2])
    monkeypatch.setattr(sys, "argv", ["study_cost", "--quick"])
    study_cost.main()
    rows = cells_of(capsys.readouterr().out)[2:]
    # Of two tasks: one joint training; two single tasks and a pair, which are all groups.
    assert [row[:2] for row in rows] == [["tag", "1"], ["hoa", "3"], ["optimal", "3"]]
    assert rows[0][3] == "1"


def test_what_is_trained_to_choose_among_three_tasks():
    # One joint training; three single tasks and three pairs; all seven groups.
    chosen = [METHODS[method].networks(study_cost.TASKS[:3]) for method in study_cost.METHODS]
    assert [len(networks) for networks in chosen] == [1, 6, 7]


@pytest.mark.parametrize("kind", [memory.PLAIN, memory.MEASURING])
def test_memory_is_measured_for_each_network_but_the_first(kind, monkeypatch):
    trained = []
    monkeypatch.setattr(memory, "train", lambda *given: trained.append(given[:3]))
    sizes = iter([9.0, 7.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr(memory, "resident_megabytes", lambda: next(sizes))
    assert memory.growth(kind, width=4, networks=2) == [1.0, 2.0]
    assert trained == [(kind, 4, seed) for seed in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "memory.train = lambda *_: memory.keras.utils.clear_session; memory.growth('', 4, 1)",
        "study_cost.METHODS = (); study_cost.main(); study_cost.keras.utils.clear_session",
    ],
)
def test_keras_is_loaded_as_a_whole(code):
    # In a process of its own, where nothing has loaded it before.
    name = code.partition(".")[0]
    command = [sys.executable, "-c", f"from benchmarks import {name}; {code}"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
def test_a_stack_is_timed_beside_a_sample_of_its_networks(monkeypatch, capsys):
    # Without Adam's slots, as it takes most of the time to trace their training.
    monkeypatch.setattr(keras.optimizers, "Adam", keras.optimizers.SGD)
    small = ((3,), 2, lambda: [keras.layers.Dense(2)])
    monkeypatch.setattr(stack_cost, "KINDS", {"small": small})
    together = stack_cost.train("small", stack=True, seeds=2, sample=0)
    assert together["networks"] == 6
    assert stack_cost.train("small", stack=False, seeds=2, sample=1)["networks"] == 1
    figures = iter([{**together, "each": 0.5}, {**together, "each": 2.0}])
    monkeypatch.setattr(stack_cost, "apart", lambda *_: next(figures))
    monkeypatch.setattr("sys.argv", ["stack_cost", "--kinds", "small", "--turns", "1"])
    stack_cost.main()
    assert cells_of(capsys.readouterr().out)[2] == ["small", "6", "4", "0.500", "0"]


def test_the_plain_program_scores_what_selection_does():
    for costs in selection.COSTS:
        table, budget = selection.make_table(4, costs, seed=0)
        assert len(table.networks) == 15 and len(set(table.costs)) > 1
        chosen = tag_keras.select_networks(table, budget, "max")
        assert plain_program(table, budget) == pytest.approx(chosen.score, abs=1e-7)
