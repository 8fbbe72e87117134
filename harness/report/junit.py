"""Verdicts as properties of a JUnit test case, which CI systems keep with its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.records.verdict import Verdict
from harness.report.words import engine, plain


def properties(verdicts: Iterable[Verdict]) -> list[tuple[str, str]]:
    """Flat properties: `enginegate:SUITE:ENCODER:RECIPE:BACKEND/TARGET:METRIC:FIELD` and its value, in the order of the verdicts.

    An unknown figure and an empty text have no property. Numbers are spelled as Python reads them back, not as people like them.
    """
    return [(f"{_prefix(verdict)}:{field}", value) for verdict in verdicts for field, value in _fields(verdict)]


def _prefix(verdict: Verdict) -> str:
    return plain(":".join(("enginegate", verdict.suite, verdict.encoder, verdict.recipe, engine(verdict), verdict.metric)))


def _fields(verdict: Verdict) -> Iterator[tuple[str, str]]:
    yield "status", str(verdict.status)
    if verdict.observed is not None:
        yield "observed", repr(float(verdict.observed))
    if verdict.bound is not None:
        yield "bound", repr(float(verdict.bound))
    yield "direction", str(verdict.direction)
    yield "n", str(verdict.n)
    if verdict.interval is not None:
        yield "interval_low", repr(float(verdict.interval[0]))
        yield "interval_high", repr(float(verdict.interval[1]))
    if verdict.budget is not None:
        yield "budget", str(verdict.budget)
    if verdict.detectable is not None:
        yield "detectable", repr(float(verdict.detectable))
    if verdict.unit:
        yield "unit", plain(verdict.unit)
    if verdict.reason:
        yield "reason", plain(verdict.reason)
