"""Anchored affinities against the formula pair by pair, and the rule that selects by them.

`experiment.run` tests what `check_options` and `check_affinity` refuse.
"""

import itertools
import statistics

import numpy as np
import pytest

import tag_keras
from tag_keras.results import Row
from tag_keras.selection.anchoring import selection_rule

TASKS = ("a", "b", "c", "d")
JOINT = {"a": 0.6, "b": 1.2, "c": 0.5, "d": 2.0}
SINGLE = {"a": 0.9, "b": 1.0, "c": 0.8, "d": 2.2}


def make_rows(joint=JOINT, single=SINGLE, seed=0, split="validation"):
    rows = [Row("joint", tuple(joint), seed, task, split, joint[task], {}, 1.0) for task in joint]
    return rows + [
        Row(f"single_{task}", (task,), seed, task, split, single[task], {}, 1.0) for task in single
    ]


def random_affinity(seed=0, tasks=TASKS, **options):
    mean = np.random.default_rng(seed).normal(size=(len(tasks),) * 2)
    return tag_keras.Affinity(tasks, mean, **options)


def test_the_formula_pair_by_pair():
    affinity = random_affinity()
    found = tag_keras.anchor_affinity(affinity, make_rows())
    pairs = list(itertools.permutations(range(4), 2))
    above = {
        (i, t): affinity.mean[i, t]
        - statistics.mean(affinity.mean[j, t] for j in {*range(4)} - {t})
        for i, t in pairs
    }
    relative = statistics.pstdev((SINGLE[task] - JOINT[task]) / SINGLE[task] for task in TASKS)
    for i, t in pairs:
        task = TASKS[t]
        scale = relative * SINGLE[task] / statistics.pstdev(above.values())
        expected = (SINGLE[task] - JOINT[task] + scale * above[i, t]) / 3
        assert found.mean[i, t] == pytest.approx(expected)
    assert found.tasks == TASKS
    np.testing.assert_array_equal(np.diag(found.mean), 0)


def test_all_sources_together_give_what_the_joint_network_gained():
    for seed in range(5):
        found = tag_keras.anchor_affinity(random_affinity(seed), make_rows())
        gains = [SINGLE[task] - JOINT[task] for task in TASKS]
        np.testing.assert_allclose(found.mean.sum(axis=0), gains)
        # So the groups expected to be best are never expected to be worse than the joint network,
        # or than networks of one task.
        for number in range(1, 5):
            score = tag_keras.select_groups(found, number, "baseline", score="sum").score
            assert score >= np.mean(gains) - 1e-12
        assert score >= 0


def test_neither_scale_nor_level_of_affinities_counts():
    affinity = random_affinity()
    level = np.random.default_rng(1).normal(size=4)
    other = tag_keras.Affinity(TASKS, 7 * affinity.mean + level)
    np.testing.assert_allclose(
        tag_keras.anchor_affinity(other, make_rows()).mean,
        tag_keras.anchor_affinity(affinity, make_rows()).mean,
    )


def test_what_a_task_does_to_itself_does_not_count():
    mean = random_affinity().mean
    for diagonal in (np.nan, 1e15):
        other = tag_keras.Affinity(
            TASKS, np.where(np.eye(4), diagonal, mean), count=1 - np.eye(4, dtype=int)
        )
        np.testing.assert_allclose(
            tag_keras.anchor_affinity(other, make_rows()).mean,
            tag_keras.anchor_affinity(random_affinity(), make_rows()).mean,
        )


def test_of_several_seeds_the_mean_counts():
    doubled = [{task: 2 * loss for task, loss in losses.items()} for losses in (JOINT, SINGLE)]
    rows = make_rows() + make_rows(*doubled, seed=1)
    halves = [{task: 1.5 * loss for task, loss in losses.items()} for losses in (JOINT, SINGLE)]
    np.testing.assert_allclose(
        tag_keras.anchor_affinity(random_affinity(), rows).mean,
        tag_keras.anchor_affinity(random_affinity(), make_rows(*halves)).mean,
    )


def test_losses_of_other_splits_do_not_count():
    others = make_rows(SINGLE, JOINT)
    rows = make_rows(split="held out")
    expected = tag_keras.anchor_affinity(random_affinity(), make_rows()).mean
    found = tag_keras.anchor_affinity(random_affinity(), [*others, *rows], split="held out").mean
    np.testing.assert_array_equal(found, expected)


def test_what_tasks_gain_alike_leaves_nothing_to_affinities():
    joint = {task: 0.8 * loss for task, loss in SINGLE.items()}
    found = tag_keras.anchor_affinity(random_affinity(), make_rows(joint))
    expected = np.tile([0.2 * SINGLE[task] / 3 for task in TASKS], (4, 1))
    np.testing.assert_allclose(found.mean, np.where(np.eye(4), 0, expected), atol=1e-12)
    # Nor is there anything to tell apart where all affinities are the same, or of two tasks.
    same = tag_keras.Affinity(TASKS, np.ones((4, 4)))
    found = tag_keras.anchor_affinity(same, make_rows())
    expected = np.tile([(SINGLE[task] - JOINT[task]) / 3 for task in TASKS], (4, 1))
    np.testing.assert_allclose(found.mean, np.where(np.eye(4), 0, expected), atol=1e-12)


def test_one_task_and_two():
    for number in (1, 2):
        tasks = TASKS[:number]
        rows = make_rows(*({task: losses[task] for task in tasks} for losses in (JOINT, SINGLE)))
        found = tag_keras.anchor_affinity(random_affinity(tasks=tasks), rows).mean
        np.testing.assert_allclose(found, [[0]] if number == 1 else [[0, -0.2], [0.3, 0]])


def test_noise_is_that_of_the_affinities():
    replicates = np.random.default_rng(2).normal(size=(6, 4, 4))
    affinity = tag_keras.Affinity(TASKS, replicates.mean(axis=0), replicates=replicates)
    found = tag_keras.anchor_affinity(affinity, make_rows())
    np.testing.assert_allclose(found.replicates.mean(axis=0), found.mean, atol=1e-12)
    # The formula is linear in the affinities: their differences grow by one factor per target.
    factor = (found.mean[1] - found.mean[2]) / (affinity.mean[1] - affinity.mean[2])
    np.testing.assert_allclose(
        (found.replicates[:, 1] - found.replicates[:, 2])[:, [0, 3]],
        (factor * (replicates[:, 1] - replicates[:, 2]))[:, [0, 3]],
    )
    errors = found.replicates.std(axis=0, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(found.standard_error, errors)
    # Where only errors are known, they grow by the same factor.
    error = np.full((4, 4), 0.1)
    alone = tag_keras.Affinity(TASKS, affinity.mean, standard_error=error)
    found = tag_keras.anchor_affinity(alone, make_rows())
    np.testing.assert_allclose(
        found.standard_error[:, [0, 3]], 0.1 * np.tile(factor, (4, 1))[:, [0, 3]]
    )


def test_a_pair_that_a_replicate_lacks_is_no_noise_of_the_others():
    # All replicates are the same, but that the first lacks a onto b.
    mean = random_affinity().mean
    replicates = np.stack([mean] * 6)
    replicates[0, 0, 1] = np.nan
    affinity = tag_keras.Affinity(TASKS, mean, replicates=replicates)
    found = tag_keras.anchor_affinity(affinity, make_rows())
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-12)
    assert np.argwhere(np.isnan(found.replicates)).tolist() == [[0, 0, 1]]


def test_what_was_not_measured_stays_unknown():
    affinity = random_affinity()
    count, mean = np.full((4, 4), 5), affinity.mean.copy()
    count[0, 1], mean[0, 1] = 0, np.nan
    affinity = tag_keras.Affinity(TASKS, mean, count=count, skipped=count + 1)
    found = tag_keras.anchor_affinity(affinity, make_rows())
    assert np.argwhere(np.isnan(found.mean)).tolist() == [[0, 1]]
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(found.skipped, count + 1)


def test_errors():
    affinity = random_affinity()
    rows = [row for row in make_rows() if row.network != "single_c"]
    with pytest.raises(ValueError, match="no result on 'validation' for: c from single_c"):
        tag_keras.anchor_affinity(affinity, rows)
    with pytest.raises(ValueError, match="no result on 'test' for: a from joint"):
        tag_keras.anchor_affinity(affinity, make_rows(), split="test")


def test_losses_may_be_zero_or_negative():
    # Of what no relative gain is known, all sources have the same.
    found = tag_keras.anchor_affinity(random_affinity(), make_rows(single={**SINGLE, "b": 0.0}))
    np.testing.assert_allclose(found.mean[[0, 2, 3], 1], -1.2 / 3)
    joint, single = ({task: loss - 3 for task, loss in one.items()} for one in (JOINT, SINGLE))
    found = tag_keras.anchor_affinity(random_affinity(), make_rows(joint, single)).mean
    np.testing.assert_allclose(found.sum(axis=0), [SINGLE[task] - JOINT[task] for task in TASKS])
    for target in range(4):
        others = [source for source in range(4) if source != target]
        order = np.argsort(random_affinity().mean[others, target])
        np.testing.assert_array_equal(order, np.argsort(found[others, target]))


def test_the_example_runs(capsys):
    text = tag_keras.anchor_affinity.__doc__.split("```python")[1].split("```")[0]
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    exec("\n".join(lines), {"tag_keras": tag_keras})
    assert capsys.readouterr().out == "[[ 0.  -0.1]\n [ 0.3  0. ]]\n"


@pytest.mark.parametrize(("joint", "counts"), [(2.0, -2), (-2.0, 2)])
def test_a_task_that_is_nearly_solved_does_not_blow_up_the_others(joint, counts):
    # Alone, d has 2e-6, in the joint network 2: a million times as much counts as three times as
    # much, a relative gain of -2. With losses that may be negative, it is the same upwards.
    rows = make_rows({**JOINT, "d": joint}, {**SINGLE, "d": 2e-6})
    found = tag_keras.anchor_affinity(random_affinity(), rows)
    relative = statistics.pstdev([0.3 / 0.9, -0.2 / 1.0, 0.3 / 0.8, counts])
    shares = found.mean[~np.eye(4, dtype=bool)] * 3
    sizes = np.tile([0.9, 1.0, 0.8, 2e-6], (4, 1))[~np.eye(4, dtype=bool)]
    gains = np.tile([0.3, -0.2, 0.3, 2e-6 - joint], (4, 1))[~np.eye(4, dtype=bool)]
    assert ((shares - gains) / sizes).std() == pytest.approx(relative)


def test_what_rounding_leaves_of_equal_sources_is_no_difference():
    # The mean of three times 0.1 is not 0.1, and that of three times 0.7 neither.
    same = tag_keras.Affinity(TASKS, np.tile([0.1, 0.7, 0.3, 0.9], (4, 1)))
    found = tag_keras.anchor_affinity(same, make_rows()).mean
    expected = np.tile([(SINGLE[task] - JOINT[task]) / 3 for task in TASKS], (4, 1))
    np.testing.assert_allclose(found, np.where(np.eye(4), 0, expected), atol=1e-12)


def test_the_rule_that_groups_are_selected_by():
    # On validation data each task gains 0.3 from both others, 0.15 from each, if the affinities are
    # all the same; on test data it loses. The sum in a group of three is 0.3, where the mean would
    # be 0.15, and alone it is 0, better than by test data.
    tasks = ("a", "b", "c")
    losses = {"validation": (0.6, 0.9), "test": (0.9, 0.6)}
    rows = [
        Row(name, trained, 0, task, split, pair[name != "joint"], {}, 1.0)
        for split, pair in losses.items()
        for name, trained in [("joint", tasks), *((f"single_{task}", (task,)) for task in tasks)]
        for task in trained
    ]
    affinity = tag_keras.Affinity(tasks, np.ones((3, 3)))
    rule = selection_rule(affinity, rows, "measured")
    anchored = rule["affinity"]
    np.testing.assert_allclose(anchored.mean, 0.15 * (1 - np.eye(3)))
    assert tag_keras.select_groups(num_groups=1, **rule).score == pytest.approx(0.3)
    negative = tag_keras.Affinity(tasks, -np.ones((3, 3)))
    assert tag_keras.select_groups(num_groups=3, **{**rule, "affinity": negative}).score == 0
    # Otherwise: the affinities as they are, their means, and the singletons asked for.
    for singletons in ("baseline", "forbid"):
        rule = selection_rule(affinity, [], singletons)
        assert rule == {"affinity": affinity, "singletons": singletons, "score": "mean"}
