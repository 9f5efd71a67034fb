"""The figures of the affinities: what stands where, in which colour and unit."""

import re

import matplotlib.pyplot
import numpy as np
import pytest
from report_cases import ABC, MINUS, TASKS, make_affinity

from tag_keras.affinity import Affinity
from tag_keras.report.plots import plot_affinity, plot_history
from tag_keras.utils.colours import find_scale


def texts_of(axes):
    return {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}


def test_heat_map_has_sources_in_rows():
    mean = [[0.9, 0.0421, -0.013], [0.011, 0.8, 0.0012], [-0.02, 0.005, 0.7]]
    error = np.full((3, 3), 0.0021)
    axes = plot_affinity(make_affinity(ABC, mean=mean, standard_error=error))
    cells = texts_of(axes)
    assert len(cells) == 9
    # Keys are (column, row): source a, target b.
    assert cells[1, 0] == "42.1\n±2.1"
    assert cells[0, 1] == "11.0\n±2.1"
    assert cells[2, 0] == f"{MINUS}13.0\n±2.1"
    # Its interval contains 0.
    assert cells[2, 1] == "(1.2)\n±2.1"
    assert cells[0, 0] == "900.0\n±2.1"
    assert [label.get_text() for label in axes.get_xticklabels()] == list(ABC)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ABC)
    assert "target" in axes.get_xlabel()
    assert "source" in axes.get_ylabel()


def test_heat_map_puts_what_student_t_does_not_tell_from_0_in_parentheses():
    # Mean 0.5 and standard error 0.2: 2.5 of it. Of 4 replicates 3.18 would be needed at 95 %.
    error = np.full((2, 2), 0.2)
    mean = np.full((2, 2), 0.5)
    for replicates, text in ((None, "500\n±200"), (np.full((4, 2, 2), 0.5), "(500)\n±200")):
        affinity = Affinity(["a", "b"], mean, error, replicates=replicates)
        cell = texts_of(plot_affinity(affinity))[1, 0]
        assert re.sub(r"\.0+", "", cell) == text


def test_heat_map_colours_leave_out_the_diagonal():
    figure = plot_affinity(make_affinity(ABC, mean=np.eye(3) * 0.9 - 0.05)).figure
    image = figure.axes[0].images[-1]
    assert image.get_clim() == pytest.approx((-50, 50))
    shown = np.ma.getmaskarray(np.ma.masked_invalid(image.get_array()))
    np.testing.assert_array_equal(shown, np.eye(3, dtype=bool))
    # Negative is red, positive blue.
    red, _, blue, _ = image.cmap(image.norm(-50))
    assert red > blue
    assert "10⁻³" in figure.axes[1].get_ylabel()


def test_heat_map_without_errors_and_with_a_pair_not_measured():
    mean = [[0.9, 2.0, np.nan], [1.0, 0.8, 0.5], [-3.0, 0.5, 0.7]]
    count = np.where(np.isnan(mean), 0, 5)
    cells = texts_of(plot_affinity(Affinity(ABC, mean, count=count)))
    assert cells[2, 0] == "not\nmeasured"
    assert cells[0, 2] == f"{MINUS}3.00"


@pytest.mark.parametrize(("size", "cells"), [(1, 1), (2, 4), (12, 144), (13, 0)])
def test_heat_map_omits_numbers_that_do_not_fit(size, cells):
    tasks = [f"a_long_name_of_a_task_{index}" for index in range(size)]
    assert len(plot_affinity(make_affinity(tasks)).texts) == cells


def test_history_has_a_panel_for_each_target():
    affinity = make_affinity()
    figure = plot_history(affinity)
    assert [axes.get_title() for axes in figure.axes] == list(TASKS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(TASKS)
    panel = figure.axes[2]
    curves = [line for line in panel.lines if len(line.get_xdata()) == 12]
    # Every source but the target itself, in order.
    assert len(curves) == len(TASKS) - 1
    np.testing.assert_allclose(curves[0].get_ydata(), 1000 * affinity.history[:, 0, 2])
    np.testing.assert_array_equal(curves[0].get_xdata(), np.arange(1, 13))


def test_history_colours_tell_twelve_sources_apart():
    figure = plot_history(make_affinity([f"t{index}" for index in range(12)]))
    handles = figure.legends[0].legend_handles
    assert len({(handle.get_color(), handle.get_linestyle()) for handle in handles}) == 12


def test_history_leaves_gaps():
    history = np.array(make_affinity(ABC).history)
    history[3, 0, 1] = np.nan
    history[:, 2, 1] = np.nan
    history[:, :, 2] = np.nan
    figure = plot_history(make_affinity(ABC, history=history))
    curves = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 12]
    assert len(curves) == 1
    assert np.isnan(curves[0].get_ydata()[3])
    assert [text.get_text() for text in figure.axes[2].texts] == ["not measured"]


def test_no_history():
    assert plot_history(make_affinity(ABC, epochs=0)) is None
    assert plot_history(make_affinity(ABC, history=np.full((2, 3, 3), np.nan))) is None
    assert plot_history(make_affinity(["a"])) is None


def test_figures_are_not_pyplot_figures():
    plot_affinity(make_affinity(ABC))
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.parametrize("size", [1e-320, 1e-3, 1.0, 1e300])
def test_the_scale_of_any_number_is_finite(size):
    factor, unit, largest = find_scale(np.array([[0.0, -size], [size / 2, 0.0]]))
    assert largest == size and np.isfinite(factor) and size * factor < 1000
    assert bool(unit) == (size != 1.0)
