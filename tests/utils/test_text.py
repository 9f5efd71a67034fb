"""Numbers and names in sentences, written out."""

import math

import pytest

from tag_keras.utils import text as wording


@pytest.mark.parametrize(
    ("mean", "noise", "expected"),
    [
        # Two digits of the noise, and as many decimals of the mean.
        (1.23456, 0.0789, "1.235 ± 0.079"),
        (1.23456, 0.789, "1.23 ± 0.79"),
        (123.456, 7.89, "123.5 ± 7.9"),
        (1234.56, 78.9, "1235 ± 79"),
        (1e-9, 2e-9, "1e-09 ± 2e-09"),
        (1.23456, 0.0, "1.235 ± 0"),
        (1.23456, math.nan, "1.235"),
    ],
)
def test_a_mean_and_its_noise(mean, noise, expected):
    assert wording.plus_minus(mean, noise) == expected


def test_a_number_of_so_many_decimals_is_short_if_it_is_huge():
    assert [wording.fixed(value, 2) for value in (0, -1.237, 123456789.1)] == [
        "0.00",
        "-1.24",
        "123456789.10",
    ]
    assert wording.fixed(2.5214440452810342e20, 4) == "2.5e+20"
    assert [wording.fixed(value, 1, "+") for value in (0.04, 3e21)] == ["+0.0", "+3.0e+21"]


def test_shares_numbers_and_lists():
    assert [wording.percent(share) for share in (0.0, 0.125, 1.0)] == ["0 %", "12 %", "100 %"]
    assert [wording.counted(n, "task") for n in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert [wording.joined("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [wording.sentence(text) for text in ("", "one network")] == ["", "One network"]
