"""Independent jobs on all cores, one thread each, with results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Job], Made], jobs: Iterable[Job]) -> Iterator[Made]:
    """What `work` makes of each job. It must be a function of a module, since each process imports it anew."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by each process when it loads torch
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs)
