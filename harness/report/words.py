"""How figures and gates are spelled, the same in every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.records.run import ReportFinding
from harness.records.verdict import Direction, NotRun, Status, Suite, Verdict

UNKNOWN = "-"
SIGNS = {Direction.FLOOR: ">=", Direction.CEILING: "<=", Direction.EQUAL: "="}

_DECIMALS = {"dB": 1, "ms": 3, "s": 1, "%": 1, "pt": 2}
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
    observed, bound, decimals = verdict.observed, verdict.bound, _decimals(verdict)
    limit = UNKNOWN if bound is None else f"{SIGNS[verdict.direction]} {_number(bound, decimals)}"
    return (UNKNOWN if observed is None else _number(observed, decimals)), limit


def certainty(verdict: Verdict) -> str:
    """What an estimated figure rests on: `[-0.40, 0.90] budget 19 of 1,382`; empty for a figure that is no estimate.

    Of a latency it is `[5.98, 6.50] at 99 % of 5, sees +21.3%`, with the minimum detectable effect.
    The interval is spelled as `figures` spells observed and bound, so that its ends and the bound compare by eye.
    """
    if verdict.interval is None:
        return ""
    ends = ", ".join(_number(end, _decimals(verdict)) for end in verdict.interval)
    if verdict.budget is None:
        if verdict.detectable is not None:
            return f"[{ends}] at 99 % of {verdict.n:,}, sees {verdict.detectable:+.1%}"
        return f"[{ends}] of {verdict.n:,}"
    if verdict.budget < 0:
        return f"[{ends}] no budget in {verdict.n:,}"
    return f"[{ends}] budget {verdict.budget:,} of {verdict.n:,}"


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
        f"{many(len(verdicts), 'gate')}{': ' if shares else ''}{shares}",
        f"{len(not_run)} not run",
        many(len(reports), "report finding"),
    ]
    return "; ".join(parts)


def many(count: int, noun: str) -> str:
    """`1 gate`, `2 gates`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _decimals(verdict: Verdict) -> int:
    """As many as the unit has, and more where a figure would read as the bound that it is not."""
    bound, ends = verdict.bound, verdict.interval or ()
    decimals = _decimals_of_unit(verdict)
    figures_beside = [figure for figure in (verdict.observed, *ends) if figure is not None and bound is not None and figure != bound]
    while decimals < _MOST_DECIMALS and any(_number(figure, decimals) == _number(bound or 0, decimals) for figure in figures_beside):
        decimals += 1
    return decimals


def _decimals_of_unit(verdict: Verdict) -> int:
    if verdict.unit in _DECIMALS:
        return _DECIMALS[verdict.unit]
    known = [figure for figure in (verdict.observed, verdict.bound, *(verdict.interval or ())) if figure is not None]
    whole = all(float(figure).is_integer() for figure in known)
    return 0 if whole or verdict.unit == "bytes" else _RATIO_DECIMALS


def _number(figure: float, decimals: int) -> str:
    return f"{figure:z,.{decimals}f}"  # z: no minus before a zero
