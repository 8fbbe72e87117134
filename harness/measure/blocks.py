"""Times blocks of launches, by the backend's clock where it has one, else by the host's."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from harness.contracts import DeviceTimed, Feed, Session
from harness.errors import InvalidMeasurement
from harness.measure.cold_cache import ColdCache
from harness.measure.timing import HOST_CLOCK, Clock, garbage_kept, launch_ms
from harness.records.latency import Arm
from harness.records.timing import TimingProtocol

BlockTimer = Callable[[int], tuple[float, ...]]  # launches -> milliseconds of each

ABBA = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)
BAAB = (Arm.CANDIDATE, Arm.BASELINE, Arm.BASELINE, Arm.CANDIDATE)
# A window of fewer launches has a median that one of them decides.
FEWEST_WARM_LAUNCHES = 3
# A launch of a microsecond would fill a block with more figures than anyone reads.
MOST_LAUNCHES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """What it took until launches were alike.

    Attributes:
        windows: how many were run.
        is_settled: whether the last two agreed, within the protocol's tolerance.
        launch_ms: median of the last window, in milliseconds a launch.
    """

    windows: int
    is_settled: bool
    launch_ms: float

    def __str__(self) -> str:
        return f"{self.windows} windows, the last two {'agree' if self.is_settled else 'still differ'}"


def clock_of(session: Session) -> str:
    """Whose clock times this session."""
    return session.clock if isinstance(session, DeviceTimed) else HOST_CLOCK


def time_block(
    session: Session, feed: Feed, launches: int, *, cold: ColdCache | None = None, clock: Clock = time.perf_counter_ns
) -> tuple[float, ...]:
    """Milliseconds of each of so many launches, without a pause between them.

    Hot, an untimed launch leads in: what ran before may have been the other engine. Cold, the caches are emptied before each.

    Args:
        cold: how the host's caches are emptied; None leaves them hot. A session with a device clock empties the device's instead.
        clock: nanoseconds, monotonic; of the host.

    Raises:
        InvalidMeasurement: no launches asked for, or a clock that runs backwards.
    """
    if launches < 1:
        raise InvalidMeasurement(f"a block of {launches} launches was asked for; expected at least one")
    if cold is None:
        session.launch(feed)
    if isinstance(session, DeviceTimed):
        return session.time_launches(feed, launches, cold=cold is not None)
    with garbage_kept():
        return tuple(_host_ms(session, feed, cold, clock) for _ in range(launches))


def warm_up(timer: BlockTimer, protocol: TimingProtocol) -> WarmUp:
    """Launch until the medians of two consecutive windows differ by at most the protocol's tolerance, or it has enough.

    The first launches load, allocate and widen arenas; a device also raises its clock. A window lasts about a block.
    """
    (first_ms,) = timer(1)
    before = first_ms
    for window in range(1, protocol.warm_windows + 1):
        now = median(timer(max(FEWEST_WARM_LAUNCHES, launches_a_block(before, protocol.block_ms))))
        if window > 1 and abs(now - before) <= protocol.warm_tolerance * min(now, before):
            return WarmUp(windows=window, is_settled=True, launch_ms=now)
        before = now
    return WarmUp(windows=protocol.warm_windows, is_settled=False, launch_ms=before)


def launches_a_block(slower_ms: float, block_ms: float) -> int:
    """How many launches of the slower engine fill a block: at least one, and as many for both engines.

    Args:
        slower_ms: milliseconds a launch of the slower of the two engines.
        block_ms: milliseconds a block.
    """
    return min(MOST_LAUNCHES, max(1, round(block_ms / max(slower_ms, 1e-6))))


def quartet_orders(protocol: TimingProtocol, *, process: int, gate: str) -> tuple[tuple[Arm, ...], ...]:
    """The order of each quartet's blocks, [quartets][4]: A B B A or B A A B, drawn from the seed, the process and the gate's name."""
    rng = random.Random(f"{protocol.seed}/{process}/{gate}")
    return tuple(rng.choice((ABBA, BAAB)) for _ in range(protocol.quartets))


def _host_ms(session: Session, feed: Feed, cold: ColdCache | None, clock: Clock) -> float:
    if cold is not None:
        cold.walk()
    return launch_ms(session, feed, clock)
