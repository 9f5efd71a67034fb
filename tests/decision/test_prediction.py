"""Losses predicted out of joint networks: by hand, and against least squares."""

import itertools
import math

import numpy as np
import pytest

import tag_keras
from tag_keras.decision.prediction import LossExpansion, predict_losses

NAN = math.nan
GROUPS = [("a",), ("b",), ("a", "b")]


def table(single_a, single_b, joint):
    return tag_keras.NetworkTable(["a", "b"], GROUPS, [[single_a, NAN], [NAN, single_b], [*joint]])


def test_one_direction_by_hand():
    # Mean eigenvalue 2 + 2 = 4, so lambda is 0.5 * 4 = 2. Steps: "a" alone -(-4) / (2 + 2) = 1,
    # "b" alone -2 / (2 + 2) = -0.5, both -(-4 + 2) / (4 + 2) = 1 / 3.
    train = LossExpansion(np.zeros(2), np.array([[-4.0], [2.0]]), np.full((2, 1, 1), 2.0))
    # "a" loses 1 - 3 u + u^2, "b" 2 + u + 2 u^2.
    held_out = LossExpansion(
        np.array([1.0, 2.0]), np.array([[-3.0], [1.0]]), np.array([[[2.0]], [[4.0]]])
    )
    found = predict_losses(["a", "b"], train, held_out, ridge=0.5)
    assert found.networks == tuple(GROUPS)
    wanted = [[1 - 3 + 1, NAN], [NAN, 2 - 0.5 + 0.5], [1 - 1 + 1 / 9, 2 + 1 / 3 + 2 / 9]]
    np.testing.assert_allclose(found.scores, wanted)


def test_linear_tasks_get_the_losses_of_ridge_regression():
    random = np.random.default_rng(0)
    tasks, size, ridge, inputs, labels = ("a", "b", "c"), 4, 0.3, {}, {}
    for split, task in itertools.product(("train", "validation"), tasks):
        inputs[split, task] = random.normal(size=(12, size))
        labels[split, task] = random.normal(size=12)

    def expansion(split):
        x, y = ([one[split, task] for task in tasks] for one in (inputs, labels))
        return LossExpansion(
            np.array([np.mean(b**2) for b in y]),
            np.array([-2 * a.T @ b / 12 for a, b in zip(x, y, strict=True)]),
            np.array([2 * a.T @ a / 12 for a in x]),
        )

    train = expansion("train")
    found = predict_losses(tasks, train, expansion("validation"), ridge)
    penalty = ridge * np.mean(np.linalg.eigvalsh(train.curvatures.sum(axis=0)))
    for group, scores in zip(found.networks, found.scores, strict=True):
        # The mean of squares of 12 examples, plus half the penalty times the squared weights.
        rows = np.concatenate([inputs["train", task] for task in group]) / 12**0.5
        right = np.concatenate([labels["train", task] for task in group]) / 12**0.5
        rows = np.concatenate([rows, (penalty / 2) ** 0.5 * np.eye(size)])
        weights = np.linalg.lstsq(rows, np.append(right, np.zeros(size)))[0]
        wanted = [
            np.mean((labels["validation", task] - inputs["validation", task] @ weights) ** 2)
            if task in group
            else NAN
            for task in tasks
        ]
        np.testing.assert_allclose(scores, wanted)


def test_groups_that_pay_are_selected():
    # Left out, the first table gains 0.6 - 0.3 by the second one's choice; the second 0.7 - 0.5.
    tables = [table(0.3, 0.9, (0.6, 0.2)), table(0.5, 0.7, (0.7, 0.3))]
    found = tag_keras.select_predicted_groups(tables, num_groups=2)
    assert found.groups == (("a",), ("a", "b")) and found.serves == {"a": 0, "b": 1}
    assert found.score == pytest.approx((0.4 + 0.25) / 2)
    one = tag_keras.select_predicted_groups(tables, num_groups=1)
    assert one.groups == (("a", "b"),) and one.score == pytest.approx((0.65 + 0.25) / 2)


def test_the_luck_of_one_network_does_not_pay():
    # By the mean, "a" gains 0.1 alone. By the second table "a" stays, which gains the first one
    # nothing; by the first one it is alone, which costs the second one 0.3.
    tables = [table(0.1, 0.9, (0.6, 0.2)), table(0.9, 0.9, (0.6, 0.2))]
    found = tag_keras.select_predicted_groups(tables, num_groups=2)
    assert found.groups == (("a", "b"),) and found.serves == {"a": 0, "b": 0}
    assert found.score == pytest.approx(0.4)
    # A third table decides: 0 by those that agree with the first, and -0.3 becomes 0.5.
    assert len(tag_keras.select_predicted_groups([*tables, tables[0]], 2).groups) == 2


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([table(1, 1, (1, 1))], "`tables` should be a list of at least two NetworkTables"),
        ([1, 2], "`tables` should be a list of at least two NetworkTables"),
        (
            [table(1, 1, (1, 1)), tag_keras.NetworkTable(["a", "b"], [("a", "b")], [[1, 1]])],
            "`tables` should have the same networks, and the joint network among them",
        ),
        (
            [tag_keras.NetworkTable(["a", "b"], GROUPS[:2], [[1, NAN], [NAN, 1]])] * 2,
            "`tables` should have the same networks, and the joint network among them",
        ),
    ],
)
def test_wrong_tables(tables, message):
    with pytest.raises(ValueError, match=message):
        tag_keras.select_predicted_groups(tables, num_groups=2)


def test_wrong_numbers():
    with pytest.raises(ValueError, match="`num_groups` should be at least 1"):
        tag_keras.select_predicted_groups([table(1, 1, (1, 1))] * 2, num_groups=0)
    flat = LossExpansion(np.ones(1), np.ones((1, 2)), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="losses should be finite, and curved as mean squares"):
        predict_losses(["a"], flat, flat, ridge=0.1)
    with pytest.raises(ValueError, match="`ridge` should be a positive number"):
        predict_losses(["a"], flat, flat, ridge=0.0)
    curved = LossExpansion(np.ones(1), np.ones((1, 1)), np.ones((1, 1, 1)))
    infinite = LossExpansion(np.array([np.inf]), np.ones((1, 1)), np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="losses should be finite"):
        predict_losses(["a"], curved, infinite, ridge=0.1)
    many = [f"t{task}" for task in range(16)]
    with pytest.raises(ValueError, match="losses are predicted for up to 15 tasks"):
        predict_losses(many, flat, flat, ridge=0.1)
