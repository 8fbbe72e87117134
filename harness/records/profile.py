"""How long each layer of an engine takes, by a run of its own that is never the timed one, and what is known of these layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from harness.errors import InvalidMeasurement
from harness.records.engine_nodes import EngineNode
from harness.records.observations import LayerRow

PROFILE_SCHEMA = "enginegate/profile/1"


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
        warm_up: launches before those that count, by the same profiler; where engines took turns, in each turn.
        clock: who timed the layers.
        launch_ms: milliseconds of launches without the profiler, before it was attached, one figure a launch.
        launched: how those were launched, and by whose clock.
        sm_clock_mhz: the GPU's clock before, between and after the two kinds of launches, when nothing ran; empty where it cannot be read.

    Raises:
        InvalidMeasurement: no layers, no launches, layers of unequal launches, or a time that cannot be.
    """

    layers: tuple[LayerTime, ...]
    rows: int
    warm_up: int
    clock: str
    launch_ms: tuple[float, ...]
    launched: str
    sm_clock_mhz: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(layer.ms) for layer in self.layers}
        if len(counts) != 1 or 0 in counts or not self.launch_ms:
            raise InvalidMeasurement(
                f"layer times hold {len(self.layers)} layers with {' and '.join(map(str, sorted(counts))) or 'no'} launches, beside "
                f"{len(self.launch_ms)} whole launches; expected as many of each layer, and at least one; profile it again"
            )
        negative = next((layer.name for layer in self.layers if min(layer.ms) < 0), None)
        if negative is not None or min(self.launch_ms) <= 0:
            raise InvalidMeasurement(f"{negative or 'a whole launch'} took no time or less; expected milliseconds; profile it again")

    @property
    def launches(self) -> int:
        """How many launches count."""
        return len(self.layers[0].ms)

    @property
    def sum_ms(self) -> float:
        """Milliseconds of one launch as the sum of its layers, each at its median."""
        return sum(layer.median_ms for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """How fast one device is at best, as measured; None is what was not measured.

    Attributes:
        copy_gbps: 10^9 bytes a second that copies within the device read and write together.
        fp16_tflops, fp8_tflops: 10^12 operations a second of one large matrix product in FP16, and of FP8 (E4M3) by FP8.
        words: how each was measured, or why not, by its name; `all` where none could be.
    """

    copy_gbps: float | None = None
    fp16_tflops: float | None = None
    fp8_tflops: float | None = None
    words: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """One engine's layers and their times; all that is needed to explain it on another machine.

    Attributes:
        engine: `EngineSpec.id`.
        run: of the profiling run, the same for engines that took turns in it; nothing else is told by it.
        device: the GPU that the engine is bound to; None where it is bound to none.
        layers: the layer table, in its order; empty where nobody has one.
        nodes: each ONNX node's place among `layers`; without the graph, those that layers name, and operators and blocks are unknown.
        flops: ONNX name of each product to its operations for one row of the batch; empty without the graph.
        ceilings: of the device, measured beside the profile.
        guard: what was seen of the machine meanwhile, by name, such as whether its clocks were locked; empty where nobody looked.
        notes: what a reader should know, such as that the graph was not at hand.
    """

    engine: str
    run: str
    encoder: str
    recipe: str
    backend: str
    backend_version: str
    batch: str
    sha256: str | None
    device: str | None
    times: LayerTimes
    layers: tuple[LayerRow, ...] = ()
    nodes: tuple[EngineNode, ...] = ()
    lists_constants: bool = True
    flops: Mapping[str, int] = field(default_factory=dict[str, int])
    ceilings: Ceilings | None = None
    guard: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    schema: Literal["enginegate/profile/1"] = "enginegate/profile/1"
