"""CelebA's attributes and splits, and the two lists that come with its images."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int8]

# In the order of the list.
ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs"),
    *("Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair"),
    *("Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair"),
    *("Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)
# The nine tasks of TAG's paper.
TASKS = (
    *("5_o_Clock_Shadow", "Black_Hair", "Blond_Hair", "Brown_Hair", "Goatee", "Mustache"),
    *("No_Beard", "Rosy_Cheeks", "Wearing_Hat"),
)
# The list of splits numbers them 0, 1 and 2.
SPLITS = ("train", "validation", "test")
ATTRIBUTE_LIST, SPLIT_LIST = "list_attr_celeba", "list_eval_partition"


@dataclasses.dataclass(frozen=True)
class Lists:
    """The contents of the two lists.

    Args:
        names: Sorted file names by split.
        labels: By split, array (N, 40) of 0 and 1: the attributes of these files, in the order of
            `ATTRIBUTES`.
    """

    names: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, Labels]


def read_lists(attributes: Path, partition: Path) -> Lists:
    """Reads the two lists, as text files as they were published, or as csv files as on Kaggle.

    Args:
        attributes: list_attr_celeba.txt or .csv.
        partition: list_eval_partition.txt or .csv.

    Raises:
        ValueError: If a list is cut off or wrong; the message names the file and the line.
    """
    labels = _read_attributes(attributes)
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, split in _read_partition(partition).items():
        if name not in labels:
            raise ValueError(
                f"{partition} names {name}, which {attributes} does not. Do they belong together?"
            )
        names[SPLITS[split]].append(name)
    if empty := [split for split in SPLITS if not names[split]]:
        raise ValueError(f"{partition} should have images of all splits. Without any: {empty}.")
    ordered = {split: tuple(sorted(names[split])) for split in SPLITS}
    return Lists(
        ordered,
        {split: np.stack([labels[name] for name in ordered[split]]) for split in SPLITS},
    )


def _read_attributes(path: Path) -> dict[str, Labels]:
    """Attributes (40,) by file name."""
    rows = _rows(path)
    number = None if path.suffix == ".csv" else " ".join(rows.pop(0)[1])
    _, header = rows.pop(0) if rows else (0, [])
    header = header[1:] if path.suffix == ".csv" else header
    if sorted(header) != sorted(ATTRIBUTES):
        raise ValueError(
            f"{path} should name CelebA's 40 attributes in its header. "
            f"Received: {len(header)} names, {' '.join(header)[:60]!r}."
        )
    if number not in (None, str(len(rows))):
        raise ValueError(
            f"{path} should have as many rows as its first line says, {number}. "
            f"Received: {len(rows)} rows. It may be cut off: download it again."
        )
    columns = [header.index(name) for name in ATTRIBUTES]
    names, bits = [], []
    for line, (name, *values) in rows:
        # One character for each attribute: numbers would take ten times as long.
        row = "".join(values).replace("-1", "0")
        if len(values) != len(ATTRIBUTES) or len(row) != len(values) or row.strip("01"):
            raise ValueError(
                f"{path}, line {line}, should have a file name and {len(ATTRIBUTES)} times 1 or "
                f"-1. Received: {' '.join([name, *values])[:60]!r}."
            )
        names.append(name)
        bits.append(row)
    if len({*names}) < len(names):
        again = next(name for name, number in Counter(names).items() if number > 1)
        raise ValueError(f"{path} has several rows of {again}. Download it again.")
    labels = np.frombuffer("".join(bits).encode(), np.int8).reshape(len(names), len(ATTRIBUTES))
    return dict(zip(names, labels[:, columns] - ord("0"), strict=True))


def _read_partition(path: Path) -> dict[str, int]:
    """Number of the split by file name."""
    rows = _rows(path)
    rows = rows[1:] if path.suffix == ".csv" else rows
    splits: dict[str, int] = {}
    for line, row in rows:
        if row[0] in splits:
            raise ValueError(f"{path}, line {line}, names {row[0]} again. Download it again.")
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise ValueError(
                f"{path}, line {line}, should have a file name and 0, 1 or 2. "
                f"Received: {' '.join(row)[:60]!r}."
            )
        splits[row[0]] = int(row[1])
    return splits


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Numbers and fields of the lines that are not empty."""
    with open(path, encoding="utf-8-sig", newline=None) as file:
        lines = csv.reader(file) if path.suffix == ".csv" else (line.split() for line in file)
        try:
            rows = [(number, row) for number, row in enumerate(lines, start=1) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no list of text ({error}). Download it again.") from None
    if not rows:
        raise ValueError(f"{path} is empty. Download it again.")
    return rows
