"""Checks of arguments, whose messages say what is wanted and what was received."""

from typing import Any

import numpy as np


def check(valid: bool, wanted: str, **received: Any) -> None:
    """Raises a `ValueError` that says what is wanted and what was received, unless `valid`."""
    if not valid:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{wanted}. Received: {values}.")


def check_count(name: str, value: Any) -> int:
    """Returns a whole number of at least 1, Python's or NumPy's, as Python's."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    check(whole, f"`{name}` should be an integer", **{name: value})
    check(value >= 1, f"`{name}` should be at least 1", **{name: value})
    return int(value)


def check_seconds(name: str, value: Any) -> None:
    """Checks a positive number of seconds, or None for no limit."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    valid = value is None or (number and 0 < value < float("inf"))
    check(bool(valid), f"`{name}` should be a positive number of seconds, or None", **{name: value})


def check_seed(seed: Any) -> None:
    """Checks a seed of NumPy's generators."""
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    check(whole and int(seed) >= 0, "`seed` should be an integer from 0 on", seed=seed)
