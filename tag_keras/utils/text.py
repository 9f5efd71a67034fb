"""Text for people: numbers and lists of names in sentences, and tables in Markdown."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np


def plus_minus(mean: float, noise: float) -> str:
    """Mean and noise, such as "1.235 ± 0.079": two digits of the noise, and as many decimals."""
    if not noise > 0:
        return f"{mean:.4g}" + (" ± 0" if noise == 0 else "")
    decimals = max(1 - int(np.floor(np.log10(noise))), 0)
    kind = f".{decimals}f" if decimals < 7 else ".3g"
    return f"{mean:{kind}} ± {noise:{kind}}"


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """A number with so many decimals; a huge one as a power of ten, such as "2.3e+20"."""
    return f"{value:{sign}.{decimals}f}" if abs(value) < 1e9 else f"{value:{sign}.1e}"


def percent(share: float) -> str:
    """A share between 0 and 1 in whole percent."""
    return f"{100 * share:.0f} %"


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 task" or "2 tasks"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def joined(words: Iterable[str]) -> str:
    """Words as a list in a sentence: "a, b and c"; the empty string without words."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def with_minus(text: str) -> str:
    """`text` with minus signs instead of hyphens."""
    return text.replace("-", "\N{MINUS SIGN}")


def sentence(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def cells_as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned to be readable in a terminal, too. The first row is the head."""
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    rows = [
        [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        for row in cells
    ]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shortened(text: str, columns: int) -> str:
    """The text, cut with "…" at its end if it takes more than so many columns of a terminal."""
    if _width(text) <= columns:
        return text
    while _width(text) >= columns:
        text = text[:-1]
    return f"{text}…"


def _width(text: str) -> int:
    """Number of columns that a terminal takes for a text: two for a Chinese letter."""
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def unused(name: str, names: Collection[str]) -> str:
    """The name, with a number behind it if it is among `names`, as Keras numbers metrics."""
    number, found = 0, name
    while found in names:
        number += 1
        found = f"{name}_{number}"
    return found
