"""A session whose engine is in another process: what breaks there breaks there."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.contracts import InputPort
from harness.records.artifacts import EngineArtifact
from harness.records.observations import Tensors
from harness.workers.serving import array_from_plain, array_to_plain, engine_to_plain
from harness.workers.worker import Worker


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class WorkerFeed:
    """Inputs that a worker holds, by their number there."""

    number: int


class WorkerSession:
    """An engine in a worker of its own. Arrays cross by copy, so nothing is timed through it.

    Every call raises what `Worker.ask` raises: once the worker is gone, it is gone for this engine and no other.

    Args:
        timeout_s: seconds that any one call may take.
    """

    def __init__(self, worker: Worker, engine: EngineArtifact, *, timeout_s: float, threads: int | None = None) -> None:
        self._worker, self._timeout_s = worker, timeout_s
        self._dropped: list[int] = []
        ports = self._ask("begin", engine=engine_to_plain(engine), threads=threads)
        self.ports = tuple(InputPort(name=name, dtype=np.dtype(dtype), shape=tuple(shape)) for name, dtype, shape in ports)

    def upload(self, inputs: Tensors) -> WorkerFeed:
        """Send the inputs; gaps between their values are made there too."""
        dropped, self._dropped = self._dropped, []
        feed = WorkerFeed(self._ask("put", inputs={name: array_to_plain(array) for name, array in inputs.items()}, dropped=dropped))
        # Told with the next upload: a worker must not be asked while it is being asked something else.
        weakref.finalize(feed, self._dropped_later, feed.number)
        return feed

    def launch(self, feed: WorkerFeed) -> None:
        """Launch there."""
        self._ask("launch", feed=feed.number)

    def download(self, feed: WorkerFeed) -> Tensors:
        """The outputs of the last launch."""
        found: Mapping[str, Any] = self._ask("fetch", feed=feed.number)
        return {name: array_from_plain(plain) for name, plain in found.items()}

    def _dropped_later(self, number: int) -> None:
        self._dropped.append(number)

    def _ask(self, verb: str, **arguments: Any) -> Any:
        return self._worker.ask(verb, timeout_s=self._timeout_s, **arguments)
