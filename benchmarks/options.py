"""Options of the benchmarks, which mean the same in all of them."""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import lazy_loader


def load_lazily(name: str) -> ModuleType:
    """A module that is loaded at its first use, so that --help comes before TensorFlow."""
    module: ModuleType = lazy_loader.load(name, suppress_warning=True)
    parent, _, last = name.rpartition(".")
    if parent:
        # As an import does.
        setattr(sys.modules[parent], last, module)
    return module


def make_parser(module: str, text: str) -> argparse.ArgumentParser:
    """The parser of `python -m module`, with a text that --help shows as it is."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # The name of another option may begin with that of one of before.
        allow_abbrev=False,
    )


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them, as the scripts take them."""
    return [int(part) for part in text.split(",")]


class Renamed(argparse.Action):
    """An option of before: its use is an error that names the new one.

    Args:
        option_strings: The old name.
        dest: Not used.
        now: The new name.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, now: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs="*", help=argparse.SUPPRESS)
        self.now = now

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(f"{self.option_strings[0]} is {self.now} now.")
