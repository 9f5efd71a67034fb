"""Checks of arguments, whose messages say what is wanted and what was received."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np


def check(valid: bool, wanted: str, **received: Any) -> None:
    """Raises a `ValueError` that says what is wanted and what was received, unless `valid`."""
    if not valid:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{wanted}. Received: {values}.")


def implements(value: Any, base: type, name: str) -> bool:
    """Whether it is of a subclass of `base` with a method of that name of its own."""
    return isinstance(value, base) and getattr(type(value), name) is not getattr(base, name)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, Python's or NumPy's; booleans are none."""
    if is_whole(value):
        # Others are none of a float.
        return abs(int(value)) <= sys.float_info.max
    return isinstance(value, float | np.floating) and math.isfinite(value)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is an integer, Python's or NumPy's; booleans are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_number(
    name: str, value: Any, wanted: str, valid: Callable[[float], bool] = lambda number: True
) -> float:
    """Returns a finite number as Python's.

    Args:
        name: Name of the argument.
        value: What was received for it.
        wanted: What it should be, for the message.
        valid: Tells whether a number is.
    """
    right = is_number(value) and valid(float(value))
    check(right, f"`{name}` should be {wanted}", **{name: value})
    return float(value)


def check_whole(name: str, value: Any) -> int:
    """Returns a whole number of at least 0, Python's or NumPy's, as Python's."""
    valid = is_whole(value) and value >= 0
    check(valid, f"`{name}` should be an integer from 0 on", **{name: value})
    return int(value)


def check_count(name: str, value: Any) -> int:
    """Returns a whole number of at least 1, Python's or NumPy's, as Python's."""
    check(is_whole(value), f"`{name}` should be an integer", **{name: value})
    check(value >= 1, f"`{name}` should be at least 1", **{name: value})
    return int(value)


def check_counts(name: str, values: Any) -> list[int]:
    """Returns a list of whole numbers of at least 1."""
    listed = isinstance(values, list | tuple | np.ndarray) and len(values) > 0
    check(listed, f"`{name}` should be a list of at least one integer", **{name: values})
    return [check_count(name, value) for value in values]


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks one of several words."""
    *others, last = (f'"{choice}"' for choice in choices)
    wanted = f"`{name}` should be {', '.join(others)} or {last}"
    # What is no string might have no hash, or be equal entry by entry.
    check(isinstance(value, str) and value in choices, wanted, **{name: value})


def check_bool(name: str, value: Any) -> None:
    """Checks true or false."""
    check(isinstance(value, bool), f"`{name}` should be a bool", **{name: value})


def check_seconds(name: str, value: Any) -> None:
    """Checks a positive number of seconds, or None for no limit."""
    if value is not None:
        wanted = "a positive number of seconds, or None"
        check_number(name, value, wanted, lambda seconds: seconds > 0)


def check_seed(seed: Any) -> int:
    """Returns a seed of NumPy's or TensorFlow's generators, which have 64 bits, as Python's."""
    check_whole("seed", seed)
    check(seed < 2**63, "`seed` should be below 2 ** 63", seed=seed)
    return int(seed)


def check_input_shape(input_shape: Any) -> tuple[int | None, int | None, int]:
    """Returns the shape of images, of which height and width may be unknown."""
    sizes = tuple(input_shape) if isinstance(input_shape, list | tuple) else ()
    check(
        len(sizes) == 3
        and all(is_whole(size) and size >= 1 for size in sizes if size is not None)
        and sizes[-1] is not None,
        "`input_shape` should be the height, width and channels of the images, such as (32, 32, 3)",
        input_shape=input_shape,
    )
    height, width, channels = (None if size is None else int(size) for size in sizes)
    return height, width, channels or 0
