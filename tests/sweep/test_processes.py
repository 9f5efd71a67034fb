import collections
import contextlib
import functools
import os
import pickle
import random
import re
import signal
import time
from pathlib import Path

import forks
import keras
import numpy as np
import pytest
import sweep_job
from quick_start import python_path
from sweep_folders import ONE_SPLIT, contents, make_job, pretend
from sweep_job import BUILDS, DATA, build_model

import tag_keras
from tag_keras import results
from tag_keras.sweep import job, runners, sweep
from tag_keras.sweep import network as training
from tag_keras.utils import child_processes

# Python runs it as it starts: the first process of a sweep is killed, like one that takes too much
# memory, and before it takes its time to import TensorFlow. Keras does without what is missing.
KILLS_THE_FIRST = """
import os, pathlib, signal, sys
if "--multiprocessing-fork" in sys.orig_argv:
    sys.modules.update(sklearn=None, matplotlib=None)
    try:
        pathlib.Path({path!r}).open("x").close()
    except FileExistsError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_networks_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(BUILDS, str(tmp_path / "builds"))
    killed = tmp_path / "killed"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(KILLS_THE_FIRST.format(path=str(killed)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"), prepend=os.pathsep)
    measured = functools.partial(build_model, affinity=tag_keras.LookaheadAffinity(1))
    talking = {"epochs": 3}
    jobs = [
        make_job("one", "a"),
        job.Job(training.Network("measured", tuple("abc")), measured, talking),
    ]
    folder = tmp_path / "there"
    sweep.run_sweep(folder, jobs, DATA, processes=2)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"Training 2 of 2 networks; logs in {folder / 'logs'}"
    assert len(printed) == 2 and printed[1].startswith("Training networks: 2/2 in ")
    # A child shows that it is alive: one line for each epoch, as with verbose=2 of Keras' fit.
    lines = (folder / "logs" / "measured_seed0.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("Epoch")] == [
        f"Epoch {i}/3" for i in (1, 2, 3)
    ]
    assert len([line for line in lines if " - loss: " in line]) == 3
    sweep.run_sweep(folder, jobs, DATA)
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"Nothing to train: everything in {folder} was .*\n", printed)
    # The second time, this process built them to compare them with those that are there.
    built = sweep_job.read_builds(tmp_path / "builds")
    # Each twice, to find layers that they would have in common.
    assert sorted(tasks for tasks, _ in built[:4]) == ["a", "a", "abc", "abc"]
    assert built[4:] == [("a", str(os.getpid())), ("abc", str(os.getpid()))]
    assert len({process for _, process in built}) == 3
    # The one that was killed was tried once more.
    assert killed.exists()

    # The same in this process.
    expected = sweep.run_sweep(tmp_path / "here", jobs, DATA, processes=0)
    rows = results.load_results(folder / "results.json")
    assert [row.network for row in rows] == ["one"] * 2 + ["measured"] * 6
    np.testing.assert_allclose([r.loss for r in rows], [r.loss for r in expected], rtol=1e-5)
    names = ["measured_seed0.affinity.json", "measured_seed0.keras", "measured_seed0.trained.json"]
    names += ["one_seed0.keras", "one_seed0.trained.json"]
    for place in ("here", "there"):
        assert sorted(path.name for path in (tmp_path / place / "networks").iterdir()) == names
    affinities = [
        tag_keras.Affinity.load(tmp_path / place / "networks" / names[0]).mean
        for place in ("here", "there")
    ]
    np.testing.assert_allclose(*affinities, rtol=1e-3, atol=1e-6)


TRACE = "Traceback (most recent call last):\n  File 'x', line 1\n"


@pytest.mark.parametrize(
    ("code", "printed", "reason", "attempts"),
    [
        (child_processes.FAILS_AGAIN, f"note\n{TRACE}ValueError: no\n", "ValueError: no", 1),
        (1, f"{TRACE}KeyError: 1\n\nMeanwhile:\n{TRACE}OSError: disc\n", "OSError: disc", 2),
        (-signal.SIGKILL, "", "killed by SIGKILL, perhaps for want of memory", 2),
        (-signal.SIGSEGV, "", "killed by SIGSEGV", 2),
        (3, "a\nb\n\nc\nd\n", "ended with exit code 3\nb\nc\nd", 2),
    ],
)
def test_why_a_process_failed(tmp_path, monkeypatch, code, printed, reason, attempts):
    calls = []

    def call(self, payload, log, environment):
        calls.append(log)
        with open(log, "a") as file:
            file.write(printed)
        return code

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    log = tmp_path / "logs" / "one_seed0.log"
    with pytest.raises(sweep.SweepError) as caught:
        sweep.run_sweep(tmp_path, [make_job("one", "ab")], DATA)
    first, rest = str(caught.value).split("\n", 1)
    again = "The same command tries these again:"
    if code == child_processes.FAILS_AGAIN:
        again = "They would fail again: mend the cause, then run the same command:"
    assert first == f"1 of 1 networks failed. {again}"
    assert rest == f"- 'one', seed 0, of the tasks a, b: {reason} ({log})"
    assert calls == [log] * attempts


def test_a_process_that_fails_after_its_rows_has_not_failed(tmp_path, monkeypatch):
    def call(self, payload, log, environment):
        pretend(tmp_path, make_job("one", "a"), ONE_SPLIT)
        return -signal.SIGABRT

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    assert len(sweep.run_sweep(tmp_path, [make_job("one", "a")], ONE_SPLIT)) == 1


def test_the_dtype_policy_goes_along(tmp_path, monkeypatch):
    policies = []

    def call(self, payload, log, environment):
        keras.config.set_dtype_policy("float32")
        pickle.loads(payload)()
        return 0

    def train(folder, one, data, progress=None):
        policies.append(keras.config.dtype_policy().name)
        pretend(folder, one, data)

    monkeypatch.setattr(child_processes.ChildProcesses, "call", call)
    monkeypatch.setattr(runners, "train_job", train)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        sweep.run_sweep(tmp_path, [make_job("one", "a")], DATA)
    finally:
        keras.config.set_dtype_policy("float32")
    assert policies == ["mixed_bfloat16"]


class Sweep:
    """A sweep of four networks in another process, to be killed."""

    NUMBER = 4

    def __init__(self, folder):
        self.folder, self.builds = folder / "killed", folder / "builds"
        self.process, self.parents = None, set()

    def start(self, folder=None, processes=2):
        environment = {"PYTHONPATH": python_path(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        # One thread, because the order in which several add up is not fixed.
        environment |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment |= {} if folder else {BUILDS: str(self.builds)}
        arguments = (folder or self.folder, processes, self.NUMBER)
        self.process = forks.start(
            sweep_job.main, *arguments, environment=environment, own_group=True
        )
        self.parents.add(str(self.process.pid))

    def end(self):
        self.process.join()
        return self.process.exitcode

    def built(self):
        """Networks that were built, each twice, without those that the sweep builds to compare."""
        builds = dict.fromkeys(sweep_job.read_builds(self.builds))
        return [one for one in builds if one[1] not in self.parents]

    def has_built(self, number):
        return len(self.built()) >= number

    def unfinished(self):
        """Those built, of networks that are not trained to the end."""
        ends = ("*.rows.json", "*.trained.json")
        names = {path.name.partition("_")[0] for end in ends for path in self.folder.rglob(end)}
        if (self.folder / "results.json").exists():
            names |= {r.network for r in results.load_results(self.folder / "results.json")}
        return {one for one in self.built() if one[0] not in names}


def states():
    """State and process group of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(path.parent.name)] = fields[0], int(fields[2])
    return found


def wait_for(condition, *args):
    end = time.monotonic() + 600
    while not condition(*args):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def process_ended(pid):
    return states().get(pid, "Z")[0] == "Z"


def group_ended(number):
    return all(state == "Z" for state, group in states().values() if group == number)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the state of processes in /proc")
def test_killed_at_random_times_it_ends_with_the_same_results(tmp_path):
    one, draw = Sweep(tmp_path), random.Random(0)
    one.start()
    # Each network that was built and cut off once, however many are killed until it is built again.
    cut_off = set()
    for kind in ("parent", "child", "Ctrl-C"):
        wait_for(one.has_built, len(one.built()) + 1)
        time.sleep(draw.uniform(0, 1))
        if kind == "child":
            last = _, pid = one.built()[-1]
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            wait_for(process_ended, int(pid))
            cut_off |= one.unfinished() & {last}
            continue
        kill = os.kill if kind == "parent" else os.killpg
        kill(one.process.pid, signal.SIGINT if kind == "Ctrl-C" else signal.SIGKILL)
        one.end()
        # Children whose parent was killed end by themselves.
        wait_for(group_ended, one.process.pid)
        cut_off |= one.unfinished()
        one.start()
    assert one.end() == 0
    built = collections.Counter(tasks for tasks, _ in one.built())
    repeated = collections.Counter(tasks for tasks, _ in cut_off)
    names = [network.name for network in sweep_job.all_networks()[: Sweep.NUMBER]]
    assert built == {name: 1 + repeated[name] for name in names}
    one.start(tmp_path / "undisturbed", processes=0)
    assert one.end() == 0
    assert contents(one.folder) == contents(tmp_path / "undisturbed")
