"""Tables of words, for a screen and for Markdown."""

from collections.abc import Sequence


def cells_as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned, which is readable in a terminal, too."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
