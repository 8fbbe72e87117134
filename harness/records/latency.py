"""Latency samples of two engines, in the order they were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LATENCY_SAMPLES_SCHEMA = "enginegate/latency-samples/1"
# NVML's reasons for a lower clock that are normal life: an idle GPU, and a board at the power it was sold with.
SOFT_REASONS = frozenset({"gpu_idle", "sw_power_cap"})


class Arm(StrEnum):
    """Which of the two engines a block timed."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Launches of one engine without a pause between them.

    Attributes:
        ms: milliseconds of each launch, in order.
        sm_clock_mhz: the GPU's SM clock while it ran; None where nobody read it.
        throttle: NVML's names, in snake case, of what lowered the clocks meanwhile.
    """

    arm: Arm
    ms: tuple[float, ...]
    sm_clock_mhz: float | None = None
    throttle: tuple[str, ...] = ()

    @property
    def hard_reasons(self) -> tuple[str, ...]:
        """Reasons that make the block worthless: all but the soft ones."""
        return tuple(reason for reason in self.throttle if reason not in SOFT_REASONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessBlocks:
    """All blocks of one fresh pair of processes, in time order."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySamples:
    """What a comparison of two engines was measured with.

    Attributes:
        processes: one entry a fresh pair of processes; they are the statistical unit.
        about: who measured what and how (engines, machine, protocol, seed), for people.
    """

    processes: tuple[ProcessBlocks, ...]
    about: Mapping[str, str] = field(default_factory=dict[str, str])
