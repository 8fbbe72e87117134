"""What `enginegate bench` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.records.latency import LatencyJudgement


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRecord:
    """Two engines, measured and judged.

    Attributes:
        is_self_comparison: whether one engine was timed beside itself.
        host_bytes: what each arm's engine added to the host's memory at most, in bytes; None where that is unknown.
        about: how it came about, by name and for people; `repeat` is the command that measures the same again.
    """

    judgement: LatencyJudgement
    is_self_comparison: bool
    host_bytes: Mapping[str, int | None] = field(default_factory=dict[str, int | None])
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    schema: Literal["enginegate/bench/1"] = "enginegate/bench/1"
