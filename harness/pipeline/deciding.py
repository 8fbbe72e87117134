"""What people decide about engines that a run left pending: they accept one, or reject it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import MissingBlob, UnusablePending, UsageError, WritesRefused
from harness.judge.latency.samples import judge_samples
from harness.pipeline.commands import WITHOUT_LOST_ENGINE
from harness.pipeline.desk import Desk
from harness.pipeline.making import Progress
from harness.pipeline.names import backend_of
from harness.pipeline.pacing import APPROVING_TIMES, gate_protocol
from harness.pipeline.pairing import Pair, Plan, measure
from harness.pipeline.stored_engines import machine_and_driver
from harness.records.artifacts import EngineArtifact
from harness.records.gate_lines import Margin
from harness.records.latency import LatencyJudgement
from harness.records.latency_baseline import Approval, LatencyBaseline, LatencyKey, PendingLatency, Signature, TimedEngine, anchor_of
from harness.records.latency_decisions import BaselineDecision
from harness.records.verdict import Status, worst_of
from harness.store.latency_baselines import Chain, digest_of, read_pending, settle_pending

_ROLES = {"previous": "the engine that was approved last", "anchor": "the anchor, from which slow-downs add up"}


def accepted(
    desk: Desk, path: Path, *, who: str, reason: str, release: str | None, why_without_lost: str | None = None, working: Progress
) -> BaselineDecision:
    """Approve a pending engine, if it is shown now not to be slower than its predecessor and than the anchor.

    The first of its key has neither, and what stands for it is the session in the pending file: nothing is timed, on whichever machine.

    Args:
        why_without_lost: why it is approved without being timed beside an engine that the store has lost; None refuses that.

    Raises:
        WritesRefused: in CI.
        UnusablePending: it is no such file, was rejected, comes from a session that told the engine from itself or was too short, or has
            predecessors and comes from another machine.
        UsageError: `why_without_lost` was given, and no engine is lost.
        UnreadableBaseline, StoreFailed: a record or an engine cannot be had.
        WorkerFailed: a worker died, hung or babbled.
    """
    refuse_in_ci("accept")
    timed = _open(path).timed
    key, line = timed.key, desk.line(timed.key)
    timed = _sound(timed, line)
    engine = desk.fetched(timed)
    chain = desk.records.chain(key)
    if chain:
        _require_here(key)
    others, lost = _at_hand(desk, chain, why_without_lost)
    beside = _timed_beside(engine, others, key, line, working) if others else {}
    status = worst_of(judged.status for judged in beside.values()) or Status.PASS
    if status is not Status.PASS:
        return BaselineDecision(status=status, verb="accept", reason=_refusal(beside), key=key, beside=beside, lost=lost)
    previous = digest_of(chain[-1]) if chain else None
    approval = Approval(who=who, when=_now(), reason=reason, previous=previous, release=release, beside=beside, lost=lost)
    written = desk.records.append(LatencyBaseline(timed=timed, approval=approval))
    settle_pending(path)
    return BaselineDecision(status=status, verb="accept", reason=reason, key=key, file=str(written), beside=beside, lost=lost)


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


def _open(path: Path) -> PendingLatency:
    pending = read_pending(path)
    if pending.rejected is not None:
        no = pending.rejected
        raise UnusablePending(f"{path} was rejected by {no.who} on {no.when[:10]}: {no.reason}; run the gate again for a new one")
    return pending


def _sound(timed: TimedEngine, line: Margin) -> TimedEngine:
    """The engine with what its blocks say here and now, since files can be edited; refused where they tell it from itself, or may."""
    if len(timed.blocks) < line.processes:
        raise UnusablePending(
            f"the session timed the engine beside itself in {len(timed.blocks)} processes; expected {line.processes}, as gate.toml asks of "
            "a gate: run the gate again"
        )
    itself = judge_samples(timed.samples, delta=line.size)
    if itself.status is not Status.PASS:
        raise UnusablePending(
            f"the session timed the engine beside itself, and that is {itself.status} ({itself.reason or 'no further reason'}); it proves "
            "nothing about another one: run the gate again on a quiet machine"
        )
    return replace(timed, itself=itself)


def _at_hand(desk: Desk, chain: Chain, why_without_lost: str | None) -> tuple[dict[str, EngineArtifact], dict[str, str]]:
    """Engines that a new one is timed beside; and those that the store has lost, with why it is approved without them."""
    found: dict[str, EngineArtifact] = {}
    lost: dict[str, str] = {}
    for name, record in _predecessors(chain).items():
        try:
            found[name] = desk.fetched(record.timed)
        except MissingBlob as error:
            if why_without_lost is None:
                raise MissingBlob(
                    f"an engine that this one has to be timed beside, {_ROLES[name]}, is lost: {error}; or approve this one without, which "
                    f'the chain will show: {WITHOUT_LOST_ENGINE} "WHY"'
                ) from error
            lost[name] = why_without_lost
    if why_without_lost is not None and not lost:
        raise UsageError(f"{WITHOUT_LOST_ENGINE} was given, and every engine that this one is timed beside is there; leave it out")
    return found, lost


def _predecessors(chain: Chain) -> dict[str, LatencyBaseline]:
    """The last record, and the anchor where that is another one; empty before the first."""
    anchor = anchor_of(chain)
    if anchor is None:
        return {}
    return {"previous": chain[-1]} if anchor is chain[-1] else {"previous": chain[-1], "anchor": anchor}


def _timed_beside(
    engine: EngineArtifact, others: Mapping[str, EngineArtifact], key: LatencyKey, line: Margin, working: Progress
) -> dict[str, LatencyJudgement]:
    """The engine beside those before it: now, here, in fresh processes."""
    arms: dict[str, Pair] = {name: (other, engine) for name, other in others.items()}
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
    return "; ".join(
        f"{judged.status} beside {_ROLES[name]}: {judged.reason}" for name, judged in beside.items() if judged.status is not Status.PASS
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
