"""Files: replaced whole or not at all, locks, JSON, and the settings of a run in its folder."""

import contextlib
import datetime
import errno
import hashlib
import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tag_keras.utils.differences import differences, merged, not_compared
from tag_keras.utils.text import joined

# By thread, the folders that its runs are alone in.
_HELD = threading.local()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a new path to write to, which replaces `path` if the block succeeds.

    A process that is killed in the block leaves `path` as it was. The new path is a hidden file of
    the same suffix beside it. Each thread of each process has its own, and the next attempt deletes
    those of processes that are gone.

    Raises:
        ValueError: If `path` is a folder.
        OSError: If the disc is full; the message says what to do.
    """
    path = Path(path)
    _check_no_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hash, because the name of `path` may be as long as a name can be.
    head = f".partial-{short_hash(path.name)}-{short_hash(platform.node())}-"
    for left in path.parent.glob(f"{head}*"):
        if not _is_alive(left.name.removeprefix(head).partition("-")[0]):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{head}{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        yield partial
        if partial.is_file():
            with open(partial, "rb+") as file:
                # The bytes must reach the disc before the rename does.
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        # It may be what has filled the disc.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if full := _full_disc(error):
            raise OSError(
                full.errno,
                f"{path} could not be written: {full.strerror}. Make room in {path.parent}, and "
                "run the same command again: it goes on where this one stopped",
            ) from error
        raise


def _check_no_folder(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} should be a file, and is a folder. Rename or delete it.")


def _full_disc(error: BaseException | None) -> OSError | None:
    """The error of a full disc, or of a full quota, that led to this one; None if none did."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        error = error.__cause__ or error.__context__
    return None


def short_hash(text: str) -> str:
    """Twelve hexadecimal digits that tell a text from others."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def check_case(folder: Path, names: Iterable[str]) -> None:
    """Checks that names of files differ by more than case, if the disc of the folder has no case.

    Raises:
        ValueError: If two would be one file; the message names them.
    """
    by_letters: dict[bytes, str] = {}
    for name in names:
        # Of ASCII only: names of files quote all other letters.
        other = by_letters.setdefault(name.encode().lower(), name)
        if other != name and _has_no_case(folder):
            raise ValueError(
                f"{other!r} and {name!r} would share a file in {folder}, whose disc does not tell "
                "capital letters from small ones. Rename one, or give a folder on another disc."
            )


def _has_no_case(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".case", dir=folder) as file:
        return Path(folder, Path(file.name).name.upper()).exists()


def checksum(path: Path) -> str:
    """Hash of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _is_alive(process: str) -> bool:
    """Whether this machine has a process of that number."""
    # On Windows, to ask would be to kill.
    if os.name == "nt" or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # Another user's.
    return True


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], message: str, wait: bool) -> Iterator[None]:
    """Holds a lock, so that one process at a time runs the block. A killed process loses the lock.

    Args:
        path: File that is the lock and nothing else.
        message: What to tell the user if another process holds the lock.
        wait: Whether to print the message and wait for that process, or to refuse with an error.

    Raises:
        ValueError: If another process holds the lock, and `wait` is false.
        OSError: If the file cannot be made; or if its disc has no locks, and `wait` is true. With
            `wait` false, the block then runs without a lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ValueError(message) from None
            print(message, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:
            pass  # Windows does not have it.
        except OSError as error:
            if wait:
                raise OSError(
                    error.errno,
                    f"{path} cannot be locked, as on some discs of networks. Give another folder",
                ) from error
        yield


@contextlib.contextmanager
def alone(folder: Path, quiet: bool = False) -> Iterator[bool]:
    """Lets one run at a time work in a folder. The parts of a run, in its thread, may ask again.

    Gives whether the folder was free, and not of the same run already. A run that has trained
    nothing new is told so at its end.

    Args:
        folder: The folder.
        quiet: Whether the run is not told.

    Raises:
        ValueError: If another run is at work there.
    """
    held: set[Path] = _HELD.__dict__.setdefault("folders", set())
    place = folder.resolve()
    if place in held:
        yield False
        return
    busy = f"Another run is at work in {folder}. Wait for its end, or give another folder."
    with locked(folder / ".lock", busy, wait=False):
        held.add(place)
        before = _last_training(folder)
        try:
            yield True
        finally:
            held.remove(place)
        if before and not (quiet or held) and _last_training(folder) == before:
            date = datetime.datetime.fromtimestamp(before).strftime("%Y-%m-%d %H:%M")
            print(f"Nothing to train: everything in {folder} was trained by {date}.", flush=True)


def _last_training(folder: Path) -> float:
    """When the newest network or result in a folder was written; 0 if there is none."""
    # What is put together out of networks lies beside their folder.
    paths = [folder / "results.json", *folder.glob("*_seed*.keras")]
    paths += [path for path in folder.glob("**/networks/*") if not path.name.startswith(".")]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON, atomically. NaN and infinity raise a `ValueError`."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not JSON, or a folder; the message names it.
    """
    _check_no_folder(Path(path))
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        # A number of thousands of digits is a plain ValueError, endless brackets a RecursionError.
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{os.fspath(path)} is not a JSON file ({error}). Delete it and run the step that "
                "wrote it again."
            ) from None


def read_fields(path: str | os.PathLike[str], fields: Iterable[str]) -> dict[str, Any]:
    """Reads a JSON object that must have at least `fields`.

    Raises:
        ValueError: If the file holds something else; the message names the file and the field.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(
            f"{os.fspath(path)} should hold a JSON object. Received: {type(value).__name__}."
        )
    if missing := [field for field in fields if field not in value]:
        raise ValueError(
            f"{os.fspath(path)} lacks the field {missing[0]!r}. Fields found: {sorted(value)}."
        )
    return value


def keep_settings(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> None:
    """Writes the settings of a run into its folder, or compares them with the ones in there.

    Args:
        folder: Folder of settings.json.
        settings: The settings; by default those in the folder, whatever they are.
        fingerprint: What else the run is made of, as `differences` compares it. A part that
            the folder does not know yet is told, and added.

    Raises:
        ValueError: If the folder belongs to a run with other settings; the message names them.
    """
    path = folder / "settings.json"
    found = read_fields(path, []) if path.exists() else None
    known = (found or {}).pop("fingerprint", {})
    if not (isinstance(known, dict) and all(isinstance(one, dict) for one in known.values())):
        raise ValueError(f"{path}: the field 'fingerprint' has a wrong value. Delete the field.")
    given = (found or {}) if settings is None else settings
    # As JSON gives them back: tuples are lists.
    given, parts = json.loads(json.dumps([given, fingerprint or {}]))
    before = found or given
    names = sorted({*before, *given})
    pairs = {name: (before.get(name), given.get(name)) for name in names}
    changes = [f"{name} was {was} and is {now}" for name, (was, now) in pairs.items() if was != now]
    if changes := changes + differences(known, parts):
        raise ValueError(
            f"{folder} holds another run: {'; '.join(changes)}. Give another output directory, or "
            "delete this one."
        )
    if parts and _last_training(folder):
        _tell_what_is_not_compared(path, known, parts)
    together = {**given, "fingerprint": merged(known, parts)} if known or parts else given
    if found is None or together != {**found, "fingerprint": known}:
        write_json(path, together)


def _tell_what_is_not_compared(
    path: Path, known: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Prints, in one line, what could have changed since the run before."""
    # Networks are added by and by.
    now = {part: value for part, value in now.items() if part != "networks"}
    if new := [part for part in now if part not in known]:
        print(f"{path} does not say of what {joined(new)} the run before was: not compared.")
    elif names := not_compared(now):
        print(f"Compared with the run before by code and type only: {joined(names)}.")


def comparable(fit: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `fit` that change a training and that JSON can hold."""
    kept = {name: value for name, value in fit.items() if name != "verbose"}
    return {name: value for name, value in kept.items() if isinstance(value, int | float | str)}
