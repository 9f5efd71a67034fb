"""Decisions: where groups pay, where nothing does, and how often the decision is right."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from group_rows import rows_of_losses, simulated

import tag_keras


def decide(rows, num_groups=3, **options):
    return tag_keras.decide_groups(tag_keras.estimate_group_losses(rows), num_groups, **options)


def planted(gain, num_seeds=4, noise=0.01, alone=0.5):
    """Losses of 1, less `gain` if a task has its partner and no other; plus `alone` by itself."""
    tasks, rng, rows = ("a", "b", "c", "d"), np.random.default_rng(0), []
    groups = {
        tuple(task for index, task in enumerate(tasks) if mask >> index & 1)
        for mask in range(1, 16)
    }
    for group in sorted(groups):
        for seed in range(num_seeds):
            losses = 1 + noise * rng.normal(size=len(group))
            losses -= gain * (group in (("a", "b"), ("c", "d")))
            losses += alone * (len(group) == 1)
            rows += rows_of_losses({group: losses}, tasks, seed)
    return rows


def test_groups_that_pay_are_found():
    decision = decide(planted(0.2))
    assert decision.kind == "groups"
    assert decision.grouping.groups == (("a", "b"), ("c", "d"))
    assert decision.grouping.serves == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert decision.gain.share == pytest.approx(0.2, abs=0.02)
    assert decision.gain.mean == pytest.approx(0.8, abs=0.08)
    low, high = decision.interval
    assert low < 0.8 < high < 0.9
    assert decision.probability > 0.99
    # A third network gains nothing over two.
    assert all(option.over_fewer.probability < 0.8 for option in decision.options[2:])
    share = 100 * decision.gain.share
    assert decision.reason == (
        f"2 groups: the total loss is {share:.1f} % below that of the joint network (90 % interval "
        f"{share * low / decision.gain.mean:.1f} to {share * high / decision.gain.mean:.1f} %), "
        "with a probability of a gain of 1.00."
    )


def test_frame_has_a_row_for_each_option():
    pytest.importorskip("pandas")
    decision = decide(planted(0.2))
    frame = decision.to_frame()
    assert [*frame.columns[:5]] == ["kind", "networks", "groups", "loss", "is_decided"]
    assert [*frame.kind] == [option.kind for option in decision.options]
    assert [*frame.networks] == [1, 2, 4] and frame.groups[1] == (("a", "b"), ("c", "d"))
    # Four tasks of 1 in the joint network, and of 0.8 in pairs.
    assert [*frame.loss[:2]] == pytest.approx([4, 3.2], abs=0.1)
    assert [*np.flatnonzero(frame.is_decided)] == [1]
    chosen = frame[frame.is_decided].iloc[0]
    found = [chosen[f"over_joint_{name}"] for name in ("mean", "low", "high", "probability")]
    gain = decision.gain
    assert found == [gain.mean, *gain.interval, gain.probability]
    assert chosen.over_decided_mean == 0
    assert {"over_yardstick_low", "over_fewer_high"} < {*frame.columns}


def test_the_interval_has_nine_tenths_of_the_draws():
    estimate = tag_keras.estimate_group_losses(planted(0.2))
    option = tag_keras.decide_groups(estimate, 2).options[1]
    serves = [option.grouping.groups[index] for index in option.grouping.serves.values()]
    joint = [estimate.tasks] * 4
    single = [(task,) for task in estimate.tasks]
    draws = estimate.draw([joint, serves, single])
    gains = estimate.total_gain(draws[1], draws[0], estimate.noise_correlation(serves, joint))
    assert estimate.probability_of_effects == pytest.approx(1)
    assert option.over_joint.interval == pytest.approx(np.quantile(gains, [0.05, 0.95]))
    assert option.over_joint.probability == pytest.approx((gains > 0).mean())


def test_losses_below_0_have_gains_in_shares_of_their_size():
    rows = [dataclasses.replace(row, loss=row.loss - 5) for row in planted(0.2)]
    gain = decide(rows).gain
    assert gain.share == pytest.approx(0.8 / 16, abs=0.01)


def test_gains_over_a_loss_near_0_are_told_in_its_unit():
    # Joint losses of 1 each, less 1.001.
    rows = [dataclasses.replace(row, loss=row.loss - 1.001) for row in planted(0.2)]
    decision = decide(rows)
    low, high = decision.interval
    mean = decision.gain.mean
    assert mean == pytest.approx(0.8, abs=0.05)
    assert decision.gain.as_text() == (f"{mean:.3g}", f"{low:.3g} to {high:.3g}")
    assert f"the total loss is {mean:.3g} below that of the joint network" in decision.reason


def test_a_third_network_must_gain_over_two():
    decision = decide(simulated(num_tasks=4, num_seeds=3, members=0.04, seed=3)[0])
    two, three = decision.options[1:3]
    assert two.over_fewer == two.over_joint
    assert three.over_joint.probability > 0.99
    # It gains over two networks, but that is not sure.
    assert 0.5 < three.over_fewer.probability < 0.8
    assert three.over_fewer.mean == pytest.approx(three.over_joint.mean - two.over_joint.mean)
    assert decision.grouping == two.grouping


def test_gains_that_differ_between_parts_of_the_data_are_unsure():
    tasks, rows = ("a", "b", "c", "d"), []
    for row in planted(0.05, num_seeds=4):
        for part, sign in enumerate((-4, 6, -4, 6)):
            partner = row.tasks in (("a", "b"), ("c", "d"))
            loss = row.loss + 0.05 * partner - 0.05 * sign * partner
            rows.append(dataclasses.replace(row, split=f"part_{part}", loss=loss))
    names = [f"part_{part}" for part in range(4)]
    # On average over the parts, a partner gains 0.05 in each of the four tasks.
    told = tag_keras.decide_groups(tag_keras.estimate_group_losses(rows, parts=names), 2)
    sure = decide([dataclasses.replace(row, split="validation") for row in planted(0.05)], 2)
    assert sure.kind == "groups"
    assert told.kind == "joint"
    assert told.options[1].grouping == sure.grouping
    assert tasks == sure.grouping.tasks


def test_fewer_networks_may_cost_half_a_percent():
    # Two networks are as good as one per task, and both are far better than the joint network.
    for worse, kind in ((0.0, "groups"), (0.02, "single")):
        rows = [
            dataclasses.replace(row, loss=row.loss - 0.2 + worse)
            if row.tasks in (("a", "b"), ("c", "d"))
            else dataclasses.replace(row, loss=row.loss - 0.2 * (len(row.tasks) == 1))
            for row in planted(0.0, num_seeds=8, noise=0.003, alone=0.0)
        ]
        decision = decide(rows, num_groups=2)
        assert decision.options[1].grouping.groups == (("a", "b"), ("c", "d"))
        assert decision.kind == kind


def test_the_yardstick_is_the_better_of_joint_and_single():
    decision = decide(planted(0.2, alone=-0.1))
    assert decision.kind == "groups"
    # 0.2 below joint, 0.1 below single networks.
    assert decision.over_yardstick.mean == pytest.approx(0.4, abs=0.05)
    assert decision.gain.mean == pytest.approx(0.8, abs=0.05)


def test_one_network_per_task_where_it_is_best_whatever_the_number_of_groups():
    decision = decide(planted(0.1, alone=-0.3), num_groups=2)
    assert decision.kind == "single"
    assert decision.grouping.groups == (("a",), ("b",), ("c",), ("d",))
    assert decision.over_yardstick.mean == 0
    assert decision.reason.startswith("One network per task: the total loss is 30")
    kinds = [(option.kind, len(option.grouping.groups)) for option in decision.options]
    assert kinds == [("joint", 1), ("groups", 2), ("single", 4)]


def test_where_the_losses_are_equal_the_joint_network_stays():
    decision = decide(planted(0.0, noise=0.0, alone=0.0))
    assert decision.kind == "joint"
    assert decision.gain.mean == decision.gain.probability == 0
    assert decision.reason == "The joint network: one network per task is not likely to be better."


@pytest.mark.parametrize(("alone", "kind"), [(0.5, "joint"), (-0.5, "single")])
def test_one_seed_is_no_evidence_for_groups(alone, kind):
    decision = decide(planted(0.6, num_seeds=1, alone=alone))
    assert decision.kind == kind
    assert "by one seed for each network: the noise between seeds" in decision.reason
    assert decision.options[1].grouping.groups == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize("num_seeds", [2, 3, 6])
def test_noise_is_rarely_taken_for_a_gain(num_seeds):
    # No group differs from another. A fifth of so sure decisions may be wrong; either yardstick is
    # right.
    kinds = [
        decide(simulated(num_tasks=4, num_seeds=num_seeds, seed=seed)[0]).kind for seed in range(25)
    ]
    assert kinds.count("groups") <= 5
    assert kinds.count("joint") >= 8 and kinds.count("single") >= 5


def test_only_measured_groups_are_chosen():
    # The best two groups were not trained.
    rows = [row for row in planted(0.2) if row.tasks not in (("a", "b"), ("c", "d"))]
    rows = [
        dataclasses.replace(row, loss=row.loss - 0.1 * (row.tasks == ("a", "c"))) for row in rows
    ]
    estimate = tag_keras.estimate_group_losses(rows)
    trained = {row.tasks for row in rows}
    for number in (2, 3):
        decision = tag_keras.decide_groups(estimate, number, only_measured=True)
        assert all({*option.grouping.groups} <= trained for option in decision.options)
    # The best of the trained ones by brute force.
    losses = np.where(estimate.is_measured[:, None], estimate.mean, np.nan)
    option = tag_keras.decide_groups(estimate, 2, only_measured=True).options[1]
    groups = [group for group in estimate.groups if group in trained]
    totals = {
        pair: np.fmin(*(losses[estimate.groups.index(group)] for group in pair)).sum()
        for pair in itertools.combinations(groups, 2)
        if {*pair[0], *pair[1]} == {*"abcd"}
    }
    assert {*option.grouping.groups} == {*min(totals, key=totals.__getitem__)}


def test_the_best_chance_is_of_an_option_against_what_is_decided():
    decision = decide(planted(0.2))
    chances = {option.grouping.groups: option.over_decided for option in decision.options}
    assert chances[decision.grouping.groups].mean == 0
    assert decision.best_chance == max(gain.probability for gain in chances.values()) < 0.8
    # Against the joint network, a gain over what is decided is a gain over it.
    joint = decide(planted(0.0, noise=0.0, alone=0.5))
    assert joint.kind == "joint"
    assert all(option.over_decided == option.over_joint for option in joint.options)


def test_the_words_say_that_all_networks_may_be_alike():
    rows, _ = simulated(num_tasks=4, num_seeds=3, size=0.015, seed=0)
    estimate = tag_keras.estimate_group_losses(rows)
    decision = tag_keras.decide_groups(estimate, 2)
    assert decision.kind != "joint" and 0.5 < estimate.probability_of_effects < 0.95
    assert decision.reason.endswith(
        " The interval is for networks that differ in more than noise; with a probability of "
        f"{1 - estimate.probability_of_effects:.2f} they do not."
    )


def test_a_single_task_has_one_choice():
    decision = decide(simulated(num_tasks=1)[0])
    assert (decision.kind, len(decision.options)) == ("joint", 1)


def test_one_group_leaves_the_yardsticks():
    decision = decide(planted(0.2, alone=-0.3), num_groups=1)
    assert [option.kind for option in decision.options] == ["joint", "single"]
    assert decision.kind == "single"


def test_a_higher_probability_asks_for_more():
    rows, _ = simulated(num_tasks=4, num_seeds=3, members=0.02, seed=4)
    probability = decide(rows, probability=0.5).probability
    assert 0.8 < probability < 1
    assert decide(rows, probability=(1 + probability) / 2).kind == "single"
    # With single networks that are worse, it is the joint one.
    rows = [dataclasses.replace(row, loss=row.loss + 0.1 * (len(row.tasks) == 1)) for row in rows]
    unsure = decide(rows, probability=0.999)
    assert unsure.kind == "joint"
    highest = max(option.over_joint.probability for option in unsure.options)
    assert 0.8 < highest < 0.999
    assert unsure.reason == (
        "The joint network: one network per task is not likely to be better, and no groups are "
        f"with a probability of 0.999 or more; the highest is {int(100 * highest) / 100:.2f}."
    )


@pytest.mark.slow
def test_intervals_and_probabilities_are_calibrated():
    """Of 150 problems from the model itself, where effects have random sizes."""
    inside, told = [], []
    rng = np.random.default_rng(0)
    for seed in range(150):
        size, members, own = rng.choice([0.0, 0.01, 0.04], size=3)
        rows, truth = simulated(
            num_tasks=4,
            num_seeds=int(rng.integers(2, 7)),
            seed=seed,
            size=size,
            members=members,
            own=own,
            correlation=0.3,
        )
        decision = decide(rows)
        for option in decision.options[1:]:
            groups = option.grouping.groups
            gain = sum(
                truth[decision.grouping.tasks][task] - truth[groups[index]][task]
                for task, index in option.grouping.serves.items()
            )
            low, high = option.over_joint.interval
            inside.append(low - 1e-9 <= gain <= high + 1e-9)
            told.append((option.over_joint.probability, gain > 0))
    assert 0.85 < np.mean(inside) < 0.95
    sure = [gain for probability, gain in told if probability >= 0.8]
    assert len(sure) > 100
    assert np.mean(sure) > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 0}, "`num_groups` should be at least 1. Received: num_groups=0."),
        ({"num_groups": 2.5}, "`num_groups` should be an integer."),
        ({"num_groups": 2, "probability": 0.3}, "`probability` should be from 0.5 to below 1."),
        ({"num_groups": 2, "probability": 1.0}, "`probability` should be from 0.5 to below 1."),
    ],
)
def test_arguments_out_of_range(arguments, message):
    estimate = tag_keras.estimate_group_losses(planted(0.1))
    with pytest.raises(ValueError, match=re.escape(message)):
        tag_keras.decide_groups(estimate, **arguments)


def test_the_estimate_is_no_list_of_rows():
    with pytest.raises(ValueError, match="`estimate` should be what `estimate_group_losses`"):
        tag_keras.decide_groups(planted(0.1), 2)
