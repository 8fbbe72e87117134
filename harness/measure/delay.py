"""Makes launches slower by a known amount where the host's clock times them."""

from __future__ import annotations

import time

from harness.contracts import Feed, Session
from harness.measure.timing import Clock
from harness.records.observations import Tensors


class DelayedSession:
    """A session whose launches of some feeds end with a wait that keeps the processor busy.

    Sleeping would give the processor away, and what runs meanwhile would be in the next launch's time.
    """

    def __init__(self, session: Session, clock: Clock = time.perf_counter_ns) -> None:
        self._session = session
        self._clock = clock
        self._wait_ns: dict[int, int] = {}

    def upload(self, inputs: Tensors) -> Feed:
        """As the session does."""
        return self._session.upload(inputs)

    def delay(self, feed: Feed, delay_ms: float) -> float:
        """Have each launch of `feed` last longer by so many milliseconds."""
        self._wait_ns[id(feed)] = round(delay_ms * 1e6)
        return delay_ms

    def launch(self, feed: Feed) -> None:
        """As the session does, and then wait."""
        self._session.launch(feed)
        end = self._clock() + self._wait_ns.get(id(feed), 0)
        while self._clock() < end:
            pass

    def download(self, feed: Feed) -> Tensors:
        """As the session does."""
        return self._session.download(feed)
