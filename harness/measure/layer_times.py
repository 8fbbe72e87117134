"""Times each layer of an engine: a run of its own, since a profiler slows launches down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.contracts import DeviceTimed, Feed, LayerMilliseconds, LayerTimed, Session
from harness.errors import InvalidMeasurement
from harness.measure.blocks import clock_of, time_block
from harness.measure.gpu_state import watched
from harness.measure.ranges import named
from harness.records.observations import LayerRow
from harness.records.profile import LayerTime, LayerTimes

WARM_UP_LAUNCHES = 10
LAUNCHES = 30
_PLAIN = "plain launches"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """Times of layers, and what the session says of these layers; see `ProfiledLaunches`."""

    times: LayerTimes
    rows: tuple[LayerRow, ...] = ()
    inspector: str | None = None


def layer_times(
    session: Session, feed: Feed, *, name: str, rows: int, launches: int = LAUNCHES, warm_up: int = WARM_UP_LAUNCHES
) -> LayerTimes:
    """The times alone; see `profiled`."""
    return profiled(session, feed, name=name, rows=rows, launches=launches, warm_up=warm_up).times


def profiled(
    session: Session,
    feed: Feed,
    *,
    name: str,
    rows: int,
    launches: int = LAUNCHES,
    warm_up: int = WARM_UP_LAUNCHES,
    launched: str | None = None,
) -> Profiled:
    """Times of all layers, and of whole launches without the profiler beside them, as a gate times them.

    Args:
        session, feed: the engine and its uploaded inputs.
        name: the engine's, for the ranges that Nsight shows.
        rows: batch of the feed.
        launches, warm_up: how many count, and how many go before them, of either kind.
        launched: how the feed is launched, in words; None has it captured here, where the session has graphs.

    Raises:
        InvalidMeasurement: the session tells no layer times, none of them, or other layers from launch to launch.
    """
    if not isinstance(session, LayerTimed):
        raise InvalidMeasurement(f"{name}: its backend does not say how long a layer takes; choose tensorrt or onnxruntime")
    how = launched or _captured(session, feed)
    with _clock(session) as clock_mhz:
        seen = [clock_mhz()]
        with named(f"{name}: whole launches"):
            time_block(session, feed, warm_up)
            whole = time_block(session, feed, launches)
        seen.append(clock_mhz())
        with named(f"{name}: profiled launches"):
            told = session.profile(feed, warm_up + launches)
        seen.append(clock_mhz())
    times = LayerTimes(
        layers=_by_layer(told.launches[warm_up:], name),
        rows=rows,
        warm_up=warm_up,
        clock=session.layer_clock,
        launch_ms=whole,
        launched=f"{how} ({clock_of(session)})",
        sm_clock_mhz=tuple(mhz for mhz in seen if mhz is not None),
    )
    return Profiled(times=times, rows=told.rows, inspector=told.inspector)


def in_one(parts: Sequence[Profiled]) -> Profiled:
    """What was profiled of one engine in several turns, as one; the warm-up was each turn's own.

    Raises:
        InvalidMeasurement: other layers from turn to turn.
    """
    first = parts[0].times
    names = {tuple(layer.name for layer in part.times.layers) for part in parts}
    if len(names) > 1:
        raise InvalidMeasurement("the profiler told other layers from turn to turn; expected the same in every launch; profile it again")
    layers = tuple(
        LayerTime(name=layer.name, ms=tuple(ms for part in parts for ms in part.times.layers[place].ms))
        for place, layer in enumerate(first.layers)
    )
    whole = tuple(ms for part in parts for ms in part.times.launch_ms)
    clocks = tuple(mhz for part in parts for mhz in part.times.sm_clock_mhz)
    return replace(parts[0], times=replace(first, layers=layers, launch_ms=whole, sm_clock_mhz=clocks))


def _captured(session: Session, feed: Feed) -> str:
    if not isinstance(session, DeviceTimed):
        return _PLAIN
    why_not = session.capture(feed)
    return f"{_PLAIN} ({why_not})" if why_not else "graph replays"


@contextlib.contextmanager
def _clock(session: Session) -> Iterator[Callable[[], float | None]]:
    """What reads the SM clock in MHz; None where there is no GPU, or nobody to ask."""
    if not isinstance(session, DeviceTimed):
        yield lambda: None
        return
    with watched(session.device_uuid) as gpu:
        yield (lambda: None) if isinstance(gpu, str) else (lambda: gpu.state().sm_clock_mhz)


def _by_layer(told: Sequence[LayerMilliseconds], name: str) -> tuple[LayerTime, ...]:
    """Layers by their place in the launch: two of one name stay two."""
    orders = {tuple(layer for layer, _ in launch) for launch in told}
    if len(orders) != 1 or not (order := orders.pop()):
        counts = sorted({len(launch) for launch in told})
        raise InvalidMeasurement(
            f"{name}: the profiler told {' or '.join(map(str, counts)) or 'no'} layers, and not the same in each of {len(told)} launches; "
            "expected every launch to run the same layers; profile it again"
        )
    return tuple(LayerTime(name=layer, ms=tuple(launch[place][1] for launch in told)) for place, layer in enumerate(order))
