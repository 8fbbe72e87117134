"""A report's lines as runs, one a batch size, as `gate` leaves them: what `compare` and `judge` read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from harness.records.gpu_report import ReportAbout, ReportLine, Stage
from harness.records.run import ReportFinding, RunRecord
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

# By which gate a stage that broke, or was not come to, is known in a run. Launches with emptied caches are no gate.
_GATES = {
    Stage.BUILD: (Suite.BENCHMARK, "plan_bytes"),
    Stage.GRAPH: (Suite.GRAPH, "check_E1"),
    Stage.ACCURACY: (Suite.ACCURACY, "finite"),
    Stage.HOT: (Suite.BENCHMARK, "latency_ratio"),
}


def run_record(about: ReportAbout, lines: Sequence[ReportLine], *, command: tuple[str, ...]) -> RunRecord:
    """The run of one batch size.

    Args:
        lines: all of that batch.
        command: the arguments, the program first.
    """
    verdicts = tuple(verdict for line in lines for verdict in _verdicts(about, line))
    is_whole = all(line.is_complete for line in lines)
    statuses = [verdict.status for verdict in verdicts]
    worst = worst_of(statuses)
    code = exit_code(statuses) or (0 if is_whole and verdicts else exit_code([Status.INCONCLUSIVE]))
    return RunRecord(
        started=about.started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        exit_code=code,
        outcome=Status.INCONCLUSIVE if worst is Status.PASS and code else worst,
        machine=about.machine,
        engines=tuple(line.engine for line in lines if line.engine is not None),
        verdicts=verdicts,
        not_run=tuple(missing for line in lines for missing in _not_run(about, line)),
        reports=tuple(report for line in lines for report in _reports(about, line)),
    )


def _judged(line: ReportLine) -> Iterator[tuple[Suite, Judgement]]:
    for suite, judgements in ((Suite.ACCURACY, line.accuracy), (Suite.GRAPH, line.graph), (Suite.BENCHMARK, line.benchmark)):
        yield from ((suite, judgement) for judgement in judgements)


def _verdicts(about: ReportAbout, line: ReportLine) -> Iterator[Verdict]:
    for suite, judgement in _judged(line):
        if judgement.severity is Severity.GATE:
            yield verdict_of(judgement, _where(about, line, suite))
    for event in line.events:
        if event.stage in _GATES:
            suite, metric = _GATES[event.stage]
            yield verdict_of(unjudged(metric, f"{event.code}: {event.message}"), _where(about, line, suite))


def _where(about: ReportAbout, line: ReportLine, suite: Suite) -> Where:
    return Where(suite=suite, encoder=line.encoder, recipe=line.recipe, backend=about.backend, target=None)


def _not_run(about: ReportAbout, line: ReportLine) -> Iterator[NotRun]:
    if line.is_complete:
        return
    for stage in line.stages:
        if stage in _GATES and stage not in line.done and (stage is not Stage.HOT or line.recipe.is_quantized):
            suite, gate = _GATES[stage]
            words = "the report did not come to it; the same gpu-report command goes on"
            yield NotRun(**_where(about, line, suite), gate=gate, reason=words)


def _reports(about: ReportAbout, line: ReportLine) -> Iterator[ReportFinding]:
    for suite, judgement in _judged(line):
        findings = [(found.check, found.message) for found in judgement.findings if found.severity is Severity.REPORT]
        if judgement.severity is Severity.REPORT and (judgement.observed is not None or judgement.status is not Status.PASS):
            words = f"{judgement.metric} {judgement.observed}: {judgement.status}"
            findings.insert(0, (judgement.metric, f"{words}: {judgement.reason}" if judgement.reason else words))
        for check, message in findings:
            yield ReportFinding(**_where(about, line, suite), check=check, message=message)
