"""What is decided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from harness.errors import InvalidMeasurement


class Status(StrEnum):
    """Only PASS is green in a release gate."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"  # the data cannot carry the claim
    INVALID = "INVALID"  # the measurement is broken
    NO_BASELINE = "NO_BASELINE"


class Suite(StrEnum):
    ACCURACY = "accuracy"
    GRAPH = "graph"
    BENCHMARK = "benchmark"
    CONFORMANCE = "conformance"


class Direction(StrEnum):
    """Which side of the bound is good."""

    FLOOR = "floor"
    CEILING = "ceiling"
    EQUAL = "equal"


class Severity(StrEnum):
    """A gate turns the run red; a report is only shown."""

    GATE = "gate"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a judge saw in a graph or an engine."""

    check: str
    severity: Severity
    node: str | None
    block: int | None
    found: str
    expected: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A judge's answer about one metric, before it is known which engine of which suite it concerns.

    Attributes:
        observed, bound: numbers or None where there is none to give; never NaN.
        unit: of both; empty for counts and ratios.
        n: how many rows, nodes or samples carry the answer.
        interval: bounds on the true figure from below and from above, in `unit`, each of which alone holds with 95 % confidence, of a
            latency with 99 %; None for a figure that is counted and not estimated.
        detectable: the least change for the worse that would be found in 99 of 100 tries, as a share of what the figure is compared
            with: the minimum detectable effect. None where that is no question.
        budget: how many of the n may go wrong at most for PASS; None where failures are not counted. -1: n is too small for any PASS.
        reason: why it is not PASS, or a reason code such as `baseline_stale`; empty when there is nothing to say.
        severity: a report never becomes a verdict.
        findings: what to look at, worst first.
    """

    metric: str
    status: Status
    observed: float | None
    bound: float | None
    unit: str
    direction: Direction
    n: int
    reason: str = ""
    severity: Severity = Severity.GATE
    findings: tuple[Finding, ...] = ()
    interval: tuple[float, float] | None = None
    budget: int | None = None
    detectable: float | None = None

    def __post_init__(self) -> None:
        ends = self.interval or (None, None)
        for name, figure in (("observed", self.observed), ("bound", self.bound), ("lower end", ends[0]), ("upper end", ends[1])):
            if figure is not None and not math.isfinite(figure):
                raise InvalidMeasurement(f"{self.metric} has {name} {figure}; expected a finite number, or None where there is none")


class Where(TypedDict):
    """What a row of a run's table is about."""

    suite: Suite
    encoder: str
    recipe: str
    backend: str | None
    target: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One gate of one run: a row of the table."""

    suite: Suite
    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    metric: str
    observed: float | None
    bound: float | None
    unit: str
    direction: Direction
    n: int
    status: Status
    reason: str
    interval: tuple[float, float] | None = None
    budget: int | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """A gate that no chosen backend can run here, in the backend's own words."""

    suite: Suite
    encoder: str
    recipe: str
    backend: str | None
    target: str | None
    gate: str
    reason: str


def verdict_of(judgement: Judgement, where: Where, *, note: str = "") -> Verdict:
    """The row that a judgement becomes.

    Args:
        note: said behind its reason.
    """
    return Verdict(
        **where,
        metric=judgement.metric,
        observed=judgement.observed,
        bound=judgement.bound,
        unit=judgement.unit,
        direction=judgement.direction,
        n=judgement.n,
        status=judgement.status,
        reason="; ".join(filter(None, (judgement.reason, note))),
        interval=judgement.interval,
        budget=judgement.budget,
        detectable=judgement.detectable,
    )


def unjudged(metric: str, reason: str, status: Status = Status.INVALID) -> Judgement:
    """What is said of a gate that nothing could be measured for."""
    return Judgement(metric=metric, status=status, observed=None, bound=None, unit="", direction=Direction.EQUAL, n=0, reason=reason)


INTERRUPTED = 130  # what a shell reports for Ctrl-C

# Mixed results: a failed gate is told before a broken measurement, that before missing data.
_EXIT_CODES = (
    (1, {Status.FAIL}),
    (4, {Status.INVALID}),
    (3, {Status.INCONCLUSIVE, Status.NO_BASELINE}),
)


def exit_code(statuses: Iterable[Status]) -> int:
    """Exit code of the command for a run's verdicts; 0 when all of them pass."""
    seen = set(statuses)
    return next((code for code, bad in _EXIT_CODES if seen & bad), 0)


def worst_of(statuses: Iterable[Status]) -> Status | None:
    """The status that decides the exit code; None where there is none."""
    order = (Status.FAIL, Status.INVALID, Status.INCONCLUSIVE, Status.NO_BASELINE, Status.PASS)
    seen = set(statuses)
    return next((status for status in order if status in seen), None)
