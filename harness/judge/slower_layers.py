"""Which layers a slower engine lost its time in."""

from __future__ import annotations

from harness.judge.gain import explain
from harness.records.explanation import Difference
from harness.records.profile import EngineProfile


def slower_layers(baseline: EngineProfile, candidate: EngineProfile, *, top: int = 3) -> str:
    """The parts that take most longer in the candidate, in words, for a gate that failed: `Add, ln_1: 0.12 -> 0.31 ms`.

    Args:
        baseline: what it is held to, such as its FP16 twin.
        candidate: the engine that failed.
        top: how many parts are told.
    """
    explained = explain(baseline, candidate)
    slower = sorted((part for part in explained.parts if part.more_ms > 0), key=lambda part: -part.more_ms)
    if not slower:
        return f"by layer times ({candidate.times.clock}) no part of it takes longer than in {baseline.engine}"
    told = ", ".join(map(_told, slower[:top]))
    return f"next to {baseline.engine} it takes longer in {told} (a profiling run of its own, {candidate.times.clock})"


def _told(part: Difference) -> str:
    return f"{part.counted_name}: {part.a.ms:.3g} -> {part.b.ms:.3g} ms"
