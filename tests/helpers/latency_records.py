"""Latency records without any engine: made-up blocks of an engine beside itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.judge.latency.samples import judge_samples
from harness.records.latency import Arm, Block, LatencySamples, ProcessBlocks
from harness.records.latency_baseline import Approval, LatencyBaseline, LatencyKey, StoredEngine, TimedEngine

TURNS = (Arm.BASELINE, Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE)
KEY = LatencyKey(
    machine_class="cpu-x86_64",
    machine="a processor",
    threads=1,
    driver=None,
    backend="fake",
    backend_version="1",
    arch="tiny",
    tower="image",
    recipe="linear",
    weights="seeded:0",
    batch="1/2/4",
    rows=1,
    protocol="protocol-1",
)


def samples(ratio: float = 1.0, *, ms: float = 2.0, processes: int = 8, spread: float = 0.002, seed: int = 0) -> LatencySamples:
    """Two engines of which the candidate takes `ratio` times as long."""
    rng = np.random.default_rng(seed)

    def process() -> ProcessBlocks:
        level = {Arm.BASELINE: ms, Arm.CANDIDATE: ms * ratio * float(np.exp(rng.normal(0, spread)))}
        return ProcessBlocks(blocks=tuple(Block(arm=arm, ms=(round(level[arm], 6),)) for arm in TURNS * 2))

    return LatencySamples(processes=tuple(process() for _ in range(processes)))


def timed(sha256: str = "a" * 64, *, key: LatencyKey = KEY, ms: float = 2.0, delta: float = 0.3, **changes: float) -> TimedEngine:
    itself = samples(ms=ms, **changes)
    return TimedEngine(
        key=key,
        engine=StoredEngine(sha256=sha256, plan_bytes=1000, onnx_sha256="0" * 64, device=None, build="enginegate build tiny/image"),
        blocks=itself.processes,
        itself=judge_samples(itself, delta=delta),
        made_at="2026-11-28T12:00:00+00:00",
    )


def approved(engine: TimedEngine, previous: str | None = None, *, release: str | None = None, who: str = "Ada") -> LatencyBaseline:
    approval = Approval(who=who, when="2026-11-28T13:00:00+00:00", reason="the first", previous=previous, release=release)
    return LatencyBaseline(timed=engine, approval=approval)


def other_key(**changes: object) -> LatencyKey:
    return replace(KEY, **changes)
