"""Measures and judges two engine files now; or one beside itself, to see what could be seen here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UnknownEnvironment, UnusableEngine, UsageError
from harness.judge.latency.samples import judge_samples
from harness.pipeline.pairing import Measured, Plan, measure
from harness.records.artifacts import EngineArtifact
from harness.records.bench import BenchRecord
from harness.records.latency import Arm
from harness.records.timing import TimingProtocol
from harness.report.latency import bench_text
from harness.store.blobs import BlobStore
from harness.store.codec import to_json
from harness.store.latency_samples import write_latency_samples
from harness.store.left_engine import read_left_engine

_GATE = "engine"
_DIGEST = "sha256:"
_HOMES = "--tensorrt-home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What `enginegate bench` was asked.

    Attributes:
        engines: one file or two; one is timed beside itself. `sha256:HEX` is an engine of the blob store, of the other one's kind.
        blobs: that store; None where nobody names one.
        pythons: interpreters of the two arms; empty is this one, one is for both.
        homes: folders of TensorRT for the two arms, likewise.
        rows: batch; None is the first engine's optimum.
        alpha, delta, against: see `judge_samples`.
        save: where to leave the samples.
        command: to repeat it, for people.
    """

    engines: tuple[str, ...]
    protocol: TimingProtocol
    processes: int
    pythons: tuple[Path, ...] = ()
    homes: tuple[Path, ...] = ()
    rows: int | None = None
    alpha: float
    delta: float
    against: float = 1.0
    same_process: bool = False
    threads: int | None = None
    answer_s: float
    save: Path | None = None
    command: str = ""
    blobs: BlobStore | None = None


@dataclass(frozen=True, slots=True)
class Benched:
    """A record, and its two forms for readers."""

    record: BenchRecord

    @property
    def document(self) -> str:
        """JSON, schema `enginegate/bench/1`."""
        return to_json(self.record).decode().rstrip()

    @property
    def text(self) -> str:
        """For people."""
        return bench_text(self.record)


def bench(asked: Bench) -> Benched:
    """Measure, judge, and leave the samples where they were asked for.

    Raises:
        UsageError: an engine, its record or its digest is not what it should be, the two do not compare, or a Python is none.
        WorkerFailed: a worker died, hung or babbled.
    """
    if asked.save is not None and asked.save.is_dir():
        raise UsageError(f"--save names {asked.save}, which is a folder; expected a file for the samples")
    pair = _pair(asked.engines, asked.blobs)
    plan = Plan(
        arms={_GATE: pair},
        protocol=asked.protocol,
        processes=asked.processes,
        rows=_rows(asked.rows, pair),
        pythons=_each("--python", asked.pythons),
        homes=_homes(asked.homes, pair),
        same_process=asked.same_process,
        threads=asked.threads,
        answer_s=asked.answer_s,
    )
    measured = measure(plan)
    samples = measured.samples[_GATE]
    samples = replace(samples, about={**samples.about, "repeat": asked.command})
    if asked.save is not None:
        write_latency_samples(asked.save, samples)
    record = BenchRecord(
        judgement=judge_samples(samples, alpha=asked.alpha, delta=asked.delta, against=asked.against),
        is_self_comparison=len(asked.engines) == 1,
        host_bytes=_host_bytes(measured),
        about=samples.about,
    )
    return Benched(record)


def _pair(files: tuple[str, ...], blobs: BlobStore | None) -> tuple[EngineArtifact, EngineArtifact]:
    for name in files:
        if name.startswith(_DIGEST) and not re.fullmatch("[0-9a-f]{64}", name.removeprefix(_DIGEST)):
            raise UsageError(f"{name} is no digest; expected sha256: and its 64 hexadecimal digits; `baseline show --json` has them")
    left = {name: read_left_engine(Path(name)) for name in files if not name.startswith(_DIGEST)}
    if not left:
        raise UsageError(f"{files[0]} names no more than a digest; expected an engine file beside it, whose record says what both are")
    like = next(iter(left.values()))
    baseline, candidate = (left.get(name) or _stored(name, like, blobs) for name in (files[0], files[-1]))
    if baseline.spec.encoder.name != candidate.spec.encoder.name:
        raise UnusableEngine(
            f"{files[0]} is an engine of {baseline.spec.encoder.name}, {files[-1]} of {candidate.spec.encoder.name}; "
            "expected two engines of one encoder"
        )
    return baseline, candidate


def _stored(name: str, like: EngineArtifact, blobs: BlobStore | None) -> EngineArtifact:
    """An engine of the blob store, which keeps no record of its kind."""
    if blobs is None:
        raise UsageError(f"{name} lies in a blob store, and none is named; name one with --blobs or ENGINEGATE_BLOBS")
    sha256 = name.removeprefix(_DIGEST)
    path = blobs.fetch(sha256)
    return replace(like, path=path.absolute(), sha256=sha256, plan_bytes=path.stat().st_size)


def _rows(asked: int | None, pair: tuple[EngineArtifact, EngineArtifact]) -> int:
    rows = asked or pair[0].spec.batch.optimum
    for engine in pair:
        if rows not in engine.spec.batch:
            raise UnusableEngine(
                f"a batch of {rows} lies outside the profile {engine.spec.batch} of {engine.path}; "
                "choose one that both engines take with --batch, or build them alike"
            )
    return rows


def _each(option: str, given: tuple[Path, ...]) -> tuple[Path | None, Path | None]:
    if len(given) > 2:
        raise UsageError(f"{option} was given {len(given)} times; expected once for both engines, or once for each")
    return (given[0], given[-1]) if given else (None, None)


def _homes(given: tuple[Path, ...], pair: tuple[EngineArtifact, EngineArtifact]) -> tuple[Path | None, Path | None]:
    from harness.backends.tensorrt_home import lacking_in

    homes = _each(_HOMES, given)
    strange = [engine.spec.backend for engine in pair if engine.spec.backend != "tensorrt"]
    if given and strange:
        raise UsageError(f"{_HOMES} has no use for backend {strange[0]}; it is for engines of tensorrt; leave it out")
    for home in given:
        if lacking := lacking_in(home):
            raise UnknownEnvironment(f"{_HOMES} names {home}, {lacking}")
    return homes


def _host_bytes(measured: Measured) -> dict[str, int | None]:
    return {str(arm): max(measured.host_bytes[arm], default=None) for arm in Arm}
