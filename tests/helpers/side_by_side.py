"""Jobs on all cores, one thread each, the longest first."""

from __future__ import annotations

import heapq
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

Made = TypeVar("Made", covariant=True)

# Read by each process when it loads torch or numpy. More threads than cores would only wait for each other.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Job(Protocol[Made]):
    """What one process does at a time. It is pickled."""

    @property
    def name(self) -> str:
        """No other job's."""
        ...

    @property
    def seconds(self) -> float:
        """About how long it takes on one core."""
        ...

    @property
    def after(self) -> Collection[str]:
        """Names of jobs whose work it would otherwise wait for."""
        ...

    def run(self) -> Made: ...


class SideBySide(Generic[Made]):
    """Jobs, of which some are known only when others are done.

    Args:
        workers: how many processes.
        then: which jobs follow from what a job made.
        kept: by name, what jobs made in an earlier run; they are not done again.
    """

    def __init__(self, workers: int, then: Callable[[Job[Made], Made], Iterable[Job[Made]]], kept: Mapping[str, Made]) -> None:
        self._workers = workers
        self._then = then
        self._kept = kept
        self._waiting: list[Job[Made]] = []
        self._ready: list[tuple[float, str, Job[Made]]] = []
        self._done: set[str] = set()
        self.broken: list[str] = []

    def run(self, jobs: Iterable[Job[Made]]) -> Iterator[tuple[Job[Made], Made]]:
        """Each job with what it made now, as they come. One that raises is told of on stderr, is named in `broken`, and stops no other."""
        self._add(jobs)
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        with ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            running: dict[Future[Made], Job[Made]] = {}
            while self._ready or running:
                while self._ready and len(running) < self._workers:
                    _, _, job = heapq.heappop(self._ready)
                    running[pool.submit(_run, job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if future.exception() is None:
                        yield job, future.result()
                        self._finish(job, future.result())
                    else:
                        self._tell(job, future.exception())
        self.broken += [job.name for job in self._waiting]

    def _add(self, jobs: Iterable[Job[Made]]) -> None:
        for job in jobs:
            if job.name in self._kept:
                self._finish(job, self._kept[job.name])
            elif self._done.issuperset(job.after):
                heapq.heappush(self._ready, (-job.seconds, job.name, job))
            else:
                self._waiting.append(job)

    def _finish(self, job: Job[Made], made: Made) -> None:
        self._done.add(job.name)
        waiting, self._waiting = self._waiting, []
        self._add((*waiting, *self._then(job, made)))

    def _tell(self, job: Job[Made], error: BaseException | None) -> None:
        self.broken.append(job.name)
        print(f"{job.name} broke:", *traceback.format_exception(error), file=sys.stderr)  # noqa: T201 (for people)


def _run(job: Job[Made]) -> Made:
    return job.run()
