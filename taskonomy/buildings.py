"""Taskonomy's buildings: which are for training, for validation and for the test."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tag_keras.utils.checks import check

SPLITS = ("train", "validation", "test")
SUBSETS = ("tiny", "medium", "full", "fullplus")
# A name, a csv file, or names by split.
Buildings = str | Path | Mapping[str, Sequence[str]]
_WHERE = (
    "Taskonomy's own lists are in "
    "https://github.com/StanfordVL/taskonomy/raw/master/data/assets/splits_taskonomy.zip"
)


def building_lists(buildings: Buildings) -> dict[str, tuple[str, ...]]:
    """Names of buildings by split.

    Args:
        buildings: `"original"` for the buildings of TAG, which are no subset of Taskonomy and have
            another split; `"tiny"`, `"medium"`, `"full"` or `"fullplus"` for Taskonomy's own
            subsets; the path of a csv file like Taskonomy's, with the columns id, train, val and
            test and a 1 in one of the last three; or names by split, `"train"`, `"validation"` and
            `"test"`.

    Returns:
        Names in small letters, by split.

    Raises:
        ValueError: If a csv file lacks a column, if a dict has other splits or no name, or if a
            building is in two splits.
        FileNotFoundError: If there is no such file.
    """
    if isinstance(buildings, Mapping):
        check(
            set(buildings) <= {*SPLITS} and any(buildings.values()),
            f"`buildings` should have names by split, out of {', '.join(SPLITS)}",
            buildings=buildings,
        )
        pairs = [(name, split) for split, names in buildings.items() for name in names]
    elif buildings == "original":
        pairs = [(row["building"], row["original"]) for row in _known()]
    elif buildings in SUBSETS:
        subsets = SUBSETS[: SUBSETS.index(str(buildings)) + 1]
        pairs = [(row["building"], row["split"]) for row in _known() if row["subset"] in subsets]
    else:
        pairs = _from_csv(Path(buildings))
    pairs = [(name.strip().lower(), split) for name, split in pairs if split]
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    check(not twice, "A building should be in one split, and there once", twice=twice)
    return {split: tuple(name for name, own in pairs if own == split) for split in SPLITS}


def _known() -> list[dict[str, str]]:
    """The buildings of TAG and of Taskonomy's subsets, with their splits."""
    path = Path(__file__).with_name("buildings.csv")
    return list(csv.DictReader(_lines(path.read_text(encoding="utf-8"))))


def _from_csv(path: Path) -> list[tuple[str, str]]:
    """Names and splits from a csv file."""
    names = ", ".join(("original", *SUBSETS))
    if not path.is_file():
        raise FileNotFoundError(
            f"`buildings` should be one of {names}, or the path of a csv file with the columns id, "
            f"train, val and test. {_WHERE}. Received: {path}, which is no file."
        )
    reader = csv.DictReader(_lines(path.read_text(encoding="utf-8")))
    columns = [column.strip() for column in reader.fieldnames or []]
    if not {"id", "train", "val", "test"} <= {*columns}:
        raise ValueError(
            f"{path} should have the columns id, train, val and test. {_WHERE}. "
            f"Received: {columns}."
        )
    reader.fieldnames = columns
    return [
        (row["id"], split)
        for row in reader
        for split, column in zip(SPLITS, ("train", "val", "test"), strict=True)
        if (row[column] or "").strip() == "1"
    ]


def _lines(text: str) -> Iterable[str]:
    # Lines of Taskonomy's files end with a carriage return alone.
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
