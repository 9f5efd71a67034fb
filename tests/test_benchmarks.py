"""The benchmark of network selection: what it compares with, and the instances that it draws."""

import json

import numpy as np
import pytest
from selection_oracle import score_in_group, search_exhaustively

import tag_keras
from benchmarks import selection
from benchmarks.original_selection import original_groups, original_selection


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
    selection.main(["--solve=noise", "--tasks=6", "--groups=2", "--seeds=3"])
    figures = json.loads(capsys.readouterr().out)
    affinity = selection.make_affinity("noise", 6, seed=3)
    one, two = tag_keras.selection_frontier(affinity, 2)
    assert figures["score"] == two.score
    assert figures["gain"] == pytest.approx(two.score - one.score)
    assert (figures["gap"], figures["proven"]) == (0, 1)
    assert 10 < figures["megabytes"] < 10_000
    selection.main(["--solve=noise", "--tasks=6", "--groups=6", "--seeds=3"])
    last = tag_keras.selection_frontier(affinity, 6)[-1]
    assert json.loads(capsys.readouterr().out)["score"] == last.score


def test_a_target_is_met_where_it_is_met_every_time():
    targets = {}
    for met in (True, False, True):
        selection.note(targets, "in time", met)
    selection.note(targets, "in memory", True)
    assert targets == {"in time": False, "in memory": True}
