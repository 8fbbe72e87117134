"""Builds engines at one time, on one GPU or several, and never beside a timing on the same GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from harness.records.spec import EngineSpec

Build = Callable[[EngineSpec, str | None], None]


class Builders:
    """Threads that each have one engine built, in the order in which engines are asked for.

    Where there are several GPUs, those that nobody times on build the next engines meanwhile.

    Args:
        build: builds an engine on the GPU of that UUID, None leaving the choice to the backend. It must not raise; what it does raise
            is raised again by `wait`.
        builders: how many at one time.
        gpus: UUIDs of the GPUs to build on, the one that is timed on first; empty for a backend that is bound to none.
    """

    def __init__(self, build: Build, builders: int, gpus: Sequence[str] = ()) -> None:
        self._build = build
        self._changed = threading.Condition()
        self._queue: list[EngineSpec] = []
        self._working: dict[EngineSpec, int] = {}
        self._broken: BaseException | None = None
        self._is_timing = self._is_closed = False
        # One GPU needs no name; of several, builders take turns.
        places = [number % max(1, len(gpus)) for number in range(builders)]
        named: Sequence[str | None] = gpus if len(gpus) > 1 else (None,)
        self._threads = [threading.Thread(target=self._work, args=(place, named[place]), daemon=True) for place in places]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Builders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Forget what is not begun, and wait for what is."""
        with self._changed:
            self._queue.clear()
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def begin(self, engines: Sequence[EngineSpec]) -> None:
        """Have engines built, after those that were asked for before."""
        with self._changed:
            self._queue += [engine for engine in engines if not self._is_asked_for(engine)]
            self._changed.notify_all()

    def wait(self, engines: Sequence[EngineSpec]) -> None:
        """Until none of them is waiting or being built."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._broken is not None or not any(one in self._queue or one in self._working for one in engines)
            )
            if self._broken is not None:
                raise self._broken

    @contextmanager
    def timing(self) -> Iterator[None]:
        """The first GPU is left alone: what is built there is waited for, and nothing is begun there meanwhile."""
        with self._changed:
            self._is_timing = True
            self._changed.wait_for(lambda: 0 not in self._working.values())
        try:
            yield
        finally:
            with self._changed:
                self._is_timing = False
                self._changed.notify_all()

    def _is_asked_for(self, engine: EngineSpec) -> bool:
        return engine in self._queue or engine in self._working

    def _work(self, place: int, gpu: str | None) -> None:
        while (engine := self._next(place)) is not None:
            try:
                self._build(engine, gpu)
            except BaseException as error:  # noqa: BLE001 (it must reach the thread that waits, whatever it is)
                self._broken = error
            with self._changed:
                del self._working[engine]
                self._changed.notify_all()

    def _next(self, place: int) -> EngineSpec | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or (bool(self._queue) and not (self._is_timing and place == 0)))
            if self._is_closed:
                return None
            engine = self._queue.pop(0)
            self._working[engine] = place
            return engine
