"""Colours of heat maps: limits without outliers, and texts that can be read on each colour."""

import numpy as np
import pytest

from tag_keras.utils.colours import between_tasks, heat_colours, robust_limit


def test_between_tasks_leaves_out_the_diagonal():
    np.testing.assert_array_equal(between_tasks(np.ones((2, 2))), [[np.nan, 1], [1, np.nan]])


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        # The quantile of ten values is the ninth, 0.9: 2.6 is no outlier, 2.8 is one.
        ([0.1, -0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -0.9, 2.6], 2.6),
        ([0.1, -0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -0.9, 2.8], 0.9),
        ([0.1, -0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -0.9, np.nan], 0.9),
        # Of the six pairs of three tasks, one may be an outlier.
        ([0.1, 0.1, -0.1, 0.1, 0.1, -1e9], 0.1),
        # Of two, none.
        ([0.1, 1e9], 1e9),
        # All others are 0: the only one that is not is no outlier.
        ([0.0] * 11 + [0.5], 0.5),
        ([0.0] * 12, 1.0),
        ([np.nan] * 12, 1.0),
        ([], 1.0),
    ],
)
def test_the_limit_is_the_largest_value_that_is_no_outlier(values, limit):
    assert robust_limit(np.array(values)) == limit
    assert robust_limit(-np.array(values)) == limit


def contrast(first, second):
    """Contrast of two colours by WCAG 2.1."""

    def luminance(colour):
        parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_every_colour():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert min(contrast(*heat_colours(share)) for share in np.linspace(-1, 1, 401)) > 4.5


def test_blue_helps_and_red_hurts():
    assert heat_colours(0.0) == ("#ffffff", "#000000")
    assert heat_colours(1.0)[0] == heat_colours(7.0)[0] == "#2166ac"
    assert heat_colours(-1.0)[0] == heat_colours(-7.0)[0] == "#b2182b"
