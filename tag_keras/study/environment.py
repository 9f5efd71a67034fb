"""What a run was made with: date, versions and device, kept in its folder for the report."""

import datetime
import importlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tag_keras.sweep.runners import visible_gpus
from tag_keras.utils import files
from tag_keras.utils.text import counted


def keep_environment(folder: Path) -> list[dict[str, str]]:
    """Adds date, versions and device to environment.json, unless the last ones there are the same.

    Args:
        folder: Folder of the file.

    Returns:
        Texts by name, for each time that the run went on with other versions or another device. The
        date is that of the first start with these.

    Raises:
        ValueError: If the file is damaged; the message names it and a remedy.
    """
    path = folder / "environment.json"
    found = _load(path) if path.exists() else []
    now = {"date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"), **_versions()}
    if not found or {**found[-1], "date": ""} != {**now, "date": ""}:
        found.append(now)
        files.write_json(path, found)
    return found


def _versions() -> dict[str, str]:
    return {
        # By its name, because no part of the package imports all of it.
        "tag_keras": importlib.import_module("tag_keras").__version__,
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "device": _device(),
    }


def _device() -> str:
    """The devices in words. TensorFlow is not asked, because it would take them."""
    number = len(visible_gpus())
    if not number:
        return f"CPU ({platform.machine()}), {counted(os.cpu_count() or 1, 'core')}"
    name = "GPU"
    if command := shutil.which("nvidia-smi"):
        query = [command, "--query-gpu=name", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=False)
        # It writes its errors there, too.
        if not listed.returncode:
            name = listed.stdout.partition("\n")[0].strip() or name
    return f"{number} x {name}"


def _load(path: Path) -> list[dict[str, str]]:
    value = files.read_json(path)
    for one in value if isinstance(value, list) else [value]:
        texts = isinstance(one, dict) and all(isinstance(text, str) for text in one.values())
        if not texts or "date" not in one:
            raise ValueError(
                f"{path} should hold a list of objects of texts, such as the date. Delete it, and "
                "the same call writes it anew."
            )
    return list(value)
