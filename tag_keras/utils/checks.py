"""Checks of arguments. Their messages say what is wanted and what was received."""

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
    """Whether the value is of a subclass of `base` that overrides the method `name`."""
    return isinstance(value, base) and getattr(type(value), name) is not getattr(base, name)


def is_number(value: Any) -> bool:
    """Whether it is a finite number of Python or NumPy, and no boolean."""
    if is_whole(value):
        # A larger integer has no float.
        return abs(int(value)) <= sys.float_info.max
    return isinstance(value, float | np.floating) and math.isfinite(value)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is an integer of Python or NumPy, and no boolean."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_number(
    name: str, value: Any, wanted: str, valid: Callable[[float], bool] = lambda number: True
) -> float:
    """Checks a finite number, and returns it as a float. `wanted` describes a valid one."""
    check(is_number(value) and valid(float(value)), f"`{name}` should be {wanted}", **{name: value})
    return float(value)


def check_whole(name: str, value: Any) -> int:
    """Checks an integer of at least 0, and returns it as Python's."""
    wanted = f"`{name}` should be an integer from 0 on"
    check(is_whole(value) and value >= 0, wanted, **{name: value})
    return int(value)


def check_count(name: str, value: Any) -> int:
    """Checks an integer of at least 1, and returns it as Python's."""
    check(is_whole(value), f"`{name}` should be an integer", **{name: value})
    check(value >= 1, f"`{name}` should be at least 1", **{name: value})
    return int(value)


def check_counts(name: str, values: Any) -> list[int]:
    """Checks integers of at least 1, and returns them as a list."""
    valid = isinstance(values, list | tuple | np.ndarray) and len(values) > 0
    check(valid, f"`{name}` should be a list of at least one integer", **{name: values})
    return [check_count(name, value) for value in values]


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Checks that the value is one of several words."""
    # An array would compare entry by entry.
    if not (isinstance(value, str) and value in choices):
        *others, last = (f'"{choice}"' for choice in choices)
        wanted = f"{', '.join(others)} or {last}"
        raise ValueError(f"`{name}` should be {wanted}. Received: {name}={value!r}.")


def check_bool(name: str, value: Any) -> None:
    """Checks a boolean."""
    check(isinstance(value, bool), f"`{name}` should be a bool", **{name: value})


def check_seconds(name: str, value: Any) -> None:
    """Checks a positive number of seconds, or None for no limit."""
    if value is not None:
        check_number(name, value, "a positive number of seconds, or None", lambda value: value > 0)


def check_seed(seed: Any) -> int:
    """Checks a seed for the generators of NumPy and TensorFlow, and returns it as Python's."""
    check_whole("seed", seed)
    check(seed < 2**63, "`seed` should be below 2 ** 63", seed=seed)
    return int(seed)


def check_input_shape(input_shape: Any) -> tuple[int | None, int | None, int]:
    """Checks and returns the shape of images. Height and width may be unknown: `None`."""
    sizes = tuple(input_shape) if isinstance(input_shape, list | tuple) else ()
    valid = all(is_whole(size) and size >= 1 for size in sizes if size is not None)
    if len(sizes) != 3 or sizes[-1] is None or not valid:
        raise ValueError(
            "`input_shape` should be the height, width and channels of the images, such as "
            f"(32, 32, 3). Received: input_shape={input_shape!r}."
        )
    height, width, channels = (None if size is None else int(size) for size in sizes)
    return height, width, channels or 0
