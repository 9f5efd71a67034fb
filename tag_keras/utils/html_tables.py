"""Tables in HTML that need no other file, for notebooks and pages. Every text is escaped."""

import dataclasses
import html
from collections.abc import Sequence

from tag_keras.utils.colours import heat_colours

# Only cells with a background set the colour of their text: pages may be light or dark. The classes
# tell MathJax, which notebooks load, that a dollar is a dollar.
_BLOCK = '<div class="tex2jax_ignore mathjax_ignore" style="overflow-x:auto">'
_TABLE = '<table style="border-collapse:collapse">'
_CELL = "padding:.25em .6em;border:1px solid #8888;text-align:"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: Its text, whose line ends are kept.
        share: The value behind it as a share of the largest, from -1 (red) over 0 (white) to 1
            (blue). By default the cell has no colour.
        title: What a pointer over the cell shows.
        align: `"left"`, `"right"` or `"center"`.
    """

    text: str
    share: float | None = None
    title: str = ""
    align: str = "left"


def block(*parts: str) -> str:
    """One block of HTML out of tables and paragraphs."""
    return f"{_BLOCK}{''.join(parts)}</div>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{_escaped(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]], upright: bool = False) -> str:
    """A table: the first cell of each row is its heading.

    Args:
        head: Headings of the columns, the first one that of the rows' headings.
        rows: Rows of cells; a text is a cell on the left.
        upright: Whether the headings of the columns stand upright, for narrow columns.
    """
    first, *others = map(_escaped, head)
    turned = ";writing-mode:vertical-rl;transform:rotate(180deg)" if upright else ""
    line = f'<th scope="col" style="{_CELL}left">{first}</th>'
    line += "".join(f'<th scope="col" style="{_CELL}center{turned}">{name}</th>' for name in others)
    body = "".join(
        f"<tr>{_heading(name)}{''.join(map(_cell, cells))}</tr>" for name, *cells in rows
    )
    return f"{_TABLE}<thead><tr>{line}</tr></thead><tbody>{body}</tbody></table>"


def _heading(name: str | Cell) -> str:
    text = name.text if isinstance(name, Cell) else name
    return f'<th scope="row" style="{_CELL}left">{_escaped(text)}</th>'


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        cell = Cell(cell)
    style = f"{_CELL}{cell.align}"
    if cell.share is not None:
        background, text = heat_colours(cell.share)
        style += f";background:{background};color:{text}"
    title = f' title="{html.escape(cell.title)}"' if cell.title else ""
    return f'<td style="{style}"{title}>{_escaped(cell.text)}</td>'


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
