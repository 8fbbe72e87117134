"""Judges a run's accuracy again from the rows that it kept. It runs no engine, and needs none of the libraries that the run needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadGateFile, EnginegateError, UsageError
from harness.pipeline.names import recipe_of
from harness.records.gate_lines import BOUNDED
from harness.records.kept_accuracy import ACCURACY_FOLDER, KeptAccuracy, KeptRows, accuracy_file
from harness.records.machine import class_of
from harness.records.observations import Embeddings
from harness.records.policy import GatePolicy
from harness.records.rejudgement import NotRejudged, RejudgedGate, Rejudgement, RejudgementSummary
from harness.records.run import EngineRow, ReportFinding, RunRecord
from harness.records.spec import EncoderSpec, EngineSpec
from harness.records.verdict import (
    Judgement,
    NotRun,
    Severity,
    Status,
    Suite,
    Verdict,
    Where,
    exit_code,
    unjudged,
    verdict_of,
    worst_of,
)
from harness.store.kept_accuracy import KeptAccuracyReader
from harness.store.run_directory import read_run, run_file

if TYPE_CHECKING:
    from harness.judge.accuracy.evidence import AccuracyEvidence

# What the run that approved a figure said of its gate; see `Approvals.settle`.
_APPROVALS = ("baseline_created", "baseline_updated")
_OTHER_SUITES = "rests on graphs, layers, bytes or times, not on rows; run enginegate gate, or enginegate compare with another run"
_OTHER_METRICS = "rests on runs of the engine itself, not on kept rows; run enginegate gate"

Row = Verdict | ReportFinding
_Engine = tuple[str, str, str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgedRun:
    """What the rows say, as a record, for people, and as a JSON document."""

    record: Rejudgement
    text: str
    document: str


def rejudge(run_dir: Path, gate_file: Path | None) -> RejudgedRun:
    """Judge a run's accuracy again.

    Args:
        run_dir: the folder of a finished run, or its `run.json`; on any machine.
        gate_file: where the bounds are; without one, `gate.toml` in the current folder or the packaged one.

    Raises:
        UsageError: no finished run, no kept rows, nothing to judge them for; a file missing, cut or changed since; a bad gate file.
    """
    from harness.report.rejudgement import rejudgement_text
    from harness.store.codec import to_json

    record = rejudgement_of(run_dir, gate_file)
    return RejudgedRun(record=record, text=rejudgement_text(record), document=to_json(record).decode().rstrip())


def rejudgement_of(run_dir: Path, gate_file: Path | None) -> Rejudgement:
    """The record alone. Arguments and errors as above."""
    from harness.pipeline.comparing import policy_of
    from harness.store.gatefile import default_gate_file

    run, bounds = read_run(run_dir), gate_file or default_gate_file(Path.cwd())
    judge = _Rejudge(run, KeptAccuracyReader(run_dir), policy_of(bounds), run_dir)
    gates = tuple(judge.gates())
    if not gates:
        raise UsageError(
            f"{run_file(run_dir)}: has no accuracy verdict that rests on rows; expected a run of the accuracy suite; name another run"
        )
    rest = tuple(judge.not_rejudged())
    return Rejudgement(
        run=str(run_dir), started=run.started, gate_file=str(bounds), gates=gates, not_rejudged=rest, summary=_summary(gates, rest)
    )


class _Rejudge:
    """Goes through what a run said."""

    def __init__(self, run: RunRecord, reader: KeptAccuracyReader, policy: GatePolicy, path: Path) -> None:
        from harness.judge.accuracy.all_metrics import METRICS

        self._run = run
        self._devices = {_engine_of(row): row.device for row in run.engines}
        self._reader = reader
        self._policy = policy
        self._metrics = frozenset(METRICS)
        self._kept = {_engine_of(record): record for record in reader.records()}
        if not self._kept:
            folder = run_file(path).parent / ACCURACY_FOLDER
            raise UsageError(
                f"{folder} holds no record of rows; expected one for each engine whose accuracy was judged: the run is of an older "
                "enginegate, ran another suite, or was copied in part; copy the whole folder, or run the accuracy suite again"
            )
        self._evidence: dict[_Engine, AccuracyEvidence] = {}

    def gates(self) -> Iterator[RejudgedGate]:
        """Every accuracy verdict and report of the run, judged again."""
        gated = {(_engine_of(row), row.metric) for row in self._run.verdicts}
        for verdict in filter(self._is_replayable, self._run.verdicts):
            yield self._rejudged(verdict, verdict.metric, verdict)
        for report in filter(self._is_replayable, self._run.reports):
            if (key := (_engine_of(report), report.check)) not in gated and key[0] in self._kept:
                gated.add(key)
                yield self._rejudged(report, report.check, None)

    def not_rejudged(self) -> Iterator[NotRejudged]:
        """Everything else that the run said, and why it stays as it is."""
        for verdict in self._run.verdicts:
            if not self._is_replayable(verdict):
                reason = _OTHER_METRICS if verdict.suite is Suite.ACCURACY else _OTHER_SUITES
                yield _as_it_was(verdict, verdict.metric, verdict.status, reason)
        for gate in self._run.not_run:
            if gate.suite is Suite.ACCURACY:
                yield _as_it_was(gate, gate.gate, None, f"was not run: {gate.reason}")

    def _is_replayable(self, row: Row) -> bool:
        metric = row.metric if isinstance(row, Verdict) else row.check
        return row.suite is Suite.ACCURACY and row.backend is not None and metric in self._metrics

    def _rejudged(self, row: Row, metric: str, then: Verdict | None) -> RejudgedGate:
        record = self._kept.get(_engine_of(row))
        judgement = _without_rows(row, metric, then) if record is None else self._judged(record, metric, then)
        return RejudgedGate(severity=judgement.severity, now=verdict_of(judgement, _where(row)), then=then)

    def _judged(self, record: KeptAccuracy, metric: str, then: Verdict | None) -> Judgement:
        from harness.judge.accuracy.all_metrics import judgement

        engine, evidence, policy = record.engine, self._evidence_of(record), self._policy
        where = class_of(engine.target, self._run.machine.architecture, self._devices.get(_engine_of(record)))
        try:
            judged = judgement(
                metric, evidence, limit=lambda name: policy.limit(name, engine), margin=lambda name: policy.margin(name, engine, where)
            )
        except BadGateFile:
            raise
        except EnginegateError as error:  # what makes a run's verdict INVALID makes this one so
            return unjudged(metric, str(error))
        if then is not None and then.reason in _APPROVALS and judged.observed is not None:
            # As `Approvals.settle`: approval lifts no absolute bound, nor the plan's floor.
            if judged.observed >= policy.limit(metric, engine) if metric in BOUNDED else judged.status is Status.PASS:
                judged = replace(judged, status=Status.PASS, reason=then.reason)
        if policy.policy(engine.recipe).severity is Severity.REPORT and judged.status is not Status.INVALID:
            return replace(judged, severity=Severity.REPORT)
        return judged

    def _evidence_of(self, record: KeptAccuracy) -> AccuracyEvidence:
        engine = _engine_of(record)
        if engine not in self._evidence:
            self._evidence[engine] = _read_evidence(self._reader, record)
        return self._evidence[engine]


def _read_evidence(reader: KeptAccuracyReader, record: KeptAccuracy) -> AccuracyEvidence:
    from harness.judge.accuracy.evidence import AccuracyEvidence

    def rows(kept: KeptRows | None) -> Embeddings | None:
        return reader.rows(kept, of=record) if kept else None

    observed, exact = reader.rows(record.observed, of=record), reader.rows(record.exact, of=record)
    evidence = AccuracyEvidence(
        observed=observed,
        exact=exact,
        fake_quant=rows(record.fake_quant),
        range_use=reader.range_use(record.range_use, of=record) if record.range_use else None,
        half=rows(record.half),
        task=reader.task(record.task, of=record) if record.task else None,
        approved_snr_db=record.approved_snr_db,
        approved_to_fake_quant_db=record.approved_to_fake_quant_db,
        weights=record.weights,
    )
    for other in (exact, evidence.fake_quant, evidence.half):
        if other is not None and other.inputs_digest == observed.inputs_digest and other.ids != observed.ids:
            raise UsageError(
                f"{accuracy_file(record.engine)}: {observed.made_by} and {other.made_by} have other ids for the same inputs; expected rows "
                "in one order; copy the whole folder, or run again"
            )
    return evidence


def _engine_of(row: Row | KeptAccuracy | EngineRow) -> _Engine:
    return row.encoder, str(row.recipe), row.backend, row.target


def _without_rows(row: Row, metric: str, then: Verdict | None) -> Judgement:
    """Of an engine that the run kept no rows of: where it broke there were none, else someone took them away. Neither is green."""
    engine = EngineSpec(encoder=EncoderSpec.parse(row.encoder), recipe=recipe_of(row.recipe), backend=row.backend or "", target=row.target)
    if then is not None and then.status is Status.INVALID:
        return unjudged(metric, f"the run kept no rows of this engine: {then.reason}")
    return unjudged(
        metric,
        f"there is no {accuracy_file(engine)}, with the rows that were judged; copy the whole folder, or have the suite judge what "
        "observe.accuracy gives",
    )


def _where(row: Row | Verdict | NotRun) -> Where:
    return Where(suite=row.suite, encoder=row.encoder, recipe=row.recipe, backend=row.backend, target=row.target)


def _as_it_was(row: Verdict | NotRun, metric: str, status: Status | None, reason: str) -> NotRejudged:
    return NotRejudged(**_where(row), metric=metric, status=status, reason=reason)


def _summary(gates: tuple[RejudgedGate, ...], rest: tuple[NotRejudged, ...]) -> RejudgementSummary:
    gating = [gate for gate in gates if gate.severity is Severity.GATE]
    statuses = [gate.now.status for gate in gating]
    return RejudgementSummary(
        gates=len(gating),
        report=len(gates) - len(gating),
        changed=sum(gate.is_changed for gate in gating),
        not_rejudged=sum(row.status is not None for row in rest),
        outcome=worst_of(statuses),
        exit_code=exit_code(statuses),
    )
