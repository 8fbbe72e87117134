"""Latency samples of two engines, in the order they were taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.records.verdict import Status

LATENCY_SAMPLES_SCHEMA = "enginegate/latency-samples/1"
LATENCY_JUDGEMENT_SCHEMA = "enginegate/latency-judgement/1"
# NVML's reasons for a lower clock that are normal life: an idle GPU, and a board at the power it was sold with.
SOFT_REASONS = frozenset({"gpu_idle", "sw_power_cap"})

# Beside NVML's reasons, ours for a block that was not alone on its GPU: whoever else computes there takes its time.
OTHER_PROCESSES = "other_processes"


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
        throttle: NVML's names, in snake case, of what lowered the clocks meanwhile; and `other_processes` where others computed there.
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

    def followed_by(self, more: LatencySamples, *, at: int) -> LatencySamples:
        """Its first `at` processes and those of `more`, with what `more` says of how it was measured."""
        return LatencySamples(processes=(*self.processes[:at], *more.processes), about=more.about)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """One arm at a glance.

    Attributes:
        p50_ms: median over all its launches.
        p99_ms: what 99 of 100 launches keep below, with 99 % confidence were launches independent; None where they are too few to say.
        sm_clock_mhz: mean of its blocks' clocks; None where nobody read them.
    """

    p50_ms: float
    launches: int
    p99_ms: float | None = None
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyJudgement:
    """What samples of two engines say. Figures are None where the samples are too broken to give them.

    Attributes:
        status: PASS, FAIL, INCONCLUSIVE or INVALID.
        against: the ratio that a slow-down is counted from: 1, or one that was approved.
        ratio: candidate time / baseline time, the geometric mean over processes.
        low, high: bounds of the true ratio: above `low` but for a chance of alpha, below `high` but for one of `beta`.
        detectable: minimum detectable effect: the slow-down, 0.01 for one percent, that FAIL finds but for a chance of `beta`.
        p: chance of a ratio as high as this one without any change.
        alpha, beta, delta: chance of FAIL without a change; of PASS at exactly delta; and the slow-down that PASS excludes.
        processes: fresh process pairs that count.
        groups, dropped: groups of interleaved blocks that were measured, and those of them that the guard dropped.
        processes_needed: that would see delta, if they spread as these do; None where that is unknown or above 10,000.
        reason: in words, also of what passes but is worth knowing.
    """

    status: Status
    alpha: float
    beta: float
    delta: float
    against: float = 1.0
    reason: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    p: float | None = None
    processes: int = 0
    groups: int = 0
    dropped: int = 0
    processes_needed: int | None = None
    baseline: ArmFigures | None = None
    candidate: ArmFigures | None = None
    schema: str = LATENCY_JUDGEMENT_SCHEMA
