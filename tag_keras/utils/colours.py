"""Colours of heat maps: limits that one outlier does not set, and a scale that all readers see."""

import numpy as np
import numpy.typing as npt

# A value is an outlier if it is so many times as large as nine tenths of the values are at most.
_OUTLIER = 3.0
# Of fewer values, none is called an outlier.
_FEWEST = 6
# The scale on a light and on a dark page: 0, and its ends: red hurts and blue helps. Matplotlib's
# "RdBu" is like the first.
_LIGHT = ((255, 255, 255), (178, 24, 43), (33, 102, 172))
_DARK = ((32, 36, 42), (239, 120, 100), (95, 170, 230))


def between_tasks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`values` (..., T, T) with NaN on the diagonal."""
    return np.where(np.eye(values.shape[-1], dtype=bool), np.nan, values)


def robust_limit(values: npt.NDArray[np.float64]) -> float:
    """The size at which a scale of colours around 0 ends: that of the largest value, as a rule.

    Outliers set no limit, so that they do not make all others look like 0: values more than three
    times the quantile of 90 % of the sizes. NaN counts for nothing. 1 if all values are 0.
    """
    sizes = np.abs(values[np.isfinite(values)])
    largest = float(sizes.max(initial=0.0))
    if sizes.size >= _FEWEST:
        # The lower of two neighbours: an outlier should not raise the quantile.
        fence = _OUTLIER * float(np.quantile(sizes, 0.9, method="lower"))
        if 0 < fence < largest:
            largest = float(sizes[sizes <= fence].max())
    return largest or 1.0


def find_scale(values: npt.NDArray[np.float64], whole: bool = False) -> tuple[float, str, float]:
    """Factor to bring values (..., T, T) between tasks to 1..1000, its unit, the largest size.

    With `whole`, it brings them to 10..100, for whole numbers. Outliers may be larger.
    """
    largest = robust_limit(between_tasks(values))
    digits = int(np.floor(np.log10(largest)))
    # For smaller numbers, the factor would be infinite.
    power = max(digits - 1 if whole else 3 * (digits // 3), -300)
    superscript = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**-power, f", in units of 10{superscript}" if power else "", largest


def heat_colours(share: float, dark: bool = False) -> tuple[str, str]:
    """Background and text colour of a cell, as in CSS, for a value as a share of the limit.

    With `dark`, they are for dark pages. Shares beyond -1 and 1 have the colours of these. The text
    has a contrast of at least 4.5 (WCAG 2.1, level AA).
    """
    share = float(np.clip(share, -1.0, 1.0))
    zero, red, blue = np.array(_DARK if dark else _LIGHT)
    colour = np.round(zero + abs(share) * ((blue if share > 0 else red) - zero)).astype(int)
    text = "#ffffff" if _luminance(colour) < 0.179 else "#000000"
    return "#" + "".join(f"{part:02x}" for part in colour), text


def _luminance(colour: npt.NDArray[np.int64]) -> float:
    """Relative luminance of an sRGB colour, 0 for black and 1 for white."""
    parts = colour / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
