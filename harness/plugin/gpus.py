"""Which GPU each process of a run uses, settled before CUDA starts there; and nobody else's while it does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.plugin.options import Settings


PLACE = "enginegate_place"  # of an xdist worker among those that run at one time, in what it is given


class Places:
    """Which of several places each worker of a run has. A worker's own number will not do: one that replaces another has a new one."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, worker: str) -> int:
        """The first place that is free, from 0."""
        self._taken[worker] = next(place for place in itertools.count() if place not in self._taken.values())
        return self._taken[worker]

    def leave(self, worker: str) -> None:
        """Give a place back, for whoever comes next."""
        self._taken.pop(worker, None)


def settle_gpu(config: pytest.Config, backends: Sequence[str]) -> None:
    """Give this process its GPU: the one that `--gpu` names, under xdist one of its own. Without either, CUDA's first is used.

    Raises:
        UsageError: `--gpu` names none that is here, or there are more processes than GPUs.
    """
    named, workers = config.option.gpu or [], int(getattr(config.option, "numprocesses", None) or 0)
    given = getattr(config, "workerinput", None)
    if not (named or workers or given) or not _use_a_gpu(backends):
        return
    from harness.measure.gpu_choice import chosen_gpus, gpu_of_worker, gpus_here, require_enough, use_gpu

    gpus = chosen_gpus(named, gpus_here())
    if given:
        if gpus:
            use_gpu(gpu_of_worker(gpus, int(given[PLACE])))
    elif workers:
        if gpus:  # without a GPU each gate says so itself
            require_enough(gpus, workers)
    else:
        use_gpu(gpus[0])


@contextmanager
def gpus_held(settings: Settings, note: Callable[[str], None]) -> Generator[None]:
    """Hold the GPU that this process uses, if it uses one; another run that wants it waits."""
    from harness.pipeline.isolating import gpu_of
    from harness.pipeline.names import backend_of
    from harness.store.gpu_lock import gpu_held

    gpus = (gpu_of(backend_of(name)) for name in settings.backends)
    with ExitStack() as stack:
        for uuid in sorted({gpu.uuid for gpu in gpus if gpu is not None}):
            stack.enter_context(gpu_held(uuid, settings.cache_dir, note))
        yield


def _use_a_gpu(backends: Sequence[str]) -> bool:
    from harness.contracts import DeviceBound
    from harness.pipeline.names import backend_of

    return any(isinstance(backend_of(name), DeviceBound) for name in backends)
