"""The figures of the truth benchmark: what stands where."""

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks.truth import figures
from benchmarks.truth.judging import Result, Verdict
from benchmarks.truth.rules import networks_trained
from tag_keras.utils.text import with_minus


def result(problem, width, size, *, over=0.0, num_tasks=3, **gains):
    """A result whose rules, such as `joint=0.1`, have these gains."""
    gains = {name.replace("_", " "): gain for name, gain in gains.items()}
    verdicts = {
        name: Verdict(np.array([gain - 0.1, gain + 0.1]), np.full(2, over), np.ones(2))
        for name, gain in {figures.DECIDED: 0.0, **gains}.items()
    }
    return Result({"problem": problem, "width": width, "size": size}, num_tasks, verdicts, [])


def test_gains_stand_over_networks_trained():
    results = [
        result("one", 8, 100, joint=0.0, HOA=0.1, single=0.05, mine=0.3),
        result("one", 8, None, joint=0.0, HOA=0.3, single=0.05, mine=0.3),
        result("two", 8, 100, joint=0.0, HOA=0.4, single=0.05, mine=0.3, num_tasks=6),
    ]
    (axes,) = figures.plot_gains(results, num_networks=2).axes
    assert axes.get_xscale() == "log"
    # What a rule of one's own trains is not known.
    names = [text.get_text() for text in axes.texts]
    assert sorted(names) == ["HOA", figures.DECIDED, "joint", "single"]
    points = {
        name: bars.lines[0].get_xydata()[0].tolist()
        for name, bars in zip(names, axes.containers, strict=True)
    }
    # Of three tasks twice, and of six: 3 + 3 + 2, and 6 + 15 + 2. Problems have 20 and 40 %.
    assert points["HOA"] == pytest.approx([(8 + 8 + 23) / 3, 30])
    assert points["joint"] == pytest.approx([1, 0])
    assert points["single"] == pytest.approx([(3 + 3 + 6) / 3, 5])
    assert points[figures.DECIDED] == pytest.approx([(7 + 7 + 63) / 3, 0])
    # The standard error of two problems is half their difference.
    bars = dict(zip(names, axes.containers, strict=True))["HOA"].lines[2][0]
    (ends,) = bars.get_segments()
    assert ends[:, 1] == pytest.approx([20, 40])
    # A name stands above its bar.
    assert [text.xy[1] for text in axes.texts if text.get_text() == "HOA"] == pytest.approx([40])


def test_points_that_lie_on_each_other_are_moved_apart():
    places = figures.moved_apart({"c": 100.0, "a": 1.0, "b": 100.0, "e": 150.0, "d": 113.0})
    assert [*places] == ["a", "c", "b", "d", "e"]
    step = 1.14
    wanted = [1, 100, 100 * step, 100 * step**2, 150]
    assert [*places.values()] == pytest.approx(wanted)
    trained = networks_trained(8, 3)
    moved = figures.moved_apart(trained)
    ratios = np.divide([*moved.values()][1:], [*moved.values()][:-1])
    assert ratios.min() > step - 1e-9 and all(moved[name] >= trained[name] for name in trained)


def test_regimes_have_a_panel_for_each_problem():
    results = [
        result("one", 8, 1000, over=0.012),
        result("one", 32, None, over=-0.04),
        result("one", 32, 100, over=-0.0001),
        result("factors0", 8, 100, over=0.01),
        result("factors1", 8, 100, over=0.02),
    ]
    one, factors, bar = figures.plot_regimes(results).axes
    assert [panel.get_title() for panel in (one, factors)] == ["one", "factors"]
    for panel in (one, factors):
        assert [label.get_text() for label in panel.get_xticklabels()] == ["100", "1000", "all"]
        assert [label.get_text() for label in panel.get_yticklabels()] == ["32", "8"]
    # By (column, row). Factors that were drawn several times are averaged.
    cells = [
        {text.get_position(): text.get_text() for text in panel.texts} for panel in (one, factors)
    ]
    wanted = {(1, 1): "1.2", (2, 0): with_minus("-4.0"), (0, 0): "0.0"}
    assert cells == [wanted, {(0, 1): "1.5"}]
    (image,) = one.images
    assert image.get_clim() == pytest.approx((-4, 4))
    assert image.get_array()[1, 1] == pytest.approx(1.2)
    # A gain is blue, a loss red, as in the report.
    red, _, blue, _ = image.cmap(image.norm(4))
    assert blue > red
    assert bar.get_ylabel() == "gain over the better yardstick, %"


def test_both_are_written_also_for_one_table_without_gains(tmp_path):
    results = [result("one", 8, None, joint=0.0)]
    (image,) = figures.plot_regimes(results).axes[0].images
    # White, between red and blue.
    assert image.norm(0.0) == 0.5 and image.get_clim() == (-1, 1)
    figures.write(results, 3, tmp_path / "new")
    found = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert found == ["gain_by_networks.png", "where_groups_pay.png"]
    for name in found:
        image = imread(tmp_path / "new" / name)
        # Something is drawn.
        assert min(image.shape[:2]) > 100 and image.std() > 0.01


def test_panels_without_a_problem_are_not_seen():
    results = [result(f"problem{place}", 8, 100, over=0.01) for place in range(5)]
    panels = figures.plot_regimes(results).axes[:8]
    assert [panel.get_visible() for panel in panels] == [True] * 5 + [False] * 3
