"""Times launches of several engines side by side, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.contracts import DeviceTimed, Feed, Session
from harness.errors import InvalidMeasurement
from harness.records.observations import TimingSamples

HOST_CLOCK = "host"
# The first launch allocates, the second may still widen arenas; the third runs as all later ones do.
WARM_UP_LAUNCHES = 3

Clock = Callable[[], int]


def interleaved_ms(
    sessions: Mapping[str, tuple[Session, Feed]],
    *,
    rounds: int,
    seed: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each launch, `rounds` of them an arm.

    In each round every arm is launched once. Rounds come in pairs: the first in an order drawn from `seed`, the second in
    the reverse of it, so that a drift that is linear in time falls on all arms alike.

    Args:
        sessions: for each arm, a session whose launch returns when the work is done, and a feed of its own.
        rounds: launches an arm, after the warm-up.
        seed: of the orders.
        clock: nanoseconds, monotonic.

    Raises:
        InvalidMeasurement: no arms, no rounds, or a clock that runs backwards.
    """
    if not sessions or rounds < 1:
        raise InvalidMeasurement(f"nothing to time: {len(sessions)} engines, {rounds} rounds; expected at least one of each")
    for session, feed in sessions.values():
        for _ in range(WARM_UP_LAUNCHES):
            session.launch(feed)
    ms: dict[str, list[float]] = {arm: [] for arm in sessions}
    with garbage_kept():
        for order in _orders(tuple(sessions), rounds, seed):
            for arm in order:
                ms[arm].append(launch_ms(*sessions[arm], clock))
    return {arm: tuple(times) for arm, times in ms.items()}


def samples(engine: str, ms: Sequence[float], *, batch: int, clock: str = HOST_CLOCK) -> TimingSamples:
    """The times of one engine as a record.

    Raises:
        InvalidMeasurement: no times, or one that is not a positive finite number.
    """
    if not ms or not all(math.isfinite(time_ms) and time_ms > 0 for time_ms in ms):
        raise InvalidMeasurement(f"{engine} has {len(ms)} times, not all above 0 ms; expected at least one; use a finer clock")
    return TimingSamples(engine=engine, batch=batch, clock=clock, ms=tuple(ms))


def _orders(arms: tuple[str, ...], rounds: int, seed: int) -> Iterator[tuple[str, ...]]:
    rng = random.Random(seed)
    for start in range(0, rounds, 2):
        order = tuple(rng.sample(arms, len(arms)))
        yield order
        if start + 1 < rounds:
            yield order[::-1]


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
