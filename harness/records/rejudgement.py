"""A run's accuracy verdicts, judged again from the rows that it kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.records.verdict import Severity, Status, Suite, Verdict

REJUDGEMENT_SCHEMA = "enginegate/rejudgement/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgedGate:
    """One gate of the run, under the bounds that hold now.

    Attributes:
        severity: `report` where the recipe is only reported on, or the judge only reports; such a gate decides nothing.
        now: what the rows say under these bounds.
        then: what the run said; None where it only reported on this metric.
    """

    severity: Severity
    now: Verdict
    then: Verdict | None

    @property
    def is_changed(self) -> bool:
        """Whether this gate has another status than the run gave it."""
        return self.then is not None and self.then.status is not self.now.status


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRejudged:
    """Something that the run decided, or did not, and that no kept row can decide again.

    Attributes:
        status: what the run said; None for a gate that it did not run.
        reason: why it cannot be judged again.
    """

    suite: Suite
    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    metric: str
    status: Status | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgementSummary:
    """The outcome in figures.

    Attributes:
        gates: how many were judged again and count; `report` more were judged and only shown.
        changed: how many of the gates have another status than the run gave them.
        not_rejudged: how many verdicts of the run stay as they were.
        outcome: the worst status of the gates; None where there are only reports.
        exit_code: of the command.
    """

    gates: int
    report: int
    changed: int
    not_rejudged: int
    outcome: Status | None
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudgement:
    """One run judged again.

    Attributes:
        run: its folder, as it was named.
        started: when it started, ISO 8601 in UTC.
        gate_file: where the bounds are from.
    """

    run: str
    started: str
    gate_file: str
    gates: tuple[RejudgedGate, ...]
    not_rejudged: tuple[NotRejudged, ...]
    summary: RejudgementSummary
    schema: Literal["enginegate/rejudgement/1"] = "enginegate/rejudgement/1"
