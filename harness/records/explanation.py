"""Where the time of two engines goes, and where it differs: what `enginegate explain` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from harness.records.profile import Ceilings

EXPLANATION_SCHEMA = "enginegate/explanation/1"


class Work(StrEnum):
    """What a layer mostly does."""

    FP8_GEMM = "FP8 GEMM"  # matrix products and convolutions of FP8 by FP8
    FP16_GEMM = "FP16 GEMM"  # those that are not provably in FP8: half precision or wider
    ATTENTION = "fused attention"  # both products and the Softmax between them in one layer
    SOFTMAX = "softmax"
    ELEMENTWISE = "elementwise"  # normalisation, activation, sums, and whatever is fused with them
    QUANTIZE = "quantize"  # Q/DQ nodes alone
    REFORMAT = "reformat"  # moves, copies or retypes numbers, and computes none
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Milliseconds a launch of one engine on one thing, and what they bought.

    Attributes:
        layers: how many layers; one whose time is shared counts wherever it has a share.
        tflops: 10^12 operations a second of the ONNX products in layers that are products or fused attention; None for other layers,
            and without the graph.
        gbps: 10^9 bytes a second of what these layers' operands hold; None where a size is unknown.
    """

    ms: float
    layers: int
    tflops: float | None = None
    gbps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in both engines. `name` is a kind of work, a place in the tower, or a part: ONNX nodes that one layer of either carries.

    Attributes:
        count: how many such pieces there are, such as one a block.
    """

    name: str
    a: Spent
    b: Spent
    count: int = 1

    @property
    def more_ms(self) -> float:
        """What B takes longer than A, in milliseconds a launch."""
        return self.b.ms - self.a.ms

    @property
    def counted_name(self) -> str:
        """With how many there are: `*/mlp/c_fc/MatMul (x12)`."""
        return f"{self.name} (x{self.count})" if self.count > 1 else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two engines.

    Attributes:
        layers_ms: sum of its layers, each the median of its profiled launches, in milliseconds.
        launch_ms: median of launches without the profiler, in milliseconds.
        launched: how those were launched.
        shared_ms: of `layers_ms`, in layers whose nodes are of two places, which have an equal share each.
        unplaced_ms: of `layers_ms`, in layers that no table or no ONNX node places.
        unmatched: names that the profiler told and the layer table has not.
        guard: what was seen of the machine meanwhile, by name; `clocks` says whether they were locked.
        sm_clock_mhz: the lowest and the highest that were read; None where it was not.
    """

    engine: str
    backend_version: str
    device: str | None
    rows: int
    layers: int
    launches: int
    layers_ms: float
    launch_ms: float
    launched: str
    clock: str
    shared_ms: float
    unplaced_ms: float
    unmatched: tuple[str, ...]
    sm_clock_mhz: tuple[float, float] | None
    guard: Mapping[str, str]
    ceilings: Ceilings | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Two engines, side by side. Each list of differences adds up to `a.layers_ms` and `b.layers_ms`.

    Attributes:
        in_turns: whether both were profiled in one run, in turns.
        by_work: by kind of work.
        by_place: blocks, and what lies before, between and after them.
        by_place_and_work: of each place the kinds of work in it, named `place: work`.
        parts: ONNX nodes that are one piece in both engines, alike blocks together, the largest difference first.
        sentence: the most of it, in words.
    """

    a: Side
    b: Side
    in_turns: bool
    by_work: tuple[Difference, ...]
    by_place: tuple[Difference, ...]
    by_place_and_work: tuple[Difference, ...]
    parts: tuple[Difference, ...]
    sentence: str
    schema: Literal["enginegate/explanation/1"] = "enginegate/explanation/1"
