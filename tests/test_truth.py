"""Truth tables (benchmarks/truth*.py): what is trained, and what each way to choose is worth."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import scipy.stats

import tag_keras
from benchmarks import truth, truth_networks, truth_regret, truth_sets
from benchmarks.truth_guard import guarded
from benchmarks.truth_plot import plot_regret
from benchmarks.truth_promise import promises
from benchmarks.truth_scores import anchored_scores, higher_order, scores_of_affinity
from benchmarks.truth_table import Truth
from tag_keras import files
from tag_keras.results import Row, load_results, save_results
from tag_keras.study_networks import Candidate

TASKS = ("a", "b", "c", "d")
GROUPS = [group for size in range(1, 5) for group in itertools.combinations(TASKS, size)]


def make_rows(seeds=(0, 1, 2), noise=0.1, generator_seed=0):
    random = np.random.default_rng(generator_seed)
    base = {(group, task): random.uniform(0.5, 1.5) for group in GROUPS for task in group}
    return [
        Row("_".join(group), group, seed, task, split, loss + noise * random.normal(), {}, 1.0)
        for seed in seeds
        for split in ("validation", "test")
        for (group, task), loss in base.items()
    ]


def make_truth(**options):
    return Truth.from_rows(make_rows(**options), TASKS, GROUPS)


def make_affinity(generator_seed=0):
    mean = np.random.default_rng(generator_seed).normal(size=(4, 4))
    return tag_keras.Affinity(TASKS, mean)


def test_the_table_has_each_loss_in_its_place():
    rows = make_rows()
    truth = Truth.from_rows(rows, TASKS, GROUPS)
    assert truth.seeds == (0, 1, 2)
    for row in rows:
        place = (row.seed, GROUPS.index(row.tasks), TASKS.index(row.task))
        assert getattr(truth, row.split)[place] == row.loss
    assert np.isfinite(truth.test).sum() * 2 == len(rows)


def test_a_missing_group_is_named():
    rows = [row for row in make_rows() if not (row.tasks == ("a", "c") and row.seed == 1)]
    with pytest.raises(ValueError, match=r"should have all groups.*'a, c with seed 1'"):
        Truth.from_rows(rows, TASKS, GROUPS)


def test_other_tasks_are_named():
    rows = [*make_rows(), Row("e", ("e",), 0, "e", "test", 1.0, {}, 1.0)]
    with pytest.raises(ValueError, match=r"should be of the tasks .*others=\['e'\]"):
        Truth.from_rows(rows, TASKS, GROUPS)


def test_a_table_of_nothing():
    with pytest.raises(ValueError, match="there should be results"):
        Truth.from_rows([], TASKS, GROUPS)
    with pytest.raises(ValueError, match="there should be a seed left"):
        make_truth().only([])


def test_affinities_of_other_tasks():
    affinity = tag_keras.Affinity(("a", "b"), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="should be of the tasks of the table"):
        scores_of_affinity(make_truth(), affinity, "zero")
    with pytest.raises(ValueError, match="should be of the tasks of the table"):
        anchored_scores(make_truth(), affinity, make_truth().losses("test"))
    with pytest.raises(ValueError, match="should be of the tasks of the table"):
        make_truth().agreement(affinity)


def test_a_group_that_was_not_trained():
    truth = Truth.from_rows(make_rows(), TASKS, GROUPS[:-1])
    with pytest.raises(ValueError, match="should be one of the table"):
        truth.joint()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_choice_is_that_of_all_families(number, seed):
    truth = make_truth(generator_seed=seed)
    losses = truth.test.mean(axis=0)
    totals = [
        sum(
            min(losses[row, task] for row in family if TASKS[task] in GROUPS[row])
            for task in range(4)
        )
        for size in range(1, number + 1)
        for family in itertools.combinations(range(len(GROUPS)), size)
        if {task for row in family for task in GROUPS[row]} == {*TASKS}
    ]
    chosen = truth.choose(truth.losses("test"), number)
    assert len(set(chosen)) <= number
    assert truth.total(chosen) == pytest.approx(min(totals), rel=1e-12)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_choices_by_affinity_are_those_of_the_library(number, seed):
    truth, affinity = make_truth(), make_affinity(seed)
    for singletons, name in (("forbid", "forbid"), ("zero", "baseline")):
        grouping = tag_keras.select_groups(affinity, number, name)
        wanted = [truth.row(grouping.groups[grouping.serves[task]]) for task in TASKS]
        assert truth.choose(scores_of_affinity(truth, affinity, singletons), number) == wanted


def test_scores_by_mean_and_by_sum():
    # Onto "a": from "b" 3, from "c" -1.
    mean = np.zeros((4, 4))
    mean[1, 0], mean[2, 0] = 3, -1
    affinity, truth = tag_keras.Affinity(TASKS, mean), make_truth()
    rows = [truth.row(group) for group in (("a",), ("a", "b"), ("a", "b", "c"))]
    forbidden = -np.inf
    for options, wanted in {
        ("forbid", "mean"): [forbidden, 3, 1],
        ("forbid", "sum"): [forbidden, 3, 2],
        ("zero", "mean"): [0, 3, 1],
        ("zero", "sum"): [0, 3, 2],
    }.items():
        assert scores_of_affinity(truth, affinity, *options)[rows, 0].tolist() == wanted
    assert (scores_of_affinity(truth, affinity, "zero")[~truth.members] == -np.inf).all()


def test_anchored_scores_go_from_the_single_to_the_joint_network():
    truth, affinity = make_truth(), make_affinity()
    losses = truth.losses("validation")
    scores = anchored_scores(truth, affinity, losses)
    mean = -losses
    for column, task in enumerate(TASKS):
        alone, together = truth.row((task,)), truth.row(TASKS)
        assert scores[alone, column] == 0
        gain = mean[alone, column] - mean[together, column]
        assert scores[together, column] == pytest.approx(gain)
        # A task and one more: the better its affinity, the better.
        pairs = [truth.row(tuple(sorted((task, other)))) for other in TASKS if other != task]
        sources = [place for place in range(4) if place != column]
        order = np.argsort(affinity.mean[sources, column])
        assert np.argsort(scores[pairs, column]).tolist() == order.tolist()
        assert scores[pairs, column].sum() == pytest.approx(gain)
    assert ((scores > -np.inf) == truth.members).all()
    # By hand, onto "a": two tasks, of which the affinity says nothing, share the gain.
    flat = tag_keras.Affinity(TASKS, np.ones((4, 4)))
    row = truth.row(("a", "b", "c"))
    gain = mean[0, 0] - mean[-1, 0]
    assert anchored_scores(truth, flat, losses)[row, 0] == pytest.approx(gain * 2 / 3)


def test_where_nothing_covers_all_tasks():
    truth = make_truth()
    scores = np.where(truth.members.sum(axis=1, keepdims=True) == 1, 0.0, -np.inf)
    scores = np.where(truth.members, scores, -np.inf)
    assert truth.choose(scores, 3) == []
    assert truth.choose(scores, 4) == truth.single()


def test_higher_order_is_that_of_the_library():
    truth = make_truth()
    losses = truth.validation.mean(axis=0)
    table = tag_keras.NetworkTable(TASKS, GROUPS, losses).higher_order()
    ours = -higher_order(truth, truth.losses("validation"))
    assert np.allclose(ours[truth.members], table.scores[truth.members], rtol=1e-12)


def test_joint_single_and_random():
    truth = make_truth()
    mean = truth.test.mean(axis=0)
    assert truth.total(truth.joint()) == pytest.approx(mean[-1].sum())
    assert truth.total(truth.single()) == pytest.approx(np.trace(mean[:4]))
    # One network for all: there is but one. As many as tasks are the most.
    assert truth.random_total(5) == truth.random_total(4)
    assert truth.random_total(1) == pytest.approx(truth.total(truth.joint()))
    best = truth.total(truth.choose(truth.losses("test"), 3))
    assert best < truth.random_total(3)


def test_agreement_is_spearmans_correlation_with_the_gains_of_pairs():
    truth, affinity = make_truth(), make_affinity()
    test, found = truth.test.mean(axis=0), []
    for target in range(4):
        sources = [source for source in range(4) if source != target]
        pairs = [tuple(sorted((TASKS[source], TASKS[target]))) for source in sources]
        gains = [test[target, target] - test[GROUPS.index(pair), target] for pair in pairs]
        found.append(scipy.stats.spearmanr(gains, affinity.mean[sources, target])[0])
    assert truth.agreement(affinity) == pytest.approx(np.mean(found))


def test_without_noise_what_was_measured_is_the_best_choice():
    truth = make_truth(noise=0.0)
    measured = {"oracle": [make_affinity(seed) for seed in range(3)]}
    lines = truth_regret.all_lines(truth, truth, measured)
    by_way = {(line.way, line.runs, line.options): line for line in lines}
    assert len(by_way) == len(lines) == 5 + 5 * 2 + 4 * 2 * 2 + 2
    for way in ("all groups measured", "ESA"):
        for runs in (1, 3):
            line = by_way[way, runs, ""]
            assert line.regret == pytest.approx(np.zeros(len(line.totals)), abs=1e-9)
    assert by_way["HOA", 3, ""].regret[0] >= 0
    for line in lines:
        assert (line.regret > -1e-9).all()
    one, three = by_way["oracle", 1, "zero, mean"], by_way["oracle", 3, "zero, mean"]
    assert one.totals.shape == (3, 4)
    assert three.totals.shape == (1, 4)
    assert one.deviation() == pytest.approx(np.std(one.regret, ddof=1))
    with pytest.raises(ValueError, match="a deviation needs two choices"):
        three.deviation()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", ["HOA", "ESA"])
def test_measured_choices_without_tasks_alone_are_the_best_of_all_families(way, seed):
    # Without noise, all but the short trainings see the same losses.
    truth = make_truth(noise=0.0, generator_seed=seed)
    early = make_truth(noise=0.0, generator_seed=seed + 10)
    lines = truth_regret.all_lines(truth, early, {})
    expected = [[np.inf] * 4 for _ in GROUPS]
    measured = (early if way == "ESA" else truth).validation[0]
    for row, group in enumerate(GROUPS):
        for task in group:
            column = TASKS.index(task)
            pairs = [tuple(sorted((task, other))) for other in group if other != task]
            rows = [row] if way == "ESA" else [GROUPS.index(pair) for pair in pairs]
            if len(group) > 1:
                expected[row][column] = np.mean([measured[one, column] for one in rows])
    for number in (1, 2, 3):
        families = itertools.combinations(range(len(GROUPS)), number)
        least = [
            [min((expected[row][t], row) for row in one) for t in range(4)] for one in families
        ]
        serving = [row for _, row in min(least, key=lambda one: sum(loss for loss, _ in one))]
        wanted = truth.total(serving)
        for line in lines:
            if (line.way, line.options) == (way, "forbid"):
                assert line.totals[:, number - 1] == pytest.approx(wanted)


def test_what_one_seed_measured_is_judged_by_the_others():
    # By seed 0 the joint network is perfect, by the others it is bad.
    rows = [
        dataclasses.replace(row, loss=9.0 * (row.seed > 0)) if row.tasks == TASKS else row
        for row in make_rows(noise=0.0)
    ]
    truth = Truth.from_rows(rows, TASKS, GROUPS)
    lines = truth_regret.all_lines(truth, truth, {"x": [make_affinity()]})
    (line,) = (one for one in lines if (one.way, one.runs) == ("all groups measured", 1))
    assert line.totals[0] == pytest.approx([36.0] * 4)
    # The others, judged with seed 0 among the judges, do not choose it where they need not.
    assert (line.totals[1:, 1:] < 36).all()
    # One network for all tasks, of which the two others are the judges.
    for options in ("anchored", "anchored, guarded"):
        (line,) = (one for one in lines if one.options == options)
        assert line.totals[0, 0] == pytest.approx(36)
    (line,) = (one for one in lines if one.options == "anchored")
    assert line.totals[1:, 0] == pytest.approx([18, 18])


def test_all_choices_are_compared_with_the_same_best_one():
    # It is that of all seeds also where two judge what the third has chosen: the best one of the
    # two alone would be better, the more noise there is. Each seed is among the judges as often.
    lines = truth_regret.all_lines(make_truth(noise=0.5), make_truth(noise=0.5), {})
    best = {(line.way, line.runs, line.options): line.best for line in lines}
    for way in ("all groups measured", "HOA", "ESA"):
        assert best[way, 1, ""].mean(axis=0) == pytest.approx(best["best choice", 0, ""][0])


def test_one_seed_does_not_judge_its_own_choice():
    truth = make_truth(seeds=(0,))
    with pytest.raises(ValueError, match=r"need another one to judge them.*seeds=\(0,\)"):
        truth_regret.all_lines(truth, truth, {})


def test_regret_is_relative_and_of_two_to_four_networks():
    totals, best = np.array([[9.0, 2.2, 1.5, 1.0]]), np.array([[1.0, 2.0, 1.0, 1.0]])
    line = truth_regret.Line("x", 1, "", totals, best, best)
    assert line.regret == pytest.approx([(0.1 + 0.5 + 0) / 3])


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A set of three tasks, and a folder with what two seeds of all its groups left."""
    whole = truth_sets.planted_clusters(epochs=1)
    small = dataclasses.replace(whole, tasks=whole.tasks[:3], largest=3)
    rows = [
        Row(Candidate(group).name(small.tasks), group, seed, task, split, 1.0, {}, 1.0)
        for seed in (0, 1)
        for group in truth_networks.groups_to_train(small)
        for task in group
        for split in ("validation", "test")
    ]
    save_results(tmp_path / "results.json", rows)
    for row in rows:
        write_early(tmp_path, row)
    trained_now = []

    def sweep(folder, jobs, data, processes):
        found = load_results(folder / "results.json")
        known = {(row.network, row.seed) for row in found}
        trained_now.extend(
            job.network for job in jobs if (job.network.name, job.network.seed) not in known
        )
        for row in rows:
            write_early(folder, row)
        return rows

    monkeypatch.setattr(truth_networks, "run_sweep", sweep)
    return small, tmp_path, trained_now


def write_early(folder, row):
    path = folder / "early" / f"{row.network}_seed{row.seed}.json"
    if not path.exists():
        files.write_json(path, dict.fromkeys(row.tasks, 2.0))


def test_short_trainings_are_read(trained):
    small, folder, trained_now = trained
    rows, early = truth_networks.train_groups_of(small, folder, range(2))
    assert trained_now == []
    validation = [row for row in rows if row.split == "validation"]
    assert [(row.tasks, row.seed, row.task) for row in early] == [
        (row.tasks, row.seed, row.task) for row in validation
    ]
    assert {(row.split, row.loss) for row in early} == {("validation", 2.0)}


def test_without_its_short_training_a_network_is_trained_again(trained):
    small, folder, trained_now = trained
    (folder / "early" / "joint_seed1.json").unlink()
    truth_networks.train_groups_of(small, folder, range(2))
    assert [(one.name, one.seed) for one in trained_now] == [("joint", 1)]


@pytest.mark.parametrize("task", ["a1", "e"])
def test_short_trainings_of_what_is_no_loss_or_of_other_tasks(task, trained):
    small, folder, _ = trained
    losses = {**dict.fromkeys(small.tasks, 2.0), task: "low"}
    files.write_json(folder / "early" / "joint_seed1.json", losses)
    with pytest.raises(ValueError, match=r"joint_seed1.json should hold the losses of .*delete it"):
        truth_networks.train_groups_of(small, folder, range(2))


def test_groups_of_the_sets():
    assert len(truth_networks.groups_to_train(truth_sets.digits_of_6())) == 63
    nine = truth_networks.groups_to_train(truth_sets.digits_of_9())
    assert len(nine) == len(set(nine)) == 9 + 36 + 84 + 20 + 1
    assert nine[-1] == truth_sets.digits_of_9().tasks
    assert all(3 < len(group) < 9 for group in nine[129:-1])


def test_the_sets_are_whole():
    for make in truth_sets.SETS.values():
        truth_set = make()
        sizes = {split: len(x) for split, (x, _) in truth_set.splits.items()}
        assert [*sizes] == ["train", "validation", "test"]
        for split, (_, y) in truth_set.splits.items():
            assert tuple(y) == truth_set.tasks
            assert all(values.shape == (sizes[split], 1) for values in y.values())
            assert all(np.isfinite(values).all() for values in y.values())


def test_worst_nuclei_are_larger_where_the_diagnosis_is_malignant():
    x, y = truth_sets.cancer().splits["test"]
    assert x.shape[1] == 10
    malignant = y["malignant"][:, 0] == 1
    assert 0.2 < malignant.mean() < 0.5
    assert y["worst_radius"][malignant].mean() > y["worst_radius"][~malignant].mean() + 1


def test_what_serves_more_networks_is_judged_by_as_many():
    truth = make_truth(noise=0.0)
    (single,) = (line for line in truth_regret.all_lines(truth, truth, {}) if line.way == "single")
    assert (single.networks == 4).all()
    assert single.best == pytest.approx(np.full((1, 4), truth.total(truth.best_choice(4))))
    totals = [truth.total(truth.best_choice(number)) for number in range(1, 6)]
    assert totals == sorted(totals, reverse=True) and totals[3] == totals[4]


def test_joint_or_single_networks_are_chosen_by_validation():
    # Of "a" and "b" the joint network is better, of the others their own.
    truth = make_truth()
    joint, validation = truth.row(TASKS), truth.validation.copy()
    validation[:, joint] = [0, 0, 9, 9]
    truth = dataclasses.replace(truth, validation=validation)
    lines = truth_regret.all_lines(truth, truth, {})
    (line,) = (one for one in lines if one.way == "joint or single")
    wanted = truth.total([joint, joint, truth.row(("c",)), truth.row(("d",))])
    assert line.totals == pytest.approx(np.full((1, 4), wanted))
    assert (line.networks == 3).all()


def test_the_figure_has_a_panel_for_each_set():
    best = np.ones((2, 4))
    joint = truth_regret.Line("joint", 0, "", best[:1] * 1.5, best[:1], best[:1])
    lookahead = truth_regret.Line("x", 1, "zero", best * [[1.1], [1.3]], best, best)
    ways = {("x", 1, "zero"): "lookahead", ("y", 1, ""): "not there", ("joint", 0, ""): "joint"}
    figure = plot_regret({"one": [joint, lookahead], "two": [joint]}, ways)
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("one", "two")
    assert [label.get_text() for label in one.get_yticklabels()] == [*ways.values()]
    points = [line.get_xydata()[0].tolist() for line in one.lines if len(line.get_xydata()) == 1]
    assert points == [pytest.approx([20, 0]), pytest.approx([50, 2])]
    # The first way comes first: on top.
    assert one.get_ylim()[0] > one.get_ylim()[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--seeds=1"], r"--seeds should be at least 2. Received: seeds=1."),
        (["--runs=0"], r"--runs should be at least 1. Received: runs=0."),
        (["--epochs=7"], r"holds another run: epochs was 20 and is 7"),
    ],
)
def test_the_command_ends_with_one_line(given, message, tmp_path, monkeypatch):
    files.write_json(tmp_path / "planted" / "settings.json", {"set": "planted", "epochs": 20})
    folder = f"--output_dir={tmp_path}"
    monkeypatch.setattr("sys.argv", ["truth", folder, "--sets", "planted", *given])
    with pytest.raises(SystemExit, match=f"^benchmarks.truth: .*{message}"):
        truth.main()


@pytest.mark.slow
def test_a_small_truth_table(tmp_path, monkeypatch):
    whole = truth_sets.planted_clusters(epochs=1)
    tasks = whole.tasks[:3]
    splits = {
        split: (x, {task: y[task] for task in tasks}) for split, (x, y) in whole.splits.items()
    }
    small = truth_sets.TruthSet(tasks, splits, whole.build_model, epochs=1, largest=3)
    monkeypatch.setitem(truth_sets.SETS, "small", lambda epochs: small)
    some = ("lookahead", "held-out", "proximal")
    options = {name: truth_networks.estimators(small)[name] for name in some}
    monkeypatch.setattr(truth_networks, "estimators", lambda truth_set: options)
    folder = tmp_path / "small"
    lines = truth.judge("small", folder, 2, 2, 1)
    page = (folder / "truth.md").read_text()
    assert "| HOA " in page and "The guard:" in page
    # Of one epoch, the first fifth is all of it: ESA measures what the networks have at the end.
    rows = json.loads((folder / "results.json").read_text())
    early = json.loads((folder / "early" / "joint_seed1.json").read_text())
    for row in rows:
        if (row["network"], row["seed"], row["split"]) == ("joint", 1, "validation"):
            assert early[row["task"]] == pytest.approx(row["loss"], rel=1e-5)
    names = {line["way"] for line in json.loads((folder / "truth.json").read_text())}
    assert {*some, "ESA", "random"} <= names
    # With other seeds than those of the groups.
    measured = folder / "affinities" / "held-out" / "networks"
    seeds = [path.name for path in sorted(measured.glob("*.affinity.json"))]
    assert seeds == ["joint_seed100.affinity.json", "joint_seed101.affinity.json"]
    # Nothing is trained again.
    monkeypatch.setattr("tag_keras.job.train_network", None)
    again = truth.judge("small", folder, 2, 2, 1)
    assert [line.totals.tolist() for line in again] == [line.totals.tolist() for line in lines]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_the_guard_never_loses_against_the_joint_network_on_validation(seeds, seed):
    truth = make_truth(seeds=seeds, generator_seed=seed)
    for number in (2, 3):
        affinity = make_affinity(seed)
        result = guarded(truth, truth.choose(scores_of_affinity(truth, affinity, "zero"), number))
        assert result.validation <= result.validation_joint
        joint = truth.row(TASKS)
        best = truth.validation[:, joint].sum(axis=1).argmin()
        assert result.validation_joint == pytest.approx(truth.validation[best, joint].sum())
        assert result.test_joint == pytest.approx(truth.test[best, joint].sum())


def test_what_the_guard_serves_is_judged_on_test_data():
    # The group of all but "d" is as bad as can be, networks of their own hardly better.
    truth = make_truth(seeds=(0,))
    bad = truth.row(TASKS[:3])
    validation = truth.validation.copy()
    validation[:, bad, :3] = 100
    validation[:, range(3), range(3)] = 50
    truth = dataclasses.replace(truth, validation=validation)
    serving = [bad, bad, bad, truth.row(("d",))]
    result = guarded(truth, serving)
    joint = truth.row(TASKS)
    assert (result.moved, result.serving) == (3, [joint, joint, joint, serving[3]])
    wanted = truth.test[0, joint, :3].sum() + truth.test[0, truth.row(("d",)), 3]
    assert result.test == pytest.approx(wanted)
    assert result.test_without == pytest.approx(truth.test[0, serving, range(4)].sum())
    assert result.test_single == pytest.approx(np.trace(truth.test[0, :4]))


def test_the_guards_promise_is_counted_against_joint_and_single_networks():
    # On validation data the joint network is perfect, so that all tasks go to it; on test data it
    # has half, or twice, of what the single networks have.
    truth, joint = make_truth(), GROUPS.index(TASKS)
    validation, test = truth.validation.copy(), truth.test.copy()
    validation[:, joint] = 0.0
    test[:, range(4), range(4)] = 1.0
    for loss, wanted in ((0.5, 0.0), (2.0, 1.0)):
        test[:, joint] = loss
        table = dataclasses.replace(truth, validation=validation, test=test.copy())
        found = promises(table, {"x": [make_affinity(), make_affinity(1)]})
        assert [one.seeds for one in found] == [(0,), (1,), (2,), (0, 1, 2)]
        for one in found:
            assert one.above == 0
            assert one.change == pytest.approx(np.full(2 * 4 * 3, wanted))
            change = 100 * wanted
            assert one.cells[1:4] == ["24", "0", f"{change:+.1f} ± 0.0, {change:+.1f}"]


def test_what_was_served_without_the_guard_is_told():
    truth = make_truth(seeds=(0, 1), noise=0.0)
    affinity = make_affinity()
    found = promises(truth, {"x": [affinity]})[0]
    serving = truth.choose(scores_of_affinity(truth, affinity, "forbid"), 2)
    better = min(truth.total(truth.joint()), truth.total(truth.single()))
    assert found.without[0] == pytest.approx(truth.total(serving) / better - 1)
