"""A run as Markdown, for summary.md and for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records.machine import Machine
from harness.records.run import EngineRow, ReportFinding, RunRecord
from harness.records.verdict import NotRun, Status, Verdict
from harness.report.markup import capped as _capped
from harness.report.markup import cell as _cell
from harness.report.markup import table as _table
from harness.report.words import UNKNOWN, by_reason, certainty, engine, figures, order, place, tally

LIMIT_BYTES = 900 * 1024  # GitHub refuses a step summary of more than 1 MiB, and other steps may add to it

_WORST_FIRST = (Status.FAIL, Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE, Status.PASS)
_GATES = ("verdict", "suite", "encoder", "recipe", "backend", "metric", "observed", "bound", "unit", "n", "95 % bounds", "reason")
_ENGINES = (
    "encoder",
    "recipe",
    "backend",
    "version",
    "weights, bytes",
    "plan, bytes",
    "activation, bytes",
    "ONNX, bytes",
    "build, s",
    "build's host memory, bytes",
    "cache",
)


def summary(run: RunRecord, *, limit_bytes: int = LIMIT_BYTES) -> str:
    """The run: its outcome, every gate with the worst first, what did not run, findings, engines, machine.

    Returns:
        Markdown of at most `limit_bytes` bytes in UTF-8; what does not fit is cut at a line, and its end says so.
    """
    sections = (
        _head(run),
        _gates(run.verdicts),
        _not_run(run.not_run),
        _reports(run.reports),
        _engines(run.engines),
        _engine_notes(run.engines),
        _repairs(run.engines),
    )
    lines = [line for section in sections for line in (*section, "")]
    return _capped([*lines, *_machine(run.machine)], limit_bytes, "The whole run is in run.json.")


def _head(run: RunRecord) -> Iterator[str]:
    yield f"## enginegate: {run.outcome or 'no verdict'}"
    yield ""
    yield f"{tally(run.verdicts, run.not_run, run.reports)}. {_cell(run.started)} to {_cell(run.finished)}."


def _gates(verdicts: Sequence[Verdict]) -> Iterator[str]:
    ordered = sorted(verdicts, key=lambda verdict: (_WORST_FIRST.index(verdict.status), *order(verdict), verdict.metric))
    yield from _table(_GATES, (_gate(verdict) for verdict in ordered))


def _gate(verdict: Verdict) -> tuple[object, ...]:
    observed, bound = figures(verdict)
    status = verdict.status if verdict.status is Status.PASS else f"**{verdict.status}**"
    where = (verdict.suite, _cell(verdict.encoder), _cell(verdict.recipe), _cell(engine(verdict)), _cell(verdict.metric))
    return (status, *where, observed, _cell(bound), _cell(verdict.unit), verdict.n, _cell(certainty(verdict)), _cell(verdict.reason))


def _not_run(not_run: Sequence[NotRun]) -> Iterator[str]:
    if not_run:
        yield "### Not run"
        yield ""
    for reason, engines in by_reason(not_run).items():
        hit = "; ".join(f"{where} ({', '.join(gates)})" for where, gates in engines.items())
        yield f"- {_cell(reason)}: {_cell(hit)}"


def _reports(reports: Sequence[ReportFinding]) -> Iterator[str]:
    if reports:
        yield "### Report findings, which gate nothing"
        yield ""
    for remark in sorted(reports, key=lambda remark: (*order(remark), remark.check)):
        yield f"- {_cell(place(remark))} {_cell(remark.check)}: {_cell(remark.message)}"


def _engines(engines: Sequence[EngineRow]) -> Iterator[str]:
    if engines:
        yield "### Engines"
        yield ""
        yield from _table(_ENGINES, sorted(_engine(row) for row in engines))


def _engine(row: EngineRow) -> tuple[str, ...]:
    compiler = "/".join(filter(None, (row.backend, row.target)))
    seconds = UNKNOWN if row.build_seconds is None else f"{row.build_seconds:,.1f}"
    sizes = (row.weights_bytes, row.plan_bytes, row.activation_bytes, row.onnx_bytes)
    names = (_cell(row.encoder), _cell(row.recipe), _cell(compiler), _cell(row.backend_version))
    host = UNKNOWN if row.build_host_bytes is None else f"{row.build_host_bytes:,}"
    return (*names, *(UNKNOWN if size is None else f"{size:,}" for size in sizes), seconds, host, row.cache or UNKNOWN)


def _engine_notes(engines: Sequence[EngineRow]) -> Iterator[str]:
    noted = {
        f"- {_cell(row.encoder)} {_cell(row.recipe)}, batch {_cell(row.batch)}: {_cell(note)}" for row in engines for note in row.notes
    }
    if noted:
        yield "### What to know of engines"
        yield ""
        yield from sorted(noted)


def _repairs(engines: Sequence[EngineRow]) -> Iterator[str]:
    mended = {
        f"- {_cell(row.encoder)} {_cell(row.recipe)}: {_cell(repair.name)}, {repair.count} places: {_cell(repair.detail)}"
        for row in engines
        for repair in row.repairs
    }
    if mended:
        yield "### Mended after the vendor's export"
        yield ""
        yield from sorted(mended)


def _machine(machine: Machine) -> Iterator[str]:
    gpus = ", ".join(machine.gpus) or "no GPU"
    driver = f", driver {machine.driver}" if machine.driver else ""
    yield "### Machine"
    yield ""
    yield _cell(
        f"{machine.system} {machine.architecture}, {machine.cpu_model} x {machine.cpu_count}, {gpus}{driver}, Python {machine.python}"
    )
    yield ""
    yield _cell(", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())))
