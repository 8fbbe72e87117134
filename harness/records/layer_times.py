"""How long each layer of an engine takes, by a run of its own that is never the timed one."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer, by the name that the profiler gives it; `ms` holds one figure a launch."""

    name: str
    ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Of its launches, in milliseconds."""
        return median(self.ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """All layers of one engine, in the order of the launch.

    Attributes:
        rows: batch of every launch.
        warm_up: launches before those that count, by the same profiler.
        clock: who timed the layers.
        launch_ms: milliseconds of launches without the profiler, before it was attached, one figure a launch.
        launched: how those were launched, and by whose clock.
        sm_clock_mhz: the GPU's clock before, between and after the two; empty where it cannot be read.
    """

    layers: tuple[LayerTime, ...]
    rows: int
    warm_up: int
    clock: str
    launch_ms: tuple[float, ...]
    launched: str
    sm_clock_mhz: tuple[float, ...] = ()

    @property
    def launches(self) -> int:
        """How many launches count."""
        return len(self.layers[0].ms) if self.layers else 0

    @property
    def sum_ms(self) -> float:
        """Milliseconds of one launch as the sum of its layers, each at its median."""
        return sum(layer.median_ms for layer in self.layers)
