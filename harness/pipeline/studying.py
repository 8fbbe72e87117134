"""A noise study: what a latency judge meets on this machine without a change, and what it finds of changes whose size is known."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.measure.blocks import launches_a_block
from harness.measure.machine import this_machine
from harness.pipeline.budget import Budget, OutOfTime
from harness.pipeline.guarding import guarded
from harness.pipeline.isolating import worker_for
from harness.pipeline.making import Progress
from harness.pipeline.pacing import TIMING_THREADS
from harness.pipeline.pairing import ANSWER_S, DELAY, Plan, measure
from harness.records.artifacts import EngineArtifact
from harness.records.latency import LatencySamples
from harness.records.noise import NoiseStudy
from harness.records.timing import Cache, TimingProtocol
from harness.store.noise_study import UNCHANGED, NoiseFolder
from harness.workers.engines import EngineWorker

# 20 ms a block: a block of few launches of a large engine has a median that one of them decides.
_BLOCK_MS, _TRACE_BLOCK_MS = 20.0, 250.0
_DELAY_WORDS = re.compile(r"([\d.]+) ms of ([\d.]+) ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is studied.

    Attributes:
        engine: timed beside itself, and beside itself made slower.
        changes: by name, the share of a launch that the candidate is made longer by; that of `none` is 0.
        processes: fresh ones, each with all changes.
        quartets: groups of four blocks of each change in each process.
        trace_s: how long launches in a row are watched first, in seconds.
    """

    engine: EngineArtifact
    changes: Mapping[str, float]
    processes: int
    quartets: int
    trace_s: float

    def __post_init__(self) -> None:
        if any(not 0 <= share <= 1 for share in self.changes.values()):
            raise UsageError(f"changes of {', '.join(map(str, self.changes.values()))}; expected shares of a launch, 0 to 1")


def changes_of(shares: tuple[float, ...]) -> dict[str, float]:
    """Changes by name, none first: 0.005 is `0.5`, in percent."""
    return {UNCHANGED: 0.0, **{f"{share * 100:g}": share for share in shares}}


def study(asked: Study, folder: NoiseFolder, budget: Budget, progress: Progress) -> bool:
    """Measure what the folder lacks, as far as the budget goes; whether all is there now.

    Raises:
        UsageError: the folder holds samples of another engine, machine or design.
    """
    kept = folder.samples()
    _require_alike(asked, kept, folder)
    try:
        if folder.trace() is None:
            with budget.step("trace"), progress(f"tracing {asked.engine.spec.id} for {asked.trace_s:g} s"):
                folder.keep_trace(*_traced(asked))
        done = min((len(kept[name].processes) if name in kept else 0) for name in asked.changes)
        for number in range(done, asked.processes):
            with (
                budget.step("process"),
                progress(f"timing {asked.engine.spec.id} beside itself, process {number + 1} of {asked.processes}"),
            ):
                found = measure(_plan(asked, number)).samples
            kept = {name: _joined(kept.get(name), samples, number) for name, samples in found.items()}
            folder.keep_samples(kept)
    except OutOfTime:
        return False
    return True


def study_found(folder: NoiseFolder) -> NoiseStudy | None:
    """What the samples in a folder say; None where there are none.

    Raises:
        BadSamples: a file is cut or holds something else.
    """
    from harness.judge.latency.noise import noise_of, trace_of

    samples, ms = folder.samples(), folder.trace()
    if not samples:
        return None
    shares = {name: _injected(one) for name, one in samples.items()}
    about = next(iter(samples.values())).about
    said = [about[name] for name in ("baseline", "machine", "protocol", "order", "clocks") if name in about]
    return NoiseStudy(
        about="; ".join(said),
        noises={name: noise_of(one) for name, one in samples.items()},
        injected={name: share for name, share in shares.items() if share is not None},
        trace=None if ms is None else trace_of(ms),
    )


def _plan(asked: Study, number: int) -> Plan:
    return Plan(
        arms=dict.fromkeys(asked.changes, (asked.engine, asked.engine)),
        delays={name: share for name, share in asked.changes.items() if share},
        protocol=TimingProtocol(quartets=asked.quartets, block_ms=_BLOCK_MS),
        processes=1,
        first_process=number,
        rows=asked.engine.spec.batch.optimum,
        same_process=True,
        threads=TIMING_THREADS,
    )


def _traced(asked: Study) -> tuple[tuple[float, ...], dict[str, str]]:
    """Launches of one engine alone, in a process of its own."""
    protocol, key = TimingProtocol(), "traced"
    ms: list[float] = []
    with worker_for("traced", [asked.engine.spec.backend]) as process:
        worker = EngineWorker(process, ANSWER_S)
        loaded = worker.load(key, asked.engine, rows=asked.engine.spec.batch.optimum, protocol=protocol, threads=TIMING_THREADS)
        launches = launches_a_block(worker.warm(key, protocol).launch_ms, _TRACE_BLOCK_MS)
        with guarded(loaded.device_uuid, ours=1) as guard:
            end = time.monotonic() + asked.trace_s
            while time.monotonic() < end:
                ms += worker.time(key, launches, Cache.HOT)
            seen = guard.words()
    about = {"engine": asked.engine.spec.id, "launches": loaded.graph, "clock": loaded.clock, "machine": this_machine().cpu_model, **seen}
    return tuple(ms), about


def _joined(before: LatencySamples | None, now: LatencySamples, number: int) -> LatencySamples:
    """The samples with one more process, each with what was said of it in that process where it differs from process to process."""
    delays = {f"{DELAY} {number}": now.about[DELAY]} if DELAY in now.about else {}
    earlier = {name: words for name, words in (before.about if before else {}).items() if name.startswith(f"{DELAY} ")}
    about = {name: words for name, words in now.about.items() if name != DELAY}
    return replace((before or LatencySamples(processes=())).followed_by(now, at=number), about={**about, **earlier, **delays})


def _injected(samples: LatencySamples) -> float | None:
    """Mean share of a launch that the candidate was made longer by."""
    found = [_DELAY_WORDS.fullmatch(words) for name, words in samples.about.items() if name.startswith(f"{DELAY} ")]
    shares = [float(match[1]) / float(match[2]) for match in found if match is not None]
    return sum(shares) / len(shares) if shares else None


def _require_alike(asked: Study, kept: Mapping[str, LatencySamples], folder: NoiseFolder) -> None:
    plan, digest = _plan(asked, 0), (asked.engine.sha256 or "unknown")[:16]
    for name, samples in kept.items():
        if name not in asked.changes:
            raise UsageError(f"{folder.path} holds samples of the change {name!r}, which was not asked for; name another folder")
        said = samples.about
        if digest not in said.get("baseline", "") or said.get("protocol") != plan.protocol.id or said.get("batch") != str(plan.rows):
            raise UsageError(f"{folder.path} holds samples of another engine, batch or protocol; name another folder")


def read_study(path: Path) -> NoiseStudy:
    """What the samples in a folder say.

    Raises:
        UsageError: there is no such folder, or no samples in it.
        BadSamples: a file is cut or holds something else.
    """
    found = study_found(NoiseFolder(path))
    if found is None:
        raise UsageError(f"{path} holds no samples-CHANGE.json.gz; expected the folder study of a gpu-report --study")
    return found
