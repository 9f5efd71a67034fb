"""results.json of a sweep: whole after every network, and in the same order after any kill."""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

from tag_keras import files
from tag_keras.job import Job, JobFiles
from tag_keras.results import Row, load_results, load_sweep_results, save_results


class SweepTable:
    """The rows of the jobs in their order, after the rows of others.

    Rows of a job whose files are gone do not count.

    Args:
        folder: Folder of the sweep.
        jobs: All jobs of the sweep.

    Raises:
        ValueError: If the folder has a network of the same name and seed, but of other tasks, or
            if its results are damaged.
    """

    def __init__(self, folder: Path, jobs: Iterable[Job]) -> None:
        self._folder, self._path = folder, folder / "results.json"
        self._jobs = {_key(job): job for job in jobs}
        self._others: list[Row] = []
        self._own: dict[tuple[str, int], list[Row]] = {}
        for row in load_sweep_results(folder):
            key = (row.network, row.seed)
            if key in self._jobs:
                self._check_tasks(row, self._jobs[key].network.tasks)
                # Without its files, a network is trained anew.
                if self._files(self._jobs[key]).are_there(self._jobs[key]):
                    self._own.setdefault(key, []).append(row)
            else:
                self._others.append(row)

    @property
    def rows(self) -> list[Row]:
        return [*self._others, *(row for key in self._jobs for row in self._own.get(key, []))]

    def settle(self, twins: Iterable[Job]) -> bool:
        """Writes down the rows of jobs that are one and the same training, if one has finished.

        Args:
            twins: The jobs. Those that were not trained become copies of one that was.

        Returns:
            Whether one has finished.
        """
        twins = list(twins)
        known = len(self._own)
        for job in twins:
            paths = self._files(job)
            if not paths.are_there(job):
                paths.rows.unlink(missing_ok=True)
            elif _key(job) not in self._own and paths.rows.exists():
                self._own[_key(job)] = load_results(paths.rows)
        source = next((job for job in twins if _key(job) in self._own), None)
        if source is None:
            return False
        for job in twins:
            if _key(job) not in self._own:
                self._copy(source, job)
        if len(self._own) > known:
            save_results(self._path, self.rows)
        for job in twins:
            self._files(job).rows.unlink(missing_ok=True)
        return True

    def _copy(self, source: Job, job: Job) -> None:
        given, wanted = self._files(source), self._files(job)
        paths = [(given.affinity, wanted.affinity)] if given.affinity.exists() else []
        paths += [(given.model, wanted.model)] if job.saves else []
        paths += [(given.trained, wanted.trained)] if given.trained.exists() else []
        for path, new in paths:
            with files.replacing(new) as partial:
                shutil.copyfile(path, partial)
        name = job.network.name
        rows = self._own[_key(source)]
        self._own[_key(job)] = [dataclasses.replace(row, network=name) for row in rows]

    def _files(self, job: Job) -> JobFiles:
        return JobFiles(self._folder, job.network)

    def _check_tasks(self, row: Row, tasks: tuple[str, ...]) -> None:
        if row.tasks != tasks:
            raise ValueError(
                f"{self._path} has another network {row.network!r}, seed {row.seed}, of the tasks "
                f"{list(row.tasks)}. Give another folder, or another name. Received: "
                f"tasks={list(tasks)}."
            )


def _key(job: Job) -> tuple[str, int]:
    return job.network.name, job.network.seed
