"""A run judged again, as text for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from harness.records.rejudgement import NotRejudged, RejudgedGate, Rejudgement
from harness.records.verdict import Severity, Status, Suite
from harness.report.words import certainty, engine, figures, many, order, place, plain

WIDTH = 140
_HEADINGS = ("encoder", "recipe", "backend", "metric", "observed", "bound", "unit", "n", "verdict", "then", "95 % bounds")
_RIGHT = {"observed", "n"}
_OPTIONAL = {"then", "95 % bounds"}  # shown where some gate has something to say there
_GAP = "  "


def rejudgement_text(record: Rejudgement) -> str:
    """A line a gate, why those that are not PASS are not, what was not judged again, and a count; without a last newline."""
    gates = sorted(record.gates, key=lambda gate: order(gate.now))  # metrics of one engine stay in the run's order
    parts = (
        [f"run     {plain(record.run)}, of {record.started}", f"bounds  {plain(record.gate_file)}"],
        _table(gates),
        list(_reasons(gates)),
        list(_left(record.not_rejudged)),
        _wrapped(_tally(record)),
    )
    return "\n\n".join("\n".join(part) for part in parts if part)


def _table(gates: Sequence[RejudgedGate]) -> list[str]:
    rows = [_HEADINGS, *map(_cells, gates)]
    shown = [column for column, heading in enumerate(_HEADINGS) if heading not in _OPTIONAL or any(row[column] for row in rows[1:])]
    widths = [max(len(row[column]) for row in rows) for column in shown]
    right = [_HEADINGS[column] in _RIGHT for column in shown]
    return [_aligned([row[column] for column in shown], widths, right) for row in rows]


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    columns = zip(cells, widths, right, strict=True)
    return _GAP.join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in columns).rstrip()


def _cells(gate: RejudgedGate) -> tuple[str, ...]:
    now = gate.now
    observed, bound = figures(now)
    return (
        plain(now.encoder),
        plain(now.recipe),
        plain(engine(now)),
        plain(now.metric),
        observed,
        bound,
        plain(now.unit),
        f"{now.n:,}",
        f"{now.status}, report" if gate.severity is Severity.REPORT else now.status,
        _then(gate),
        certainty(now),
    )


def _then(gate: RejudgedGate) -> str:
    """What the run said, where it said otherwise."""
    if gate.then is None:
        return "" if gate.severity is Severity.REPORT else "report"
    return gate.then.status if gate.is_changed else ""


def _reasons(gates: Sequence[RejudgedGate]) -> Iterator[str]:
    for gate in gates:
        if gate.now.status is not Status.PASS:
            yield from _wrapped(f"{gate.now.status} {place(gate.now)} {gate.now.metric}: {gate.now.reason or 'no reason was given'}")


def _left(rows: Sequence[NotRejudged]) -> Iterator[str]:
    """What was not judged again, a line for each suite and reason."""
    grouped: dict[tuple[Suite, str], list[NotRejudged]] = {}
    for row in rows:
        grouped.setdefault((row.suite, row.reason), []).append(row)
    for (suite, reason), group in grouped.items():
        metrics = ", ".join(dict.fromkeys(row.metric for row in group))
        yield from _wrapped(f"not judged again: {suite} {metrics} ({_statuses(row.status for row in group)}): {reason}")


def _tally(record: Rejudgement) -> str:
    summary = record.summary
    gates = [gate for gate in record.gates if gate.severity is Severity.GATE]
    counted = f": {_statuses(gate.now.status for gate in gates)}" if gates else ""
    shares = (
        f"{many(summary.gates, 'gate')} judged again{counted}",
        f"{summary.changed} with another verdict than in the run",
        many(summary.report, "report"),
        f"{many(summary.not_rejudged, 'verdict')} of the run not judged again",
    )
    return "; ".join(shares)


def _statuses(found: Iterable[Status | None]) -> str:
    counts = Counter(found)
    return ", ".join(f"{counts[status]} {status or 'not run'}" for status in (*Status, None) if counts[status])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(plain(text), WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
