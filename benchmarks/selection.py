"""Time, memory and proofs of network selection, beside the original's algorithm.

    python -m benchmarks.selection

The instances are random, of three kinds with three seeds each. The gap of an answer is its upper
bound less its score, as a share of the gain of its groups over one group of all tasks. From 15
tasks on, each selection runs in a separate process, whose peak is its memory. Seconds are those of
the processor, and so are time limits, so that other work on the machine changes little. On a free
machine, all of it takes less than ten minutes, and `--long` up to an hour: the original's 3 groups
of 9 tasks alone take minutes.

What was tried for 40 tasks in 5 groups is in docs/benchmarks.md.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

import tag_keras
from benchmarks.measuring import peak_megabytes, run_apart
from benchmarks.options import Renamed, make_parser, numbers
from benchmarks.original_selection import original_selection
from benchmarks.plain_program import plain_program


def draw_planted(random: np.random.Generator, num_tasks: int) -> np.ndarray:
    """Clusters of five tasks on average, whose tasks help each other, and half as much noise.

    A fifth of the tasks also helps a second cluster.
    """
    num_clusters = max(2, num_tasks // 5)
    cluster = random.integers(num_clusters, size=num_tasks)
    has_second = random.random(num_tasks) < 0.2
    second = np.where(has_second, random.integers(num_clusters, size=num_tasks), cluster)
    helps = (cluster[:, None] == cluster) | (second[:, None] == cluster)
    return helps + random.normal(size=helps.shape) * 0.5


def draw_low_rank(random: np.random.Generator, num_tasks: int) -> np.ndarray:
    """Three factors, and an offset for every target, as from momentum."""
    sources, targets = random.normal(size=(2, num_tasks, 3))
    return sources @ targets.T + random.normal(size=num_tasks)


def draw_noise(random: np.random.Generator, num_tasks: int) -> np.ndarray:
    return random.normal(size=(num_tasks, num_tasks))


KINDS = {"planted": draw_planted, "low rank": draw_low_rank, "noise": draw_noise}


def make_affinity(kind: str, num_tasks: int, seed: int) -> tag_keras.Affinity:
    mean = KINDS[kind](np.random.default_rng(seed), num_tasks)
    np.fill_diagonal(mean, 0)
    return tag_keras.Affinity([f"task_{index}" for index in range(num_tasks)], mean)


def time_call(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds of the processor that a call takes, and what it returns."""
    start = time.process_time()
    answer = function()
    return time.process_time() - start, answer


def time_both(kind: str, num_groups: int, seed: int, with_original: bool) -> tuple[float, float]:
    """Seconds for nine tasks: ours (median of five calls), and the original's (or NaN)."""
    affinity = make_affinity(kind, 9, seed)
    calls = [time_call(lambda: tag_keras.select_groups(affinity, num_groups)) for _ in range(5)]
    ours = statistics.median(seconds for seconds, _ in calls)
    if not with_original:
        return ours, math.nan
    theirs, (score, _) = time_call(lambda: original_selection(affinity, num_groups))
    if not math.isclose(score, calls[0][1].score, rel_tol=1e-9):
        raise RuntimeError(f"{kind}, seed {seed}: the original finds {score}, we {calls[0][1]}.")
    return ours, theirs


@dataclasses.dataclass(frozen=True)
class Row:
    """Selections to time, for each kind of instance; as many groups as tasks mean the frontier."""

    num_tasks: int
    num_groups: int
    kinds: Sequence[str] = tuple(KINDS)
    time_limit: float = 60.0
    most_seconds: float | None = None  # Targets: seconds and gap.
    largest_gap: float = 0.0

    def __str__(self) -> str:
        groups = "all" if self.num_groups == self.num_tasks else self.num_groups
        return f"{self.num_tasks} tasks, {groups} groups"


FRONTIER = Row(15, 15, most_seconds=1)
STRUCTURED = ("planted", "low rank")
# The time limit is for the search alone.
LARGE = (
    Row(24, 5, most_seconds=25),
    Row(40, 5, STRUCTURED, most_seconds=61, largest_gap=0.05),
    Row(40, 5, ("noise",), time_limit=10),
    Row(100, 10, time_limit=5),
    Row(100, 20, time_limit=5),
)
LONG = (
    Row(24, 8, most_seconds=25),
    Row(40, 8, STRUCTURED, most_seconds=61, largest_gap=0.01),
    Row(40, 10, STRUCTURED, most_seconds=61, largest_gap=0.01),
    Row(40, 8, ("noise",), time_limit=10),
    Row(40, 10, ("noise",), time_limit=10),
)
MOST_MEGABYTES = 2048


def select(row: Row, affinity: tag_keras.Affinity) -> tag_keras.Grouping:
    if row.num_groups == row.num_tasks:
        return tag_keras.selection_frontier(affinity, row.num_groups)[-1]
    return tag_keras.select_groups(affinity, row.num_groups, time_limit=row.time_limit)


def solve(row: Row, kind: str, seed: int) -> dict[str, float]:
    """Seconds, score and gap of one selection, and the peak memory of this process."""
    affinity = make_affinity(kind, row.num_tasks, seed)
    # What loads at the first call does not count.
    tag_keras.select_groups(make_affinity(kind, 3, seed), 2)
    seconds, grouping = time_call(lambda: select(row, affinity))
    # One group of all tasks scores the mean affinity between two tasks. The diagonal is 0.
    gain = grouping.score - affinity.mean.sum() / (row.num_tasks * (row.num_tasks - 1))
    left = 0.0 if grouping.optimal else grouping.upper_bound - grouping.score
    gap = left / gain if gain > 0 else math.inf
    figures = {"seconds": seconds, "score": grouping.score, "gain": gain, "gap": gap}
    return {**figures, "proven": int(grouping.optimal), "megabytes": peak_megabytes()}


def solve_apart(row: Row, kind: str, seed: int) -> dict[str, float]:
    """Calls `solve` in a separate process."""
    options = [
        "--processor_time",
        f"--solve={kind}",
        f"--seeds={seed}",
        f"--num_tasks={row.num_tasks}",
    ]
    options += [f"--num_groups={row.num_groups}", f"--time_limit={row.time_limit}"]
    return json.loads(run_apart("benchmarks.selection", options))


def spread(values: Sequence[float], digits: int, factor: float = 1) -> str:
    low, high = factor * min(values), factor * max(values)
    return f"{low:.{digits}f} .. {high:.{digits}f}"


def note(targets: dict[str, bool], words: str, met: bool) -> None:
    """Notes whether a target is met: it must be met at every call with the same words."""
    targets[words] = targets.get(words, True) and met


COSTS = {
    "by size": lambda random, group: 1 + 0.137 * len(group),
    "root of size": lambda random, group: math.sqrt(len(group)),
    "random": lambda random, group: random.uniform(0.5, 2.0),
}


def make_table(num_tasks: int, costs: str, seed: int) -> tuple[tag_keras.NetworkTable, float]:
    """All groups of noise with uneven costs, and a budget for three typical ones."""
    random = np.random.default_rng(seed)
    affinity = make_affinity("noise", num_tasks, seed)
    table = tag_keras.NetworkTable.from_affinity(
        affinity, lambda group: COSTS[costs](random, group), "baseline"
    )
    return table, 3 * float(np.median(table.costs))


def report_networks(seeds: Sequence[int], targets: dict[str, bool]) -> None:
    """Prints selections of networks beside one plain integer program of the same table."""
    print(f"\n{'networks, costs':24} {'ours, ms':17} {'plain, ms':17} ours / plain (median)")
    for num_tasks in (5, 6, 7, 8, 9):
        for costs in COSTS:
            times = []
            for seed in seeds:
                table, budget = make_table(num_tasks, costs, seed)
                # The first call in a process loads the solver.
                for _ in range(2):
                    ours, chosen = time_call(
                        lambda case=(table, budget): tag_keras.select_networks(*case, "max")
                    )
                plain, score = time_call(lambda case=(table, budget): plain_program(*case))
                if not math.isclose(score, chosen.score, rel_tol=1e-6, abs_tol=1e-6):
                    raise RuntimeError(f"{costs}, seed {seed}: {score} against {chosen}.")
                times.append((ours, plain, ours / plain))
            ours, plain, ratios = zip(*times, strict=True)
            line = f"{2**num_tasks - 1:4} {costs:19} {spread(ours, 1, 1000):17}"
            line += f" {spread(plain, 1, 1000):17} {spread(ratios, 2)}"
            print(f"{line} ({statistics.median(ratios):.2f})", flush=True)
            note(targets, "networks in twice a plain program", max(ratios) <= 2)


def report_nine(seeds: Sequence[int], long: bool, targets: dict[str, bool]) -> None:
    """Prints the rows of nine tasks, and notes whether they meet their targets."""
    print("9 tasks              ours, ms          original, s       original / ours")
    for num_groups in (2, 3, 4):
        for kind in KINDS:
            # 22 million families, so only once; with 4 groups there would be 2.8 billion.
            once = num_groups == 3 and kind == "planted" and long
            run = [num_groups == 2 or (once and seed == seeds[0]) for seed in seeds]
            times = [time_both(kind, num_groups, *given) for given in zip(seeds, run, strict=True)]
            ours = [first for first, _ in times]
            theirs = [second for _, second in times if not math.isnan(second)]
            ratios = [second / first for first, second in times if not math.isnan(second)]
            line = f"{num_groups} groups {kind:11} {spread(ours, 1, 1000):17}"
            if ratios:
                line += f" {spread(theirs, 2):17} {spread(ratios, 0)}"
            print(line, flush=True)
            if once:
                note(targets, "9 tasks, 3 groups 3,000 times faster", min(ratios) >= 3000)
            if num_groups == 4:
                note(targets, "9 tasks, 4 groups in 0.1 s", max(ours) <= 0.1)


def report_row(row: Row, seeds: Sequence[int], long: bool, targets: dict[str, bool]) -> None:
    """Prints the results of one row, and notes whether they meet their targets."""
    for kind in row.kinds:
        runs = [solve_apart(row, kind, seed) for seed in seeds]
        of = {name: [run[name] for run in runs] for name in runs[0]}
        line = f"{row!s:22} {kind:9} {spread(of['seconds'], 1):14} {spread(of['score'], 4):20}"
        gap = f"{spread(of['gap'], 1, 100)} ({100 * statistics.median(of['gap']):.1f})"
        line += f" {gap:22} {sum(of['proven']):6} {max(of['megabytes']):6.0f}"
        if long and row.time_limit < 60:
            longer = dataclasses.replace(row, time_limit=60.0)
            best = [solve_apart(longer, kind, seed) for seed in seeds]
            short = [
                (after["score"] - run["score"]) / after["gain"]
                for after, run in zip(best, runs, strict=True)
            ]
            line += f"   {spread(short, 2, 100)}"
        print(line, flush=True)
        if row.most_seconds:
            words = "proven" if not row.largest_gap else f"within {100 * row.largest_gap:.0f} %"
            words = f"{row!s}, {kind} {words} in {row.most_seconds:.0f} s"
            in_time = max(of["seconds"]) <= row.most_seconds
            enough = min(of["proven"]) == 1 or 0 < row.largest_gap >= max(of["gap"])
            note(targets, words, in_time and enough)
        note(targets, f"{MOST_MEGABYTES} MB", max(of["megabytes"]) <= MOST_MEGABYTES)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser("benchmarks.selection", __doc__)
    parser.add_argument("--quick", action="store_true", help="what takes a minute together")
    parser.add_argument(
        "--long",
        action="store_true",
        help="more rows, the original's 3 groups, and what 60 s add to the score, too",
    )
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--solve", choices=KINDS, help="print one selection only, as JSON")
    parser.add_argument("--num_tasks", type=int, default=15, help="with --solve")
    parser.add_argument("--num_groups", type=int, default=15, help="with --solve")
    for name in ("tasks", "groups"):
        parser.add_argument(f"--{name}", action=Renamed, now=f"--num_{name}")
    parser.add_argument("--time_limit", type=float, default=60.0, help="with --solve")
    parser.add_argument(
        "--processor_time", action="store_true", help="with --solve: count it for the time limit"
    )
    arguments = parser.parse_args(argv)
    if arguments.solve and arguments.processor_time:
        # The search asks for the time here. (HiGHS, which takes a small part of it, does not.)
        time.monotonic = time.process_time
    if arguments.solve:
        row = Row(arguments.num_tasks, arguments.num_groups, time_limit=arguments.time_limit)
        print(json.dumps(solve(row, arguments.solve, arguments.seeds[0])))
        return
    targets = {}
    report_nine(arguments.seeds, arguments.long, targets)
    report_networks(arguments.seeds, targets)
    header = f"\n{'lowest .. highest seed':32} {'CPU seconds':14} {'score':20}"
    header += f" {'gap, % (median)':22} proven     MB"
    print(header + ("   60 s add, %" if arguments.long else ""))
    rows = (FRONTIER,) if arguments.quick else (FRONTIER, *LARGE)
    for row in (*rows, *LONG) if arguments.long else rows:
        report_row(row, arguments.seeds, arguments.long, targets)
    missed = "; ".join(words for words, met in targets.items() if not met) or "none"
    print(f"\nTargets met: {sum(targets.values())} of {len(targets)}. Missed: {missed}.")


if __name__ == "__main__":
    main()
