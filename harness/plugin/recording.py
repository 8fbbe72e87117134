"""Carries verdicts from tests to the run's record, through xdist where there are workers.

A worker attaches what a test decided to that test's report, as plain JSON; the process that pytest was started in collects the
reports and writes the run directory. So a worker that dies loses the verdict of the one test it was in, and that loss is a verdict.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import EnginegateError, UsageError
from harness.plugin.run import run_of
from harness.plugin.selection import Gates, Unable, subject_of
from harness.records.spec import EngineSpec, PreparedSpec
from harness.records.verdict import Finding, Judgement, NotRun, Severity, Status, Suite, Verdict, Where, unjudged, verdict_of
from harness.report.junit import properties
from harness.report.words import SIGNS, certainty, figures

if TYPE_CHECKING:
    from harness.records.run import ReportFinding


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What one test decided."""

    suite: Suite | None
    subject: EngineSpec | PreparedSpec | None
    gates: Gates
    verdicts: list[Verdict] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)
    reports: list[tuple[str, str]] = field(default_factory=list)
    unable: Unable | None = None
    left_out: str | None = None
    usage: str | None = None
    note: str = ""  # said with every verdict

    def judge(self, judgement: Judgement) -> None:
        """Keep a judgement: a gate becomes a verdict, a report never does."""
        self.judged.add(judgement.metric)
        if judgement.severity is Severity.REPORT:
            self.reports += _report_lines(judgement) if judgement.findings or judgement.unit != "findings" else []
        else:
            self._add(judgement)
            self.report(finding for finding in judgement.findings if finding.severity is Severity.REPORT)

    def report(self, findings: Iterable[Finding]) -> None:
        """Keep findings that gate nothing."""
        self.reports += [(finding.check, finding.message) for finding in findings]

    def not_run(self, unable: Unable) -> None:
        """Keep that no chosen backend can run this test's gates here."""
        self.unable = unable

    def invalidate(self, error: BaseException | None) -> None:
        """Give every gate of this test that has no verdict yet the one that `error` stands for: INVALID, since its measurement broke."""
        reason = _words(error)
        if isinstance(error, UsageError):
            self.usage = reason
        status = Status.FAIL if isinstance(error, AssertionError) else Status.INVALID  # a suite may also simply assert
        for metric in self.gates.metrics:
            if metric not in self.judged:
                self._add(unjudged(metric, reason, status))

    @property
    def red(self) -> list[Verdict]:
        """Verdicts that are not PASS."""
        return [verdict for verdict in self.verdicts if verdict.status is not Status.PASS]

    def _add(self, judgement: Judgement) -> None:
        assert self.suite is not None  # for the type checker: `expect` and `pytest_runtest_call` looked
        engine = self.subject if isinstance(self.subject, EngineSpec) else None
        self.verdicts.append(verdict_of(judgement, self._where(self.suite, engine), note=self.note))

    def _where(self, suite: Suite, engine: EngineSpec | None) -> Where:
        """What a row is about: this test's encoder and recipe, and that engine's backend."""
        backend, target = (engine.backend, engine.target) if engine else (None, None)
        return Where(suite=suite, encoder=self._about("encoder"), recipe=self._about("recipe"), backend=backend, target=target)

    def _about(self, what: str) -> str:
        prepared = self.unable.prepared if self.unable else self.subject
        assert prepared is not None  # for the type checker: a ledger without a subject records nothing
        return prepared.encoder.name if what == "encoder" else str(prepared.recipe)

    def plain(self) -> dict[str, Any]:
        """As plain data that survives the way from a worker."""
        from harness.store.codec import to_plain

        return {
            "verdicts": [to_plain(verdict) for verdict in self.verdicts],
            "reports": [to_plain(report) for report in self._report_findings()],
            "not_run": [to_plain(row) for row in self._rows_not_run()],
            "usage": self.usage,
        }

    def _report_findings(self) -> list[ReportFinding]:
        from harness.records.run import ReportFinding

        if self.suite is None or self.subject is None:
            return []
        engine = self.subject if isinstance(self.subject, EngineSpec) else None
        where = self._where(self.suite, engine)
        return [ReportFinding(**where, check=check, message=message) for check, message in self.reports]

    def _rows_not_run(self) -> list[NotRun]:
        if self.suite is None or (self.unable is not None and self.unable.was_asked):
            return []
        return [
            NotRun(**self._where(self.suite, engine), gate=gate, reason=reason)
            for gate in self.gates.metrics
            for engine, reason in self._reasons()
        ]

    def _reasons(self) -> list[tuple[EngineSpec | None, str]]:
        """Why this test did not run, for each engine that it was about."""
        if self.unable is not None:
            return list(self.unable.reasons)
        if self.left_out is not None:
            return [(self.subject if isinstance(self.subject, EngineSpec) else None, self.left_out)]
        return []


def _report_lines(judgement: Judgement) -> list[tuple[str, str]]:
    observed, bound = (_short(figure) for figure in (judgement.observed, judgement.bound))
    shown = f"{judgement.metric} {observed}, expected {SIGNS[judgement.direction]} {bound}, n {judgement.n}"
    words = f"{shown}: {judgement.reason}" if judgement.reason else shown
    return [(judgement.metric, words), *((finding.check, finding.message) for finding in judgement.findings[1:])]


def _short(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.6g}" if abs(figure) < 1e6 else f"{figure:,.0f}"


def _words(error: BaseException | None) -> str:
    if error is None:
        return "the test declares this gate and did not judge it; call expect with its judgement"
    return str(error) if isinstance(error, EnginegateError) else f"{type(error).__name__}: {error}"


_LEDGER: pytest.StashKey[Ledger] = pytest.StashKey()


def ledger_of(item: pytest.Item) -> Ledger:
    """The test's ledger, opened on first use."""
    if _LEDGER not in item.stash:
        subject = subject_of(item)
        item.stash[_LEDGER] = Ledger(
            suite=next((suite for suite in Suite if item.get_closest_marker(suite.value)), None),
            subject=None if isinstance(subject, Unable) else subject,
            gates=Gates.of(item),
        )
    return item.stash[_LEDGER]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Tell what broke in a gate's set-up in its own words, and list what a fixture leaves out."""
    try:
        return (yield)
    except pytest.skip.Exception as skipped:
        _leave_out(item, skipped)
        raise
    except EnginegateError as error:
        if not _gates(item):
            raise
        ledger_of(item).invalidate(error)
        raise pytest.fail.Exception(_words(error), pytrace=False) from None  # with its cause, pytest would say the words twice


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose verdicts are not all PASS, and turn what broke into verdicts."""
    try:
        result = yield
    except pytest.skip.Exception as skipped:
        _leave_out(item, skipped)
        raise
    except EnginegateError as error:
        if _gates(item):
            ledger_of(item).invalidate(error)
            raise pytest.fail.Exception(_words(error), pytrace=False) from None
        raise
    except Exception as error:  # whatever stopped a gate, its verdict must not be missing from the record; pytest shows the traceback
        if _gates(item):
            ledger_of(item).invalidate(error)
        raise
    if _gates(item):
        ledger_of(item).invalidate(None)
        if ledger_of(item).red:
            pytest.fail("\n".join(_sentence(verdict) for verdict in ledger_of(item).red), pytrace=False)
    return result


def _leave_out(item: pytest.Item, skipped: BaseException) -> None:
    if _gates(item):
        ledger_of(item).left_out = str(skipped)


def _gates(item: pytest.Item) -> bool:
    return _LEDGER in item.stash and ledger_of(item).suite is not None


def _sentence(verdict: Verdict) -> str:
    observed, bound = figures(verdict)
    seen = " ".join(filter(None, (observed, verdict.unit, certainty(verdict))))
    return f"{verdict.status}: {verdict.metric} {seen}, expected {bound}; {verdict.reason or 'no further reason'}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what a test decided to its last report."""
    _tell_junit(item, call)
    report = yield
    if _gates(item) and report.when == "teardown":
        report.enginegate = _payload(item)  # type: ignore[attr-defined]
    return report


def _payload(item: pytest.Item) -> dict[str, Any]:
    ledger = ledger_of(item)
    try:
        engines = run_of(item.config).new_engines()
    except EnginegateError as error:  # no room for a log or a layer table: the verdicts still count, and the run says why it is not green
        return {**ledger.plain(), "engines": [], "broken": str(error)}
    return {**ledger.plain(), "engines": engines, "broken": None}


def _tell_junit(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call" and _gates(item):
        item.user_properties += properties(ledger_of(item).verdicts)
