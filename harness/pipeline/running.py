"""Runs engines on batches of a suite's own, each engine loaded once for those and each batch launched once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import ContextLost, WorkerFailed
from harness.measure.embeddings import read_batch, run_batch
from harness.pipeline.isolating import opened
from harness.pipeline.making import Maker, Once

if TYPE_CHECKING:
    from harness.contracts import Session
    from harness.records.spec import EngineSpec

Rows = NDArray[np.generic]
Embedded = NDArray[np.floating]


class Runner:
    """Keeps one session an engine until it is closed, and what its launches gave.

    Args:
        maker: makes the engines.
    """

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._once = Once()
        self._stack = ExitStack()
        self._closings = 0
        self._rows_run: Counter[EngineSpec] = Counter()
        self._lost: Counter[EngineSpec] = Counter()

    def run(self, spec: EngineSpec, name: str, rows: Rows) -> Embedded:
        """What one launch makes of one batch: [n, d] in the engine's own floating type. The same batch is not launched again.

        Raises:
            OutsideProfile, UnusableInputs: the engine does not take this batch.
        """
        return self._once(_launch_key(spec, name, rows), lambda: self._run(spec, name, rows))

    def relaunched(self, spec: EngineSpec, name: str, rows: Rows) -> tuple[Embedded, Embedded]:
        """Two launches of one upload; `run` knows the first from then on."""
        with self._session(spec) as session:
            feed = session.upload({name: rows})
            first, again = (self._launch(session, feed, spec, len(rows)) for _ in range(2))
        self._once(_launch_key(spec, name, rows), lambda: first)
        return first, again

    def reloaded(self, spec: EngineSpec, name: str, rows: Rows) -> Embedded:
        """One launch by the engine loaded from its file once more."""
        self._rows_run[spec] += len(rows)
        with opened(self._maker.engine(spec)) as session:
            return run_batch(session, {name: rows}, made_by=spec.id)

    def rows_run(self, spec: EngineSpec) -> int:
        """Rows that this engine was launched with so far; refused batches are none."""
        return self._rows_run[spec]

    def close(self) -> None:
        """Free all engines. One that is run again is loaded again."""
        self._stack.close()
        self._closings += 1

    @contextmanager
    def _session(self, spec: EngineSpec) -> Iterator[Session]:
        """The engine's session. One whose process broke serves no other batch: the next one gets a fresh process."""
        key = ("session", self._closings, self._lost[spec], spec)
        session = self._once(key, lambda: self._stack.enter_context(opened(self._maker.engine(spec))))
        try:
            yield session
        except (ContextLost, WorkerFailed):
            self._lost[spec] += 1
            raise

    def _run(self, spec: EngineSpec, name: str, rows: Rows) -> Embedded:
        with self._session(spec) as session:
            feed = session.upload({name: rows})
            return self._launch(session, feed, spec, len(rows))

    def _launch(self, session: Session, feed: object, spec: EngineSpec, rows: int) -> Embedded:
        self._rows_run[spec] += rows
        session.launch(feed)
        return read_batch(session, feed, rows=rows, made_by=spec.id)


def _launch_key(spec: EngineSpec, name: str, rows: Rows) -> tuple[object, ...]:
    """With a digest of dtype, strides, shape and values: how a batch lies in memory is part of what is tried."""
    digest = hashlib.sha256(f"{rows.dtype.str} {rows.shape} {rows.strides} ".encode())
    digest.update(np.ascontiguousarray(rows).data)
    return ("launch", spec, name, digest.hexdigest())
