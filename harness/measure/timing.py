"""Times one launch by the host's clock."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.contracts import DeviceTimed, Feed, Session
from harness.errors import InvalidMeasurement

HOST_CLOCK = "host"

Clock = Callable[[], int]


def launch_ms(session: Session, feed: Feed, clock: Clock) -> float:
    """Milliseconds of one launch, by the device's clock where the session has one, else by a clock that gives nanoseconds.

    Raises:
        InvalidMeasurement: the clock ran backwards.
    """
    if isinstance(session, DeviceTimed):  # its launch returns before the work is done
        return session.time_launches(feed, 1, cold=False)[0]
    start = clock()
    session.launch(feed)
    taken_ns = clock() - start
    if taken_ns < 0:
        raise InvalidMeasurement(f"the clock ran {-taken_ns} ns backwards; expected a monotonic one")
    return taken_ns / 1e6


@contextmanager
def garbage_kept() -> Iterator[None]:
    """No collection while the clock runs: a pause of ours would be counted as the engine's."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
