"""Losses of joint, single and grouped networks side by side."""

import numpy as np
from guard_cases import GROUPING, LOSSES, make_rows
from report_cases import ABC_GROUPING, make_grouping, rows_with_totals

from tag_keras.comparison.comparison import loss_table, losses_as_text


def test_the_table_is_of_the_seeds_in_order():
    table = loss_table(GROUPING, make_rows()[::-1], "validation")
    assert [*table.losses] == ["group_0", "group_1", "joint", "single_a", "single_c"]
    for name, losses in LOSSES.items():
        for task, values in losses.items():
            np.testing.assert_array_equal(table.losses[name][task], values)


def test_the_losses_as_text():
    # a has half of each total, b and c a quarter. Deviation of 1, 2 and 3: 1.
    rows = rows_with_totals(joint=[1.0, 2.0, 3.0], grouped=[2.0, 2.0, 2.0])
    assert losses_as_text(make_grouping(**ABC_GROUPING), rows).splitlines() == [
        "test loss                        joint           grouped",
        "a                     1.0000 +- 0.5000  1.0000 +- 0.0000",
        "b                     0.5000 +- 0.2500  0.5000 +- 0.0000",
        "c                     0.5000 +- 0.2500  0.5000 +- 0.0000",
        "total                 2.0000 +- 1.0000  2.0000 +- 0.0000",
    ]
    # Of a training that diverged.
    rows = rows_with_totals(joint=[1.0, 2.0, 3e20], grouped=[1e8, 1e8, 1e8])
    assert losses_as_text(make_grouping(**ABC_GROUPING), rows).splitlines()[-1] == (
        "total                 1.0e+20 +- 1.7e+20  100000000.0000 +- 0.0000"
    )
    one = losses_as_text(make_grouping(**ABC_GROUPING), rows_with_totals(joint=[1.0]))
    assert one.splitlines()[-1] == "total                           1.0000"
