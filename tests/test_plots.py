"""The public figures: on axes that are given or new, and legible with outliers and many tasks."""

import matplotlib.figure
import matplotlib.pyplot
import numpy as np
import pytest
from report_cases import (
    ABC,
    ABC_GROUPING,
    FOUR,
    FOUR_AFFINITY,
    make_affinity,
    make_choice,
    make_grouping,
    rows_with_totals,
)

import tag_keras
from tag_keras import plots

GROUPING = make_grouping(**ABC_GROUPING)
ROWS = rows_with_totals(joint=[1.0, 1.1], grouped=[0.9, 1.0])
# By name: draws on the axes that it gets.
FIGURES = {
    "affinity": lambda ax: plots.plot_affinity(make_affinity(ABC), ax),
    "groups": lambda ax: plots.plot_groups(make_affinity(ABC), GROUPING, ax),
    "losses": lambda ax: plots.plot_losses(GROUPING, ROWS, ax),
    "frontier": lambda ax: plots.plot_frontier(
        FOUR_AFFINITY, [make_choice(0.01), make_choice(0.02)], make_choice(), ax
    ),
}


@pytest.fixture(autouse=True)
def close():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("name", FIGURES)
def test_without_axes_pyplot_gets_a_figure_to_show(name):
    axes = FIGURES[name](None)
    assert [matplotlib.pyplot.figure(number) for number in matplotlib.pyplot.get_fignums()] == [
        axes.figure
    ]
    assert axes is axes.figure.axes[0]
    axes.figure.draw_without_rendering()


@pytest.mark.parametrize("name", FIGURES)
def test_axes_that_are_given_are_drawn_on_and_keep_their_figure(name):
    figure = matplotlib.figure.Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert FIGURES[name](right) is right
    assert not left.has_data() and right.has_data()
    assert not matplotlib.pyplot.get_fignums() and [*figure.get_size_inches()] == [12, 5]
    # The legend is one of the axes: below the figure, it would be that of the left ones, too.
    assert not figure.legends and (right.get_legend() is None) == (name == "affinity")
    figure.draw_without_rendering()


def drawn(mean):
    axes = plots.plot_affinity(
        tag_keras.Affinity([f"t{index}" for index in range(len(mean))], mean)
    )
    image = axes.images[-1]
    return image, image.colorbar.extend


@pytest.mark.parametrize(
    ("outliers", "extend"),
    [({}, "neither"), ({1: 90}, "max"), ({2: -90}, "min"), ({1: 90, 2: -90}, "both")],
)
def test_outliers_do_not_wash_out_the_other_colours(outliers, extend):
    mean = np.where(np.eye(9), 0.9, 0.01)
    for target, outlier in outliers.items():
        mean[0, target] = outlier
    image, found = drawn(mean)
    # The unit is a thousandth, whatever the outliers.
    assert image.get_clim() == pytest.approx((-10, 10)) and found == extend


def test_rows_and_columns_stand_in_the_order_of_the_groups():
    mean = np.arange(9.0).reshape(3, 3) / 10
    grouping = tag_keras.Grouping.from_groups(ABC, [["b"], ["a", "c"]])
    axes = plots.plot_affinity(tag_keras.Affinity(ABC, mean), grouping=grouping)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["b", "a", "c"]
    # In the image and in the text: from b to a 0.3, from a to c 0.2, in thousandths.
    image = axes.images[-1].get_array()
    assert (image[0, 1], image[1, 2]) == pytest.approx((300, 200))
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert (texts[1, 0], texts[2, 1]) == ("300", "200")
    # One line each way, between the groups.
    assert [*axes.lines[0].get_ydata()] == [*axes.lines[1].get_xdata()] == [0.5, 0.5]
    assert len(axes.lines) == 2
    assert not plots.plot_affinity(tag_keras.Affinity(ABC, mean)).lines


def test_the_heat_map_grows_with_the_tasks():
    tasks = [f"a_long_name_of_task_{index}" for index in range(40)]
    axes = plots.plot_affinity(make_affinity(tasks))
    axes.figure.savefig("/dev/null", format="png")
    heights = [label.get_window_extent().y0 for label in axes.get_yticklabels()]
    tall = axes.get_yticklabels()[0].get_window_extent().height
    # Names keep a distance.
    assert np.abs(np.diff(heights)).min() > 1.5 * tall and not axes.texts


def test_history_is_a_figure_of_a_panel_for_each_target():
    figure = plots.plot_history(make_affinity(ABC))
    assert [axes.get_title() for axes in figure.axes] == [*ABC]
    assert matplotlib.pyplot.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match=r"should have a history .* 0 epochs of 3 tasks"):
        plots.plot_history(make_affinity(ABC, epochs=0))


def test_losses_show_the_changes():
    axes = plots.plot_losses(GROUPING, iter(ROWS))
    # From 1.05 to 0.95, the same for each task and their total.
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xdata(), -100 * 0.1 / 1.05)
    assert [label.get_text() for label in axes.get_yticklabels()] == [*ABC, "total"]


@pytest.mark.parametrize("kind", ["joint", "grouped"])
def test_losses_without_a_change_are_refused(kind):
    with pytest.raises(ValueError, match="should have test losses of the joint network, and of"):
        plots.plot_losses(GROUPING, rows_with_totals(**{kind: [1.0]}))
    assert not matplotlib.pyplot.get_fignums()


def test_groups_of_other_tasks_are_refused():
    affinity, other = make_affinity(ABC), make_choice()
    message = (
        r"`grouping` should have the tasks of `affinity`, \('a', 'b', 'c'\)\. Received: tasks="
    )
    for draw in (
        lambda: plots.plot_affinity(affinity, grouping=other),
        lambda: plots.plot_groups(affinity, other),
        lambda: plots.plot_frontier(affinity, [other], other),
    ):
        with pytest.raises(ValueError, match=message):
            draw()
    with pytest.raises(ValueError, match="`frontier` should have at least one grouping"):
        plots.plot_frontier(FOUR_AFFINITY, [], make_choice())
    assert not matplotlib.pyplot.get_fignums() and other.tasks == FOUR
