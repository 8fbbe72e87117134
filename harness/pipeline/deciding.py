"""What people decide about engines that a run left pending: they look, compare, accept and reject."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import MissingBlob, StoreFailed, UnknownBaseline, UnusablePending, UsageError, WritesRefused
from harness.judge.latency.samples import judge_samples
from harness.pipeline.making import Progress
from harness.pipeline.names import backend_of
from harness.pipeline.pacing import APPROVING_TIMES, gate_protocol
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.stored_engines import NO_STORE, machine_and_driver, stored_artifact
from harness.records.artifacts import EngineArtifact
from harness.records.gate_lines import LATENCY_MS, Margin
from harness.records.latency import LatencyJudgement
from harness.records.latency_baseline import Approval, LatencyBaseline, LatencyKey, PendingLatency, Signature, TimedEngine, anchor_of
from harness.records.latency_decisions import BaselineDecision, BaselineDiff, BaselineList, ChainLink, Moved
from harness.records.policy import GatePolicy
from harness.records.verdict import Status, worst_of
from harness.store.baselines import default_baselines_dir
from harness.store.blobs import BlobStore, blob_store
from harness.store.gatefile import default_gate_file, read_gate_file
from harness.store.latency_baselines import Chain, LatencyBaselines, digest_of, pending_below, read_pending, settle_pending
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


def accepted(desk: Desk, path: Path, *, who: str, reason: str, release: str | None, working: Progress) -> BaselineDecision:
    """Approve a pending engine, if it is shown now not to be slower than its predecessor and than the anchor.

    Raises:
        WritesRefused: in CI.
        UnusablePending: it is no such file, was rejected, comes from a session that told the engine from itself, or has predecessors and
            comes from another machine.
        UnreadableBaseline, StoreFailed: a record or an engine cannot be had.
        WorkerFailed: a worker died, hung or babbled.
    """
    refuse_in_ci("accept")
    pending = _open(path)
    key, line = pending.timed.key, desk.line(pending.timed.key)
    _require_sound(pending.timed, line)
    engine = desk.fetched(pending.timed)
    chain = desk.records.chain(key)
    beside = _timed_beside(desk, engine, chain, key, line, working) if chain else {}
    status = worst_of(judged.status for judged in beside.values()) or Status.PASS
    if status is not Status.PASS:
        return BaselineDecision(status=status, verb="accept", reason=_refusal(beside), key=key, beside=beside)
    previous = digest_of(chain[-1]) if chain else None
    approval = Approval(who=who, when=_now(), reason=reason, previous=previous, release=release, beside=beside)
    written = desk.records.append(LatencyBaseline(timed=pending.timed, approval=approval))
    settle_pending(path)
    return BaselineDecision(status=status, verb="accept", reason=reason, key=key, file=str(written), beside=beside)


def rejected(path: Path, *, who: str, reason: str) -> BaselineDecision:
    """Say no to a pending engine. The file stays beside its old place, under another name and with the reason.

    Raises:
        WritesRefused: in CI.
        UnusablePending: it is no such file, or was rejected before.
    """
    refuse_in_ci("reject")
    pending = _open(path)
    kept = settle_pending(path, replace(pending, rejected=Signature(who=who, when=_now(), reason=reason)))
    return BaselineDecision(status=Status.PASS, verb="reject", reason=reason, key=pending.timed.key, file=str(kept))


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


def _open(path: Path) -> PendingLatency:
    pending = read_pending(path)
    if pending.rejected is not None:
        no = pending.rejected
        raise UnusablePending(f"{path} was rejected by {no.who} on {no.when[:10]}: {no.reason}; run the gate again for a new one")
    return pending


def _require_sound(timed: TimedEngine, line: Margin) -> None:
    """Refuse a session that tells an engine from itself, or may; its blocks are judged again, since files can be edited."""
    itself = judge_samples(timed.samples, delta=line.size)
    if itself.status is not Status.PASS:
        raise UnusablePending(
            f"the session timed the engine beside itself, and that is {itself.status} ({itself.reason or 'no further reason'}); it proves "
            "nothing about another one: run the gate again on a quiet machine"
        )


def _timed_beside(
    desk: Desk, engine: EngineArtifact, chain: Chain, key: LatencyKey, line: Margin, working: Progress
) -> dict[str, LatencyJudgement]:
    """The engine beside its predecessor, and beside the anchor where that is another one: now, here, in fresh processes."""
    _require_here(key)
    anchor = anchor_of(chain)
    arms: dict[str, Pair] = {"previous": (desk.fetched(chain[-1].timed), engine)}
    if anchor is not None and anchor is not chain[-1]:
        arms["anchor"] = (desk.fetched(anchor.timed), engine)
    plan = Plan(
        arms=arms,
        protocol=gate_protocol(line.quartets),
        processes=line.processes * APPROVING_TIMES,
        rows=key.rows,
        threads=key.threads,
    )
    with working(f"timing the engine beside {' and '.join(arms)}, in {plan.processes} fresh processes"):
        samples = measure(plan).samples
    return {name: judge_samples(samples[name], delta=line.size) for name in arms}


def _require_here(key: LatencyKey) -> None:
    machine, driver = machine_and_driver(key.backend)
    here = replace(key, machine=machine, driver=driver, backend_version=backend_of(key.backend).version, protocol=gate_protocol(1).id)
    if here != key:
        raise UnusablePending(
            f"engines are timed where they are approved, and the pending record has {'; '.join(here.differences(key))}; accept it there"
        )


def _refusal(beside: Mapping[str, LatencyJudgement]) -> str:
    words = {"previous": "beside the engine that was approved last", "anchor": "beside the anchor, from which slow-downs add up"}
    return "; ".join(
        f"{judged.status} {words[name]}: {judged.reason}" for name, judged in beside.items() if judged.status is not Status.PASS
    )


def refuse_in_ci(verb: str) -> None:
    """Decisions are people's.

    Raises:
        WritesRefused: CI is set.
    """
    if os.environ.get("CI"):
        raise WritesRefused(
            f"baseline {verb} changes what is approved, and CI is set; decide on a machine where a person looks, and commit"
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
