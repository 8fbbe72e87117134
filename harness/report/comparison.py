"""Two runs side by side, as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from harness.records.comparison import ComparedRun, Comparison, Effect, EngineComparison, Presence
from harness.records.verdict import Severity
from harness.report.changes import OUTCOMES, Line, arrow, engine_lines, engine_name, gating_places, versions
from harness.report.words import UNKNOWN, plain

WIDTH = 140
_MARKS = {Effect.WORSE: "worse", Effect.BETTER: "better", Effect.NEUTRAL: "", Effect.UNKNOWN: "unknown"}
_MARK_WIDTH = 9


def comparison_text(record: Comparison) -> str:
    """The two runs, what changed in each engine with the worst first, and the outcome last; without a last newline."""
    lines = [*_runs(record), *_engines(record), *_lone(record), *_outcome(record)]
    return "\n".join(lines)


def _runs(record: Comparison) -> Iterator[str]:
    yield from _wrapped(f"A  {_run(record.a)}", "   ")
    yield from _wrapped(f"B  {_run(record.b)}", "   ")


def _run(run: ComparedRun) -> str:
    backends = ", ".join(f"{name} {version}" for name, version in run.backends.items()) or "no engine"
    return f"{plain(run.path)}: {run.started}, {plain(backends)}, {run.outcome or 'no verdict'}"


def _engines(record: Comparison) -> Iterator[str]:
    reported = {engine_name(finding) for finding in record.findings if finding.severity is Severity.REPORT}
    shared = [engine for engine in record.engines if engine.presence is Presence.BOTH]
    for engine in filter(_has_words, shared):
        yield ""
        told = ", only reported on" if engine_name(engine) in reported else ""
        yield from _wrapped(f"{_heading(engine)}{told}", "    ")
        said = (*(f"not compared: {words}" for words in engine.not_compared), *engine.remarks)
        yield from (line for words in said for line in _wrapped(f"  {plain(words)}", "    "))
        yield from (text for line in engine_lines(engine) for text in _change(line))
    same = [_unchanged(engine) for engine in shared if not _has_words(engine)]
    if same:
        yield ""
        yield from _wrapped(f"no change: {'; '.join(same)}", "    ")


def _has_words(engine: EngineComparison) -> bool:
    return bool(engine.not_compared or engine.remarks or engine_lines(engine))


def _heading(engine: EngineComparison) -> str:
    parts = [engine_name(engine)]
    if engine.a is not None and engine.b is not None:
        parts.append(versions(engine))
        if (engine.a.layers, engine.b.layers) != (None, None):
            parts.append(f"{arrow(engine.a.layers, engine.b.layers)} layers")
    if engine.compared_nodes:
        parts.append(f"{engine.compared_nodes} nodes compared")
    return ", ".join(parts)


def _unchanged(engine: EngineComparison) -> str:
    return f"{engine_name(engine)}{f' ({engine.compared_nodes} nodes)' if engine.compared_nodes else ''}"


def _change(line: Line) -> Iterator[str]:
    sides = f"{line.a} -> {line.b}" if line.a else line.b
    note = f" ({line.note})" if line.note else ""
    yield from _wrapped(f"  {_MARKS[line.effect]:{_MARK_WIDTH}}{line.subject}: {plain(sides)}{note}", " " * (_MARK_WIDTH + 4))


def _lone(record: Comparison) -> Iterator[str]:
    for presence, words in ((Presence.ONLY_A, "only in A"), (Presence.ONLY_B, "only in B")):
        names = [engine_name(engine) for engine in record.engines if engine.presence is presence]
        if names:
            yield ""
            yield from _wrapped(f"{words}: {'; '.join(names)}", "    ")


def _outcome(record: Comparison) -> Iterator[str]:
    summary = record.summary
    told = f"; {summary.report} of recipes that are only reported on" if summary.report else ""
    yield ""
    yield (
        f"{summary.engines} engines compared: {summary.changed_nodes} nodes changed, {summary.better} changes for the better, "
        f"{summary.worse} for the worse{told}"
    )
    yield f"{summary.outcome}: {OUTCOMES.get(summary.outcome, UNKNOWN)}"
    for place, words in gating_places(record):
        yield from _wrapped(f"  {place}: {words}", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [UNKNOWN]
