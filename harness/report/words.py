"""How figures and gates are spelled, the same in every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.records.run import ReportFinding
from harness.records.verdict import Direction, NotRun, Status, Suite, Verdict

UNKNOWN = "-"
SIGNS = {Direction.FLOOR: ">=", Direction.CEILING: "<=", Direction.EQUAL: "="}

_DECIMALS = {"dB": 1, "ms": 3, "s": 1, "%": 1}
_RATIO_DECIMALS = 4
_MOST_DECIMALS = 12


Subject = Verdict | NotRun | ReportFinding  # what belongs to an encoder, a recipe and, as a rule, an engine


def engine(subject: Subject) -> str:
    """Backend and target as one word: `tensorrt_rtx/SM89`."""
    return "/".join(filter(None, (subject.backend, subject.target))) or UNKNOWN


def place(subject: Subject) -> str:
    """Suite and engine: `graph ViT-B-32/image linear tensorrt_rtx/SM89`."""
    return " ".join((subject.suite, subject.encoder, subject.recipe, engine(subject)))


def order(subject: Subject) -> tuple[int, str, str, str]:
    """Sort key of a report: suites as they are declared, then engines. Workers finish in any order; a report must not."""
    return (list(Suite).index(subject.suite), subject.encoder, subject.recipe, engine(subject))


def figures(verdict: Verdict) -> tuple[str, str]:
    """Observed and bound in the unit's spelling, the bound with its direction; they differ as texts wherever they differ."""
    observed, bound = verdict.observed, verdict.bound
    decimals = _decimals(verdict)
    if observed is not None and bound is not None and observed != bound:
        while decimals < _MOST_DECIMALS and _number(observed, decimals) == _number(bound, decimals):
            decimals += 1
    limit = UNKNOWN if bound is None else f"{SIGNS[verdict.direction]} {_number(bound, decimals)}"
    return (UNKNOWN if observed is None else _number(observed, decimals)), limit


def plain(text: str) -> str:
    """Text on one line, without the control characters that a vendor's log may carry into a terminal or an XML file."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def by_reason(not_run: Iterable[NotRun]) -> dict[str, dict[str, list[str]]]:
    """Reason to engines to the gates it hit, each in the order of a report."""
    grouped: dict[str, dict[str, list[str]]] = {}
    for gate in sorted(not_run, key=lambda gate: (*order(gate), gate.gate)):
        grouped.setdefault(plain(gate.reason), {}).setdefault(place(gate), []).append(gate.gate)
    return grouped


def tally(verdicts: Sequence[Verdict], not_run: Sequence[NotRun], reports: Sequence[ReportFinding]) -> str:
    """The whole run in one line: `3 gates: 2 PASS, 1 FAIL; 1 not run; 4 report findings`."""
    counts = Counter(verdict.status for verdict in verdicts)
    shares = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    parts = [
        f"{_many(len(verdicts), 'gate')}{': ' if shares else ''}{shares}",
        f"{len(not_run)} not run",
        _many(len(reports), "report finding"),
    ]
    return "; ".join(parts)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _decimals(verdict: Verdict) -> int:
    if verdict.unit in _DECIMALS:
        return _DECIMALS[verdict.unit]
    known = [figure for figure in (verdict.observed, verdict.bound) if figure is not None]
    whole = all(float(figure).is_integer() for figure in known)
    return 0 if whole or verdict.unit == "bytes" else _RATIO_DECIMALS


def _number(figure: float, decimals: int) -> str:
    return f"{figure:,.{decimals}f}"
