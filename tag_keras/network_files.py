"""Text tables of networks' losses, in the layout of Standley et al. 2020."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence

_Row = tuple[dict[str, float], float]
# The paper's tasks: semantic segmentation, depth, normals, keypoints, edges.
_STANDLEY = ("s", "d", "n", "k", "e")


def read_text(
    path: str | os.PathLike[str], tasks: Sequence[str] | None
) -> tuple[Sequence[str], list[_Row]]:
    """Reads a text table; `NetworkTable.load` describes the layout.

    Returns:
        Task names, and for each network its losses by task, and its cost.

    Raises:
        ValueError: If the file is not such a table; the message names file and line.
    """
    where = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not a text file ({error}).") from None
    cells = [[cell.strip() for cell in line.rstrip("\r").split("\t")] for line in lines]
    if cells == [[""]]:
        raise ValueError(f"{where} is empty; it should have a line for each network.")
    header = all(cell and not _is_number(cell) for cell in cells[0])
    names = _column_names(where, cells[0], header, tasks)
    rows: list[_Row] = []
    for number, line in enumerate(cells[header:], 1 + header):
        losses, cost = _losses(f"{where}, line {number}", line, names)
        if "cost" in names or number > 1 + header:
            rows.append((losses, cost))
        elif len(losses) < len(names):
            raise ValueError(
                f"{where}, line {number} should have a loss for each task, that of a network of "
                "half the size for this task alone; a table without these needs a column `cost`."
            )
        else:
            rows += [({task: loss}, 0.5) for task, loss in losses.items()]
    return [name for name in names if name != "cost"], rows


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Puts the name of a file before the message of a `ValueError`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where} does not hold a table of networks: {error}") from None


def _column_names(
    where: str, first: list[str], header: bool, tasks: Sequence[str] | None
) -> Sequence[str]:
    given = [name for name in first if name != "cost"]
    if header and len(set(first)) < len(first):
        raise ValueError(f"{where}, line 1 should have unique names. Received: {first}.")
    if header and tasks is not None and list(tasks) != given:
        raise ValueError(f"{where} names the tasks {given}. Received: tasks={list(tasks)}.")
    if header:
        return first
    if tasks is None and len(first) != len(_STANDLEY):
        raise ValueError(
            f"{where} should name its tasks in line 1, since it has {len(first)} columns and not "
            f"the five of {_STANDLEY}; or give `tasks`."
        )
    names = _STANDLEY if tasks is None else tuple(tasks)
    if len(names) != len(first):
        raise ValueError(
            f"{where}, line 1 has {len(first)} columns. Received: tasks={list(names)}."
        )
    return names


def _losses(where: str, cells: list[str], names: Sequence[str]) -> _Row:
    if len(cells) != len(names):
        raise ValueError(
            f"{where} should have {len(names)} columns as line 1 has, separated by tabs, and blank "
            f"for a task that the network does not have. Received: {len(cells)}."
        )
    values = {}
    for name, cell in zip(names, cells, strict=True):
        if cell and not (_is_number(cell) and math.isfinite(float(cell))):
            tabs = "; columns are separated by tabs" if len(names) == 1 else ""
            raise ValueError(
                f"{where} should have a finite number for {name!r}{tabs}. Found: {cell!r}."
            )
        if cell:
            values[name] = float(cell)
    if "cost" in names and "cost" not in values:
        raise ValueError(f"{where} should have a cost.")
    cost = values.pop("cost", 1.0) if "cost" in names else 1.0
    if not values:
        raise ValueError(f"{where} has no loss of any task.")
    return values, cost


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
