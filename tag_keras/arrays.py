"""Arrays out of what a user or a file gives, checked, and back into what a file can hold."""

from typing import Any

import numpy as np
import numpy.typing as npt


def checked_array(name: str, value: npt.ArrayLike, shape: tuple[Any, ...], dtype: Any) -> Any:
    """A read-only copy of `value`, in which None stands for NaN.

    Args:
        name: What messages call it.
        value: Numbers, nested or in an array.
        shape: Shape that it should have; a first axis of None may have any length.
        dtype: `np.float64`, or `np.int64` for whole numbers of at least 0.

    Raises:
        ValueError: If `value` is anything else.
    """
    try:
        # Through float64, because None stands for NaN in the files.
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` should be an array of numbers of shape {shape}.") from None
    if array.size == 0 and shape[0] is None:
        array = array.reshape((0, *shape[1:]))
    if array.ndim != len(shape) or array.shape[-2:] != shape[-2:]:
        raise ValueError(
            f"`{name}` should have the shape {shape}, [source, target] in the order of `tasks`. "
            f"Received: shape {array.shape}."
        )
    if dtype is np.int64 and not ((array >= 0) & (array == np.floor(array))).all():
        raise ValueError(f"`{name}` should hold whole numbers of at least 0.")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


def checked_series(name: str, value: npt.ArrayLike | None, pairs: tuple[int, int]) -> Any:
    """As `checked_array`: any number of arrays of shape `pairs`, finite or NaN; None gives none."""
    series = checked_array(name, () if value is None else value, (None, *pairs), np.float64)
    if np.isinf(series).any():
        raise ValueError(f"`{name}` should be finite or NaN.")
    return series


def to_lists(array: npt.NDArray[Any]) -> Any:
    """Nested lists of numbers, with None for NaN."""
    if array.dtype.kind == "i":
        return array.tolist()
    values = array.astype(object)
    values[np.isnan(array)] = None
    return values.tolist()


def to_text(array: npt.NDArray[Any]) -> str:
    """Lines of four digits; what is too large for a screen is cut short."""
    return np.array2string(array, precision=4, max_line_width=100)
