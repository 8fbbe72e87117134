"""What people look at before they decide: chains of approved engines, engines that a run left pending, and what these would move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingBlob, StoreFailed, UnknownBaseline, UsageError
from harness.pipeline.stored_engines import NO_STORE, stored_artifact
from harness.records.artifacts import EngineArtifact
from harness.records.gate_lines import LATENCY_MS, Margin
from harness.records.latency_baseline import LatencyKey, TimedEngine, anchor_of
from harness.records.latency_decisions import BaselineDiff, BaselineList, ChainLink, Moved
from harness.records.policy import GatePolicy
from harness.store.baselines import default_baselines_dir
from harness.store.blobs import BlobStore, blob_store
from harness.store.gatefile import default_gate_file, read_gate_file
from harness.store.latency_baselines import Chain, LatencyBaselines, digest_of, pending_below, read_pending
from harness.store.packaged import packaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where records and engines lie, and what they are held to."""

    records: LatencyBaselines
    blobs: BlobStore | None
    policy: GatePolicy

    @classmethod
    def at(cls, base: Path, *, baselines_dir: Path | None, blobs: str | None, gate_file: Path | None, writing: bool) -> Desk:
        """As a run in the folder `base` with these options would have it.

        Raises:
            BadGateFile: the gate file cannot be understood.
        """
        policy = read_gate_file(gate_file or default_gate_file(base), read_gate_file(packaged("gate.toml")))
        root = baselines_dir or default_baselines_dir(base, writing=writing)
        return cls(records=LatencyBaselines(root), blobs=blob_store(blobs, policy.blobs), policy=policy)

    def fetched(self, timed: TimedEngine) -> EngineArtifact:
        """The engine of a record, its digest looked at now.

        Raises:
            MissingBlob: with the command that builds such an engine again; also where no store is named.
            AlteredBlob, UnreachableBlobs: see `BlobStore.fetch`.
        """
        if self.blobs is None:
            raise MissingBlob(NO_STORE)
        try:
            return stored_artifact(timed, self.blobs.fetch(timed.engine.sha256))
        except MissingBlob as error:
            raise MissingBlob(f"{error}; it was built by: {timed.engine.build}") from error

    def line(self, key: LatencyKey) -> Margin:
        """What gate.toml says of this engine's latency.

        Raises:
            UsageError: nothing is gated there.
        """
        line = self.policy.margin_line(LATENCY_MS, key.engine, key.machine_class)
        if not line.gated:
            raise UsageError(f"{LATENCY_MS} of {key.engine.id} is not gated on {key.machine_class}: {line.reason}")
        return line


def listed(desk: Desk, pending_in: Sequence[Path]) -> BaselineList:
    """All chains, and the pending records below some folders.

    Raises:
        UnreadableBaseline, UnusablePending: a file cannot be understood.
    """
    pending = {str(path): read_pending(path).timed for folder in pending_in for path in pending_below(folder)}
    return BaselineList(chains=tuple(_links(desk, chain) for chain in desk.records.chains().values()), pending=pending)


def shown(desk: Desk, encoder: str, recipe: str | None) -> BaselineList:
    """The chains of one encoder.

    Raises:
        UnknownBaseline: there is none.
    """
    every = desk.records.chains()
    chosen = [chain for key, chain in every.items() if f"{key.arch}/{key.tower}" == encoder and recipe in (None, key.recipe)]
    if not chosen:
        known = ", ".join(dict.fromkeys(f"{key.arch}/{key.tower} {key.recipe}" for key in every)) or "none at all"
        raise UnknownBaseline(f"there is no latency baseline of {' '.join(filter(None, (encoder, recipe)))}; there are: {known}")
    return BaselineList(chains=tuple(_links(desk, chain) for chain in chosen))


def compared(desk: Desk, path: Path) -> BaselineDiff:
    """What a pending record would change.

    Raises:
        UnusablePending, UnreadableBaseline: a file cannot be understood.
    """
    timed = read_pending(path).timed
    chain = desk.records.chain(timed.key)
    before = chain[-1].timed if chain else None
    old = _figures(before) if before else {}
    moved = tuple(Moved(name=name, approved=old.get(name), pending=figure) for name, figure in _figures(timed).items())
    near = () if chain else desk.records.nearest(timed.key)[:3]
    return BaselineDiff(
        key=timed.key, is_first=before is None, moved=moved, differences=tuple(timed.key.differences(other) for other in near)
    )


def _links(desk: Desk, chain: Chain) -> tuple[ChainLink, ...]:
    anchor = anchor_of(chain)
    return tuple(
        ChainLink(
            record=record,
            digest=digest_of(record),
            is_latest=record is chain[-1],
            is_anchor=record is anchor,
            blob=_blob_words(desk.blobs, record.timed.engine.sha256),
        )
        for record in chain
    )


def _blob_words(blobs: BlobStore | None, sha256: str) -> str:
    if blobs is None:
        return "no blob store is named"
    try:
        return "present" if blobs.has(sha256) else "missing"
    except StoreFailed as error:
        return str(error)


def _figures(timed: TimedEngine) -> dict[str, float | str | None]:
    return {
        "p50_ms": round(timed.p50_ms, 6),
        "detectable": None if timed.itself.detectable is None else round(timed.itself.detectable, 4),
        "processes": timed.itself.processes,
        "plan_bytes": timed.engine.plan_bytes,
        "engine sha256": timed.engine.sha256,
        "onnx sha256": timed.engine.onnx_sha256,
        "made at": timed.made_at,
    }
