"""The settings of a run, kept in its folder, so that another run does not go on in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tag_keras import files


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of a run into its folder, or checks that those there are the same.

    Raises:
        ValueError: If the folder belongs to a run with other settings.
    """
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))  # As they come back: tuples are lists.
    if not path.exists():
        files.write_json(path, settings)
        return
    found = files.read_fields(path, [])
    names = sorted({*found, *settings})
    if different := [name for name in names if found.get(name) != settings.get(name)]:
        changes = [
            f"{name} was {found.get(name)} and is {settings.get(name)}" for name in different
        ]
        raise ValueError(
            f"{folder} holds another run: {'; '.join(changes)}. Give another output directory, or "
            "delete this one."
        )


def comparable(fit: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fit` that change a training and can be written down."""
    kept = {name: value for name, value in fit.items() if name != "verbose"}
    return {name: value for name, value in kept.items() if isinstance(value, int | float | str)}
