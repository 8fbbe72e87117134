"""Engines that were approved, found again by key and digest so that new ones can be timed beside them; and what asks for approval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

from harness.errors import MissingBlob, StoreFailed
from harness.judge.latency.samples import judge_samples
from harness.measure.machine import this_machine
from harness.pipeline.commands import build_command
from harness.pipeline.isolating import gpu_of
from harness.pipeline.names import backend_of
from harness.pipeline.pacing import TIMING_THREADS, gate_protocol
from harness.records.artifacts import EngineArtifact
from harness.records.latency import Block, LatencySamples, ProcessBlocks
from harness.records.latency_baseline import LatencyKey, PendingLatency, StoredEngine, TimedEngine
from harness.records.timing import TimingSetting
from harness.records.verdict import Status

if TYPE_CHECKING:
    from pathlib import Path

    from harness.pipeline.seeing import Pipeline
    from harness.records.spec import EngineSpec
    from harness.records.timing import TimingProtocol
    from harness.store.blobs import BlobStore
    from harness.store.latency_baselines import LatencyBaselines
    from harness.store.run_directory import RunDirectory

NO_STORE = "no blob store is named; name one with --blobs, ENGINEGATE_BLOBS or [blobs] folder in gate.toml"
_PS_DECIMALS = 9  # of a time in ms: a clock's own resolution is coarser


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The engine to time a new one beside.

    Attributes:
        engine: None where there is none.
        why_none: in words; empty where there is one.
        is_lost: whether one was approved, and the store has it no more.
    """

    engine: EngineArtifact | None = None
    why_none: str = ""
    is_lost: bool = False


class StoredEngines:
    """Latency records and the engines that they name, on this machine.

    Args:
        blobs: where the engines lie; None where nobody named a place.
    """

    def __init__(self, pipeline: Pipeline, records: LatencyBaselines, blobs: BlobStore | None) -> None:
        self._pipeline = pipeline
        self._records = records
        self._blobs = blobs

    def key(self, engine: EngineSpec, protocol: TimingProtocol) -> LatencyKey:
        """Under which key this engine's times are stored on this machine."""
        machine, driver = machine_and_driver(engine.backend)
        like = self._pipeline.baseline_key(engine)
        return LatencyKey(
            machine_class=like.machine_class,
            machine=machine,
            threads=TIMING_THREADS,
            driver=driver,
            backend=like.backend,
            backend_version=like.backend_version,
            arch=like.arch,
            tower=like.tower,
            recipe=like.recipe,
            weights=like.weights,
            batch=like.batch,
            rows=engine.batch.minimum,
            protocol=protocol.id,
            options=replace(engine.options, timing_cache=None),
        )

    def beside(self, candidate: EngineArtifact, protocol: TimingProtocol) -> Found:
        """The engine that was approved last under the candidate's key.

        Raises:
            UnreadableBaseline: the record cannot be understood, or its chain is broken.
            UnreachableBlobs: the store cannot be reached.
            AlteredBlob: what the store has is not what was approved.
        """
        key = self.key(candidate.spec, protocol)
        chain = self._records.chain(key)
        if not chain:
            return Found(why_none=f"no engine is approved under this key{self._words_on_nearest(key)}")
        approval, timed = chain[-1].approval, chain[-1].timed
        words = f"the engine that {approval.who} approved on {approval.when[:10]}"
        if self._blobs is None:
            return Found(why_none=f"{words} cannot be had: {NO_STORE}")
        try:
            return Found(engine=stored_artifact(timed, self._blobs.fetch(timed.engine.sha256)))
        except MissingBlob as error:
            if self._is_put_back(candidate, timed.engine.sha256):
                return Found(engine=stored_artifact(timed, self._blobs.fetch(timed.engine.sha256)))
            return Found(why_none=f"{words} is gone: {error}; it was built by: {timed.engine.build}", is_lost=True)

    def _is_put_back(self, candidate: EngineArtifact, sha256: str) -> bool:
        """Whether the candidate is the very engine that is gone, and so the store has it again."""
        if self._blobs is None or candidate.path is None or candidate.sha256 != sha256:
            return False
        try:
            return self._blobs.keep(candidate.path) == sha256
        except StoreFailed:  # one that may be read alone has lost it still
            return False

    def propose(self, engine: EngineArtifact, itself: LatencySamples, protocol: TimingProtocol, delta: float, run: RunDirectory) -> Path:
        """Keep the engine in the blob store, and leave a pending record in the run directory; where.

        Args:
            itself: the engine timed beside itself.
            delta: slow-down that the session should exclude between the engine and itself.

        Raises:
            StoreFailed: the store or the run directory takes nothing.
        """
        from harness.store.codec import to_json

        if self._blobs is None:
            raise MissingBlob(NO_STORE)
        assert engine.path is not None  # for the type checker: what was timed has a file
        medians = in_medians(itself)
        timed = TimedEngine(
            key=self.key(engine.spec, protocol),
            engine=StoredEngine(
                sha256=self._blobs.keep(engine.path),
                plan_bytes=engine.plan_bytes,
                onnx_sha256=engine.source.sha256 if engine.source else None,
                device=engine.device,
                build=build_command(engine.spec),
            ),
            blocks=medians.processes,
            itself=judge_samples(medians, delta=delta),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            about=itself.about,
        )
        name = engine.spec.id.replace("/", "-")
        return run.save_text(f"pending/{name}.pending.json", to_json(PendingLatency(timed=timed)).decode())

    def _words_on_nearest(self, key: LatencyKey) -> str:
        near = self._records.nearest(key)[:2]
        return f" (there is one for {'; and one for '.join(', '.join(key.differences(other)) for other in near)})" if near else ""


def why_not_proposed(engine: EngineSpec, itself: LatencySamples, *, delta: float) -> str | None:
    """Why a session that timed the engine beside itself may not ask for its approval, in words; None where it may."""
    if engine.options.timing_cache is not None:
        return (
            "it was built with --timing-cache, so times of earlier builds chose its kernels and it could not be built again; "
            "run again without it"
        )
    judged = judge_samples(itself, delta=delta)
    if judged.status is Status.PASS:
        return None
    return f"beside itself the engine is {judged.status} in this session ({judged.reason}); expected PASS: run again on a quiet machine"


def machine_and_driver(backend: str) -> tuple[str, str | None]:
    """What a backend's engines run on here: the GPU and its driver, or the make of processor, which has none."""
    machine, gpu = this_machine(), gpu_of(backend_of(backend))
    return (machine.cpu_model, None) if gpu is None else (str(gpu), machine.driver)


def gate_setting(engine: EngineSpec) -> TimingSetting:
    """In which setting a gate times this engine here."""
    _, driver = machine_and_driver(engine.backend)
    return TimingSetting(driver=driver, protocol=gate_protocol(1).id, rows=engine.batch.minimum, threads=TIMING_THREADS)


def stored_artifact(timed: TimedEngine, path: Path) -> EngineArtifact:
    """The engine of a record, at the place where it was found."""
    return EngineArtifact(
        spec=timed.key.engine,
        source=None,
        backend_version=timed.key.backend_version,
        path=path.absolute(),
        sha256=timed.engine.sha256,
        plan_bytes=timed.engine.plan_bytes,
        build_seconds=0.0,
        device=timed.engine.device,
    )


def in_medians(samples: LatencySamples) -> LatencySamples:
    """The samples with one figure a block, its median: what is judged, and all that a record needs."""

    def reduced(block: Block) -> Block:
        return replace(block, ms=(round(median(block.ms), _PS_DECIMALS),))

    processes = tuple(ProcessBlocks(blocks=tuple(map(reduced, process.blocks))) for process in samples.processes)
    return LatencySamples(processes=processes, about=samples.about)
