"""Verdicts as a plain table for terminals and logs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.records.run import ReportFinding
from harness.records.verdict import NotRun, Status, Verdict
from harness.report.words import by_reason, certainty, engine, figures, order, place, plain, tally

_HEADINGS = ("suite", "encoder", "recipe", "backend", "metric", "observed", "bound", "unit", "verdict", "95 % bounds")
_RIGHT = {"observed"}
_VERDICT = _HEADINGS.index("verdict")
_GAP = "  "
_DESCRIPTION = "E10"  # the check that describes each engine and asks nothing of anyone
_CHECK = "check_"  # verdicts of single checks: `check_O1`
_SHOWN_REPORTS = 20
_RESET = "\x1b[0m"
_COLOURS = {
    Status.PASS: "\x1b[32m",
    Status.FAIL: "\x1b[31m",
    Status.INCONCLUSIVE: "\x1b[33m",
    Status.INVALID: "\x1b[31m",
    Status.NO_BASELINE: "\x1b[33m",
}


def table(
    verdicts: Sequence[Verdict], not_run: Sequence[NotRun], reports: Sequence[ReportFinding], *, width: int = 120, colour: bool = False
) -> str:
    """All of a run: a line a gate, why those that are not PASS are not, report findings, what did not run, and a count.

    All checks of one graph or engine that found nothing share a line; what only describes an engine is left to `summary.md`.

    Args:
        verdicts: the gates.
        not_run: gates that no backend could run here.
        reports: findings that turn nothing red.
        width: columns that long sentences are wrapped to. The table itself is as wide as its longest names.
        colour: whether verdicts are coloured with ANSI sequences.

    Returns:
        Text without a last newline, the same for the same records in any order, ASCII but for names and reasons.
    """
    ordered = sorted(verdicts, key=lambda verdict: (*order(verdict), verdict.metric))
    parts = (
        _rows(ordered, colour=colour),
        list(_reasons(ordered, width)),
        list(_notes(ordered, width)),
        list(_reports(sorted(reports, key=lambda remark: (*order(remark), remark.check)), width)),
        list(_not_run(not_run, width)),
        [tally(verdicts, not_run, reports)],
    )
    return "\n\n".join("\n".join(part) for part in parts if part)


def _rows(verdicts: Sequence[Verdict], *, colour: bool) -> list[str]:
    if not verdicts:
        return []
    verdicts = list(_clean_checks_as_one(verdicts))
    rows = [_cells(verdict) for verdict in verdicts]
    shown = len(_HEADINGS) if any(row[-1] for row in rows) else len(_HEADINGS) - 1  # without estimates, nothing is said of their bounds
    cells = [row[:shown] for row in (_HEADINGS, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(shown)]
    colours = ("", *(_COLOURS[verdict.status] if colour else "" for verdict in verdicts))
    return [_aligned(row, widths, paint) for row, paint in zip(cells, colours, strict=True)]


def _clean_checks_as_one(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """The rows, with a single one for the checks of a subject that found nothing: a page of zeros would hide the one that is none."""
    clean: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        if _is_clean_check(verdict):
            clean.setdefault(_subject(verdict), []).append(verdict)
    for verdict in verdicts:
        group = clean.get(_subject(verdict), []) if _is_clean_check(verdict) else []
        if len(group) < 2:
            yield verdict
        elif verdict is group[0]:
            yield replace(verdict, metric=f"checks {_spans(group)}", n=sum(one.n for one in group))


def _is_clean_check(verdict: Verdict) -> bool:
    return verdict.metric.startswith(_CHECK) and verdict.status is Status.PASS and verdict.unit == "findings"


def _subject(verdict: Verdict) -> tuple[str, ...]:
    return verdict.suite, verdict.encoder, verdict.recipe, engine(verdict)


def _spans(checks: Sequence[Verdict]) -> str:
    """`O1-O12 O14`."""
    names = sorted((check.metric.removeprefix(_CHECK) for check in checks), key=_number_of)
    spans: list[list[str]] = []
    for name in names:
        if spans and _number_of(name) == _number_of(spans[-1][-1]) + 1:
            spans[-1].append(name)
        else:
            spans.append([name])
    return " ".join(f"{span[0]}-{span[-1]}" if len(span) > 2 else " ".join(span) for span in spans)


def _number_of(name: str) -> int:
    return int(name[1:])


def _cells(verdict: Verdict) -> tuple[str, ...]:
    observed, bound = figures(verdict)
    return (
        verdict.suite,
        plain(verdict.encoder),
        plain(verdict.recipe),
        plain(engine(verdict)),
        plain(verdict.metric),
        observed,
        bound,
        plain(verdict.unit),
        verdict.status,
        certainty(verdict),
    )


def _aligned(row: Sequence[str], widths: Sequence[int], paint: str) -> str:
    """One line; with `paint`, an ANSI sequence, the verdict is coloured."""
    columns = zip(_HEADINGS, row, widths, strict=False)
    padded = [cell.rjust(width) if heading in _RIGHT else cell.ljust(width) for heading, cell, width in columns]
    if paint:
        padded[_VERDICT] = padded[_VERDICT].replace(row[_VERDICT], f"{paint}{row[_VERDICT]}{_RESET}")
    return _GAP.join(padded).rstrip()


def _reasons(verdicts: Sequence[Verdict], width: int) -> Iterator[str]:
    """Why gates are not PASS, a line for each reason."""
    red = [verdict for verdict in verdicts if verdict.status is not Status.PASS]
    for (status, reason), gates in _by_words(red).items():
        yield from _wrapped(f"{status} {_first_of(gates)}: {reason or 'no reason was given'}", width)


def _notes(verdicts: Sequence[Verdict], width: int) -> Iterator[str]:
    """What gates that pass have to say, a line for each thing said. What an estimate rests on stands in its row."""
    noted = [verdict for verdict in verdicts if verdict.status is Status.PASS and verdict.reason and verdict.interval is None]
    for (status, reason), gates in _by_words(noted).items():
        yield from _wrapped(f"{status}, noted: {reason}: {_first_of(gates)}", width)


def _by_words(verdicts: Sequence[Verdict]) -> dict[tuple[Status, str], list[Verdict]]:
    grouped: dict[tuple[Status, str], list[Verdict]] = {}
    for verdict in verdicts:
        grouped.setdefault((verdict.status, verdict.reason), []).append(verdict)
    return grouped


def _first_of(gates: Sequence[Verdict]) -> str:
    more = f" and {len(gates) - 1} more" if len(gates) > 1 else ""
    return f"{place(gates[0])} {gates[0].metric}{more}"


def _reports(reports: Sequence[ReportFinding], width: int) -> Iterator[str]:
    """Findings, a line for each engine and check: a recipe that loses something loses it in every block."""
    grouped: dict[tuple[str, str], list[str]] = {}
    described = [report for report in reports if report.check == _DESCRIPTION]
    for report in reports:
        if report.check == _DESCRIPTION:
            continue
        grouped.setdefault((place(report), report.check), []).append(report.message)
    for (where, check), messages in list(grouped.items())[:_SHOWN_REPORTS]:
        more = f" and {len(messages) - 1} more like it" if len(messages) > 1 else ""
        yield from _wrapped(f"report {where} {check}: {messages[0]}{more}", width)
    if len(grouped) > _SHOWN_REPORTS:
        yield f"report: {len(grouped) - _SHOWN_REPORTS} more kinds in run.json"
    if described:
        yield f"report: {len(described)} engine{'s' if len(described) > 1 else ''} described in summary.md"


def _not_run(not_run: Sequence[NotRun], width: int) -> Iterator[str]:
    for reason, engines in by_reason(not_run).items():
        hit = "; ".join(f"{where} ({', '.join(gates)})" for where, gates in engines.items())
        yield from _wrapped(f"not run: {reason}: {hit}", width)


def _wrapped(sentence: str, width: int) -> list[str]:
    return textwrap.wrap(plain(sentence), width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
