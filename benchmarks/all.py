"""All benchmarks, one after the other, and a table of what they measured.

    python -m benchmarks.all --output_dir=runs/benchmarks

It takes some 80 minutes of CPU time; the table says how long each benchmark took. Each runs in a
process of its own. What it prints is kept in a file of the folder, whole or not at all, so the
same command goes on where it was stopped, with what is missing. A benchmark is measured anew if its
options, its code, the version of a library or the machine are others than before. One that fails is
named, its messages are in its log, and the others go on.

`--table=docs/measured.md` makes the table of the documentation.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tag_keras
from benchmarks.options import make_parser
from tag_keras.utils import files
from tag_keras.utils.text import cells_as_markdown, joined

LIBRARIES = ("tensorflow", "keras", "numpy", "scipy")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A command that prints tables in Markdown, or text.

    Args:
        module: Its module.
        measures: What it measures.
        options: Its options here.
        variant: What tells it from another with the same module.
    """

    module: str
    measures: str
    options: tuple[str, ...] = ()
    variant: str = ""

    @property
    def name(self) -> str:
        return "_".join(filter(None, [self.module.rpartition(".")[2], self.variant]))

    @property
    def command(self) -> str:
        return " ".join(["python -m", self.module, *self.options])


BENCHMARKS = (
    Benchmark("benchmarks.selection", "time, memory and certified gap of selection"),
    Benchmark(
        "benchmarks.probe_cost",
        "probes against plain Keras steps",
        ("--num_tasks=3,9", "--seconds=0.5"),
    ),
    Benchmark(
        "benchmarks.probe_cost",
        "the same on a recommender's network",
        (
            "--network=recommender",
            "--batch_size=128",
            "--num_tasks=9,40",
            "--turns=5",
            "--seconds=0.5",
        ),
        variant="recommender",
    ),
    Benchmark(
        "benchmarks.method_cost",
        "a step of every method that trains one network",
        ("--num_tasks=9", "--turns=3"),
    ),
    Benchmark(
        "benchmarks.stack_cost", "many networks in one graph", ("--num_seeds=2", "--turns=2")
    ),
    Benchmark(
        "benchmarks.study_cost",
        "TAG against HOA and training all groups, from nothing to networks that serve",
    ),
    Benchmark(
        "benchmarks.memory",
        "memory that each trained network leaves",
        ("--width=2000", "--networks=8"),
    ),
    Benchmark("benchmarks.celeba_pipeline", "images per CPU second"),
    Benchmark("benchmarks.truth", "how right ways to choose groups are"),
    Benchmark(
        "benchmarks.truth.affinities",
        "how affinities rank groups",
        ("--trainings=1,8",),
    ),
)


def settings_of(benchmark: Benchmark) -> dict[str, str]:
    """What a result depends on, in words."""
    spec = importlib.util.find_spec(benchmark.module)
    if spec and spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{benchmark.module}.__main__")
    code = files.checksum(Path(spec.origin)) if spec and spec.origin else ""
    return {"command": benchmark.command, "code": code, **environment()}


def environment() -> dict[str, str]:
    """The versions and the machine."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "tag_keras": tag_keras.__version__,
        **versions,
        "Python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", path.read_text("utf-8")) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def measure(benchmark: Benchmark, folder: Path) -> bool:
    """Runs a benchmark, unless its result is there; returns whether there is one then."""
    path, log = folder / f"{benchmark.name}.json", folder / f"{benchmark.name}.log"
    settings, again = settings_of(benchmark), ""
    if path.exists():
        changes = _changes(files.read_fields(path, ["settings"])["settings"], settings)
        if not changes:
            print(f"{benchmark.name}: measured before.", flush=True)
            return True
        again = f" again, as {joined(changes)}"
    print(f"{benchmark.name}: measuring{again} ...", flush=True)
    start, cpu_start = time.monotonic(), _cpu_seconds()
    with open(log, "w", encoding="utf-8") as messages:
        process = subprocess.run(
            [sys.executable, "-m", benchmark.module, *benchmark.options],
            stdout=subprocess.PIPE,
            stderr=messages,
            encoding="utf-8",
        )
    if process.returncode:
        last = log.read_text("utf-8").rstrip().rpartition("\n")[2]
        print(f"{benchmark.name} FAILED: {last} All its messages are in {log}.", flush=True)
        return False
    minutes, cpu_minutes = (time.monotonic() - start) / 60, (_cpu_seconds() - cpu_start) / 60
    times = {"date": f"{datetime.date.today()}", "minutes": minutes, "cpu_minutes": cpu_minutes}
    files.write_json(path, {"settings": settings, **times, "printed": process.stdout})
    print(f"{benchmark.name}: done in {minutes:.1f} min.", flush=True)
    return True


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{name} was {before.get(name)} and is {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _cpu_seconds() -> float:
    """CPU time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def as_markdown(results: Sequence[tuple[Benchmark, dict[str, Any] | None]]) -> str:
    """The table of times, and what each benchmark printed."""
    environments = {
        ", ".join([f"{name} {one['settings'][name]}" for name in ("tag_keras", *LIBRARIES)])
        + f" and Python {one['settings']['Python']} on {one['settings']['machine']}"
        for _, one in results
        if one
    }
    parts = [
        "<!-- Written by `python -m benchmarks.all`. -->",
        f"Measured with {'; '.join(sorted(environments))}. After a median stand, in brackets, the "
        "lowest and the highest value.",
        cells_as_markdown(_times(results)),
    ]
    for benchmark, one in results:
        printed = one["printed"].strip("\n") if one else "Not measured."
        # What is no table keeps its lines.
        text = printed if "\n|" in f"\n{printed}" or not one else f"```text\n{printed}\n```"
        parts += [f"### {benchmark.name}", f"`{benchmark.command}`", text]
    return "\n\n".join(parts) + "\n"


def _times(results: Sequence[tuple[Benchmark, dict[str, Any] | None]]) -> list[list[str]]:
    names = ("minutes", "cpu_minutes")
    cells = [["benchmark", "measures", "date", "minutes", "CPU minutes"]]
    for benchmark, one in results:
        times = [one["date"], *(f"{one[name]:.1f}" for name in names)] if one else ["", "", ""]
        cells.append([benchmark.name, benchmark.measures, *times])
    sums = [sum(one[name] for _, one in results if one) for name in names]
    cells.append(["together", "", "", *(f"{value:.1f}" for value in sums)])
    return cells


def run(folder: Path, table: Path, names: Sequence[str]) -> list[str]:
    """Measures what is missing, and writes the table; returns the names of those that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"Another run measures in {folder}. Wait for its end, or give another folder."
    with files.locked(folder / ".lock", busy, wait=False):
        asked = [benchmark for benchmark in BENCHMARKS if benchmark.name in names]
        failed = [one.name for one in asked if not measure(one, folder)]
        # All that is there, whatever was asked for.
        paths = [folder / f"{benchmark.name}.json" for benchmark in BENCHMARKS]
        found = [files.read_json(path) if path.exists() else None for path in paths]
        text = as_markdown(list(zip(BENCHMARKS, found, strict=True)))
        with files.replacing(table) as partial:
            partial.write_text(text, encoding="utf-8")
    print(f"Table: {table}")
    return failed


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("benchmarks.all", __doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--table", type=Path, help="by default benchmarks.md in --output_dir")
    every = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", choices=every, nargs="+", default=every)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    try:
        table = options.table or options.output_dir / "benchmarks.md"
        failed = run(options.output_dir, table, options.only)
    except (ValueError, OSError) as error:
        sys.exit(f"benchmarks.all: {error}")
    if failed:
        sys.exit(f"benchmarks.all: {joined(failed)} failed.")


if __name__ == "__main__":
    main()
