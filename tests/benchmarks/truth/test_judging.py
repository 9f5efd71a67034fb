"""What judges the rules: seeds that took no part in the choice."""

import dataclasses

import numpy as np
import pytest
from group_tables import losses_of, random_table, row, rows, table_of

import tag_keras
from benchmarks.truth import judging
from benchmarks.truth.judging import ORACLE, Forecast, Result, Verdict, by_problem, judge, splits
from benchmarks.truth.rules import RULES, Measured

# Seed by seed. By validation losses, the first one is for the joint network, the second is not.
VALIDATION = [{"a": (2,), "b": (2,), "ab": (1, 1)}, {"a": (1,), "b": (1,), "ab": (2, 2)}]
TEST = [{"a": (1,), "b": (1,), "ab": (2, 2)}, {"a": (1.5,), "b": (3,), "ab": (1, 4)}]


@pytest.mark.parametrize("num_seeds", [2, 7, 8])
def test_splits_are_halves_that_do_not_overlap(num_seeds):
    found = [*splits(num_seeds, 20)]
    assert len(found) == 20 and found == [*splits(num_seeds, 20)]
    for choosing, judges in found:
        assert sorted(choosing + judges) == [*range(num_seeds)]
        assert (choosing, judges) == (sorted(choosing), sorted(judges))
        assert len(judges) - len(choosing) == num_seeds % 2
    # Every seed chooses in some splits and judges in others, and many splits differ.
    assert {seed for choosing, _ in found for seed in choosing} == {*range(num_seeds)}
    assert len({tuple(choosing) for choosing, _ in found}) > min(num_seeds - 1, 10)
    # More splits begin alike.
    assert [*splits(num_seeds, 30)][:20] == found


def test_gains_of_two_seeds_by_hand():
    table = table_of(*map(losses_of, VALIDATION), test=[*map(losses_of, TEST)])
    chosen = {
        "joint": RULES["joint"],
        "single": RULES["single"],
        # (1 + 1) of the joint network by the first seed, (1 + 1) of single ones by the second.
        "raw": RULES["all groups, raw"],
    }
    result = judge(table, chosen, num_networks=2, num_splits=6)
    first = [choosing == [0] for choosing, _ in splits(2, 6)]
    assert {*first} == {True, False}

    def assert_is(name, if_first, if_second):
        wanted = np.array([if_first if one else if_second for one in first])
        verdict = result.verdicts[name]
        found = np.transpose([verdict.gains, verdict.over_yardstick, verdict.served])
        np.testing.assert_allclose(found, wanted, err_msg=name)

    # If the first seed chooses, the second judges: joint 1 + 4, single 1.5 + 3; joint is the
    # yardstick, because the first seed says so. If the second chooses, the first judges: joint
    # 2 + 2, single 1 + 1; single is the yardstick.
    assert_is("joint", (0, 0, 1), (0, (2 - 4) / 4, 1))
    assert_is("single", ((5 - 4.5) / 5, (5 - 4.5) / 5, 2), ((4 - 2) / 4, 0, 2))
    assert_is("raw", (0, 0, 1), ((4 - 2) / 4, 0, 2))
    # By the first seed's test losses single ones; by the second one's, "ab" for "a" and "b" alone.
    assert_is(ORACLE, ((5 - 4.5) / 5, (5 - 4.5) / 5, 2), ((4 - 3) / 4, (2 - 3) / 4, 2))
    # One judging seed has no standard error.
    assert result.forecasts == []
    assert (result.about, result.num_tasks) == (table.about, 2)


def changed(table, name, places, seed=9):
    """The table with other random values of some seeds."""
    random = np.random.default_rng(seed)
    values = getattr(table, name).copy()
    values[places] = np.where(np.isnan(values[places]), np.nan, random.uniform(size=(7, 3)))
    return dataclasses.replace(table, **{name: values})


def choices_of(table, monkeypatch, names=tuple(RULES)):
    """What rules choose in the first split, and what `choose` gives the oracle."""
    found = {}

    def spy(name):
        def rule(*given):
            found[name] = RULES[name](*given)
            return found[name]

        return rule

    def choose(*given):
        found[ORACLE] = original(*given)
        return found[ORACLE]

    original = judging.choose
    monkeypatch.setattr(judging, "choose", choose)
    # They take the estimates' time.
    monkeypatch.setattr(judging, "_forecasts", lambda *given: [])
    judge(table, {name: spy(name) for name in names}, num_networks=2, num_splits=1)
    monkeypatch.undo()
    return {name: [*serving] for name, serving in found.items()}


def test_no_rule_sees_test_losses_or_the_seeds_that_judge(monkeypatch):
    table = random_table(3, num_seeds=4)
    ((choosing, judges),) = splits(4, 1)
    found = choices_of(table, monkeypatch)
    assert set(found) == {*RULES, ORACLE}
    other = changed(table, "test", slice(None))
    for name in ("validation", "early"):
        other = changed(other, name, judges)
    affinities = table.affinities["lookahead"].copy()
    affinities[judges] *= -1
    other = dataclasses.replace(other, affinities={"lookahead": affinities})
    again = choices_of(other, monkeypatch)
    assert {name: again[name] for name in RULES} == {name: found[name] for name in RULES}
    # It is not that nothing matters: what the choosing seeds say does.
    for name, rule in {"validation": "all groups, raw", "early": "ESA"}.items():
        here = choices_of(changed(table, name, choosing), monkeypatch, [rule])
        assert here[rule] != found[rule]
    affinities = {"lookahead": -table.affinities["lookahead"]}
    here = choices_of(
        dataclasses.replace(table, affinities=affinities), monkeypatch, ["TAG as in the paper"]
    )
    assert here["TAG as in the paper"] != found["TAG as in the paper"]


def test_the_oracle_sees_test_losses_of_the_choosing_seeds_only(monkeypatch):
    table = random_table(3, num_seeds=4)
    ((choosing, judges),) = splits(4, 1)
    found = choices_of(table, monkeypatch, [])[ORACLE]
    for name, places in {"validation": slice(None), "early": slice(None), "test": judges}.items():
        assert choices_of(changed(table, name, places), monkeypatch, [])[ORACLE] == found
    # These are bad for every network but single ones.
    test = table.test.copy()
    test[choosing] += 9 * np.array([[mask.bit_count() > 1] for mask in range(1, 8)])
    apart = dataclasses.replace(table, test=test)
    assert choices_of(apart, monkeypatch, [])[ORACLE] != found


def test_forecasts_by_hand():
    # One network per task is the better yardstick here, but the joint one is what counts.
    table = random_table(3, num_seeds=6, seed=3)
    found = judge(table, {"joint": RULES["joint"]}, num_networks=2, num_splits=1).forecasts
    wanted = []
    for choosing, judges in splits(6, 1):
        estimate = Measured.of(table, choosing).estimate
        joint = estimate.mean[6].sum()
        for option in tag_keras.decide_groups(estimate, 2).options[1:]:
            told, figures = option.over_joint, []
            assert told != option.over_yardstick
            for losses in (table.test, table.validation):
                totals = []
                for seed in judges:
                    served = 0.0
                    for place, task in enumerate(table.tasks):
                        group = option.grouping.groups[option.grouping.serves[task]]
                        served += losses[seed, row(group), place]
                    totals.append((losses[seed, 6].sum(), served))
                mean = sum(together for together, _ in totals) / 3
                gains = [(together - served) / mean for together, served in totals]
                middle = sum(gains) / 3
                # The variance of three values over 2, and of their mean over 3.
                variance = sum((gain - middle) ** 2 for gain in gains) / 2
                figures += [middle, (variance / 3) ** 0.5]
            low, high = told.interval
            wanted.append((told.probability, low / joint, high / joint, *figures))
    assert len(wanted) > 1
    np.testing.assert_allclose([dataclasses.astuple(one) for one in found], wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("gain", "error", "covers"),
    [
        # Without an error, the ends of the interval 0.1 ± 1.645 * 0.03 count.
        (0.1 + 0.0493, 0.0, True),
        (0.1 + 0.0494, 0.0, False),
        (0.1 - 0.0493, 0.0, True),
        (0.1 - 0.0494, 0.0, False),
        # Deviations of 0.03 and 0.04 are one of 0.05: 0.1 ± 1.645 * 0.05.
        (0.1 + 0.0822, 0.04, True),
        (0.1 + 0.0823, 0.04, False),
        (0.1 - 0.0822, 0.04, True),
        (0.1 - 0.0823, 0.04, False),
    ],
)
def test_an_interval_is_widened_by_the_error_of_the_gain(gain, error, covers):
    ends = 0.1 - 1.645 * 0.03, 0.1 + 1.645 * 0.03
    forecast = Forecast(0.9, *ends, gain=0, error=0, same_data=0, same_data_error=0)
    assert forecast.covers(gain, error) is covers


def test_regimes_are_averaged_by_problem():
    def result(problem, *gains):
        verdict = Verdict(np.array(gains), np.zeros(2), np.ones(2))
        return Result({"problem": problem}, 3, {"some": verdict}, [])

    results = [
        *(result("digits6", 0.1, 0.3), result("factors0", 0, 0.2), result("factors2", 0.4, 0.6)),
        *(result("digits6", 0.3, 0.3), result("factors0", 0.3, 0.3)),
    ]
    # Factors are one problem, drawn several times.
    found = by_problem(results, "some", "gains")
    assert [*found] == ["digits6", "factors"]
    assert [*found.values()] == pytest.approx([(0.2 + 0.3) / 2, (0.1 + 0.5 + 0.3) / 3])
    assert by_problem(results, "some", "served") == {"digits6": 1, "factors": 1}


@pytest.mark.parametrize("serving", [rows("a", "a"), rows("ab"), [0, 3], [0, -1], []])
def test_a_rule_that_does_not_serve_every_task_is_named(serving):
    table = table_of(*map(losses_of, VALIDATION))
    message = "the rule mine:wrong should give, for each task, the row of a group that has it"
    with pytest.raises(ValueError, match=message):
        judge(table, {"mine:wrong": lambda measured, number: serving}, num_splits=1)


def test_one_seed_cannot_choose_and_judge():
    with pytest.raises(ValueError, match=r"a table should have at least two seeds.*seeds=\(0,\)"):
        judge(table_of(losses_of(VALIDATION[0])), RULES)
