"""The guard: what serves in plain cases, the model that it builds, and what it refuses."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from group_rows import simulated
from guard_cases import GROUPING, LEVELS, TASKS, make_rows, networks_of

import tag_keras
from tag_keras.comparison import guard
from tag_keras.results import Row

SINGLE = {name: LEVELS[name] for name in ("single_a", "single_b", "single_c")}


def changed(**levels):
    return make_rows({**LEVELS, **levels})


def test_groups_that_pay_are_served():
    serving = tag_keras.guard_groups(GROUPING, make_rows())
    decision = serving.decision
    # 0.6 + 0.4 + 0.8 against 2.8 by the joint network and 2.6 by one per task, with little noise.
    assert (decision.kind, serving.grouping.groups) == ("groups", (("a", "b"), ("b", "c")))
    assert serving.grouping.serves == {"a": 0, "b": 0, "c": 1}
    assert decision.gain.mean == pytest.approx(1.0, abs=0.1)
    assert decision.over_yardstick.mean == pytest.approx(0.8, abs=0.1)
    assert decision.probability > 0.95
    # What make_rows adds to group_0 is 0, 0.01, -0.01, and to group_1 -0.01, 0, 0.02 or the like.
    rows = {(row.network, row.seed, row.task): row.loss for row in make_rows()}
    networks = networks_of(serving)
    assert networks["a"] == networks["b"] == ("group_0", 2)
    best = min(range(3), key=lambda seed: rows["group_1", seed, "c"])
    assert networks["c"] == ("group_1", best)
    assert serving.total == pytest.approx(0.59 + 0.39 + rows["group_1", best, "c"])
    joint = [sum(rows["joint", seed, task] for task in TASKS) for seed in range(3)]
    assert serving.total_joint == pytest.approx(min(joint))
    single = [min(rows[f"single_{task}", seed, task] for seed in range(3)) for task in TASKS]
    assert serving.total_single == pytest.approx(sum(single))
    assert serving.split == "validation"


def test_the_joint_network_serves_where_groups_do_not_pay():
    serving = tag_keras.guard_groups(GROUPING, changed(joint={"a": 0.4, "b": 0.3, "c": 0.6}))
    assert serving.decision.kind == "joint"
    assert {name for name, _ in serving.networks} == {"joint"}
    assert serving.total == serving.total_joint
    assert serving.grouping.groups == (TASKS,)


def test_single_networks_serve_where_sharing_does_not_pay():
    levels = {name: {task: 0.2} for name, (task,) in SINGLE.items()}
    serving = tag_keras.guard_groups(GROUPING, changed(**levels))
    assert serving.decision.kind == "single"
    assert [name for name, _ in serving.networks] == ["single_a", "single_b", "single_c"]
    assert serving.total == serving.total_single


def test_a_task_may_be_served_by_a_network_that_is_no_group():
    # c alone is much better than in group_1: two networks still.
    serving = tag_keras.guard_groups(GROUPING, changed(single_c={"c": 0.3}))
    assert {task: name for task, (name, _) in networks_of(serving).items()} == {
        "a": "group_0",
        "b": "group_0",
        "c": "single_c",
    }


def test_a_candidate_may_serve():
    rows = changed(**{"candidate_0-2": {"a": 0.1, "c": 0.1}})
    serving = tag_keras.guard_groups(GROUPING, rows)
    assert networks_of(serving)["a"][0] == networks_of(serving)["c"][0] == "candidate_0-2"
    assert networks_of(serving)["b"][0] == "group_0"


def test_no_more_networks_serve_than_there_are_groups():
    # Each task has a network that is by far the best for it alone: three of them.
    levels = {"group_0": {"a": 0.1, "b": 0.9}, "group_1": {"b": 0.1, "c": 0.9}}
    levels["single_c"] = {"c": 0.1}
    serving = tag_keras.guard_groups(GROUPING, changed(**levels))
    assert len(serving.networks) <= 2


def test_only_trained_networks_serve():
    # By the estimate, a group that nobody trained would be the best.
    trained = {1, 2, 4, 8, 15, 7, 11}
    rows, _ = simulated(num_tasks=4, num_seeds=3, members=0.2, own=0.01, groups=trained, seed=6)
    estimate = tag_keras.estimate_group_losses(rows)
    wanted = tag_keras.decide_groups(estimate, 3).grouping.groups
    groups = {row.tasks for row in rows}
    assert not {*wanted} <= groups
    assert {
        *guard.serve_measured(rows, tag_keras.estimate_group_losses(rows), 3).grouping.groups
    } <= groups


def test_one_seed_is_no_evidence_for_groups():
    serving = tag_keras.guard_groups(GROUPING, make_rows(seeds=(1,)))
    assert serving.decision.kind != "groups"
    assert "by one seed for each network" in serving.decision.reason


def test_a_higher_probability_asks_for_more():
    rows = make_rows(noise=12.0)
    probability = tag_keras.guard_groups(GROUPING, rows, probability=0.5).decision.probability
    assert 0.5 < probability < 0.99
    serving = tag_keras.guard_groups(GROUPING, rows, probability=(1 + probability) / 2)
    assert serving.decision.kind != "groups"


def test_a_network_that_was_trained_under_two_names_has_the_first():
    # The second group is c alone.
    grouping = tag_keras.Grouping(
        TASKS, (("a", "b"), ("c",)), {"a": 0, "b": 0, "c": 1}, 0.0, 0.0, True
    )
    rows = [row for row in make_rows() if row.network != "group_1"]
    rows += [
        dataclasses.replace(row, network="group_1", role="group")
        for row in rows
        if row.network == "single_c"
    ]
    serving = tag_keras.guard_groups(grouping, rows)
    assert [name for name, _ in serving.networks] == ["group_0", "single_c"]


def test_networks_may_have_seeds_of_their_own():
    rows = [row for row in make_rows() if (row.network, row.seed) != ("group_0", 2)]
    serving = tag_keras.guard_groups(GROUPING, rows)
    assert serving.network_of("a") == ("group_0", 0)


def test_other_splits_and_networks_are_not_looked_at():
    rows = make_rows(split="test") + [
        dataclasses.replace(row, loss=9 - row.loss) for row in make_rows()
    ]
    rows.append(Row("pcgrad", TASKS, 0, "a", "test", 0.0, {}, 1.0))
    rows.append(Row("affinity", TASKS, 0, "a", "test", 0.0, {}, 1.0))
    rows.append(Row("early_joint", TASKS, 0, "a", "test", 0.0, {}, 1.0))
    found = tag_keras.guard_groups(GROUPING, rows, split="test")
    assert found == dataclasses.replace(tag_keras.guard_groups(GROUPING, make_rows()), split="test")


def test_the_grouped_model_has_only_the_networks_served():
    layers = keras.layers
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    serving = tag_keras.guard_groups(GROUPING, changed(single_c={"c": 0.3}))
    models = []
    for tasks in serving.grouping.groups:
        model = tag_keras.MultiTaskModel(layers.Dense(3), {task: layers.Dense(1) for task in tasks})
        model(x)
        models.append(model)
    grouped = tag_keras.GroupedModel(models, serving.grouping)
    predictions = grouped.predict(x, verbose=0)
    assert tuple(predictions) == TASKS
    for task, index in {"a": 0, "b": 0, "c": 1}.items():
        np.testing.assert_allclose(predictions[task], models[index](x)[task], atol=1e-6)


def test_the_example_runs(capsys):
    block = re.search(r"```python\n(.*?)```", guard.guard_groups.__doc__, re.DOTALL)[1]
    exec(re.sub("^    ", "", block, flags=re.MULTILINE), {"tag_keras": tag_keras})
    assert capsys.readouterr().out == "(('single_a', 0), ('single_b', 0))\n"


def test_what_is_refused():
    def call(rows, **options):
        tag_keras.guard_groups(GROUPING, rows, **options)

    with pytest.raises(ValueError, match=r"at least one result. Received: rows=\[\]"):
        call([])
    rows = [row for row in make_rows() if row.network != "group_1"]
    with pytest.raises(ValueError, match=r"hold the losses of 'group_1' on 'validation'\. Train"):
        call(rows)
    rows = [dataclasses.replace(row, role="mine") for row in make_rows()]
    with pytest.raises(ValueError, match="hold the losses of 'group_0' on 'validation'"):
        call(rows)
    with pytest.raises(ValueError, match="hold the losses of 'group_0' on 'dev'"):
        call(make_rows(), split="dev")
    rows = [row for row in make_rows() if (row.network, row.task) != ("group_1", "c")]
    with pytest.raises(ValueError, match=r"network of \('b', 'c'\) with seed 0 has none of .*'c'"):
        call(rows)
    for missing, words in {"joint": "the joint network of all", "single_b": "They lack: b"}.items():
        with pytest.raises(ValueError, match=words):
            call([row for row in make_rows() if row.network != missing])
    with pytest.raises(ValueError, match="tasks of the network 'joint', seed 0 differ by"):
        call([*make_rows(), Row("joint", ("a",), 0, "a", "validation", 1.0, {}, 1.0)])
    with pytest.raises(ValueError, match=r"finite losses\. Received: nan for 'a'"):
        call(changed(group_0={"a": float("nan"), "b": 1.0}))
    with pytest.raises(ValueError, match=r"`probability` should be from 0\.5 to below 1"):
        call(make_rows(), probability=1.0)
