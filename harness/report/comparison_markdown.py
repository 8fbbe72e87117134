"""Two runs side by side, as Markdown for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.comparison import ComparedRun, Comparison, Effect, EngineComparison, Presence
from harness.report.changes import OUTCOMES, Line, arrow, count, engine_lines, engine_name, gating_places, versions
from harness.report.markup import capped, cell, table

LIMIT_BYTES = 60 * 1024  # GitHub refuses a comment of more than 65,536 characters

_ENGINES = ("engine", "version", "layers", "weights, bytes", "plan, bytes", "activation, bytes", "better", "worse")
_CHANGES = ("", "what", "A", "B", "")


def comparison_markdown(record: Comparison, *, limit_bytes: int = LIMIT_BYTES) -> str:
    """The outcome, why it is not PASS, the engines in figures, and what changed in each.

    Returns:
        Markdown of at most `limit_bytes` bytes in UTF-8; what does not fit is cut at a line, and its end says so.
    """
    sections = (_head(record), _findings(record), _engines(record), _lone(record), *map(_changes, record.engines))
    written = filter(None, map(list, sections))
    lines = [line for section in written for line in (*section, "")]
    return capped(lines, limit_bytes, "All of it is in the JSON document, by enginegate compare --json.")


def _head(record: Comparison) -> Iterator[str]:
    summary = record.summary
    yield f"## enginegate compare: {summary.outcome}, {OUTCOMES.get(summary.outcome, '')}"
    yield ""
    for name, run in (("A", record.a), ("B", record.b)):
        yield f"- {name}: {_run(run)}"
    yield ""
    yield f"{summary.engines} engines compared, {summary.changed_nodes} nodes changed, {summary.report} report findings."


def _run(run: ComparedRun) -> str:
    backends = ", ".join(f"{name} {version}" for name, version in run.backends.items()) or "no engine"
    return cell(f"{run.path}, {run.started}, {backends}, {run.outcome or 'no verdict'}")


def _findings(record: Comparison) -> Iterator[str]:
    yield from (f"- **{cell(place)}**: {cell(words)}" for place, words in gating_places(record))


def _engines(record: Comparison) -> Iterator[str]:
    yield from table(_ENGINES, (_engine(engine) for engine in record.engines if engine.a is not None and engine.b is not None))


def _engine(engine: EngineComparison) -> tuple[str, ...]:
    assert engine.a is not None  # for the type checker: the caller looked
    assert engine.b is not None
    pairs = ((getattr(engine.a, name), getattr(engine.b, name)) for name in ("layers", "weights_bytes", "plan_bytes", "activation_bytes"))
    counts = (str(count(engine, effect)) for effect in (Effect.BETTER, Effect.WORSE))
    return (cell(engine_name(engine)), cell(versions(engine)), *(cell(arrow(*pair)) for pair in pairs), *counts)


def _lone(record: Comparison) -> Iterator[str]:
    for presence, words in ((Presence.ONLY_A, "Only in A"), (Presence.ONLY_B, "Only in B")):
        names = [cell(engine_name(engine)) for engine in record.engines if engine.presence is presence]
        if names:
            yield f"{words}: {'; '.join(names)}"


def _changes(engine: EngineComparison) -> Iterator[str]:
    lines = engine_lines(engine) if engine.presence is Presence.BOTH else []
    said = [*(f"not compared: {words}" for words in engine.not_compared), *engine.remarks]
    if lines or said:
        yield f"### {cell(engine_name(engine))}"
        yield ""
    yield from (f"- {cell(words)}" for words in said)
    if said and lines:
        yield ""
    yield from table(_CHANGES, (_change(line) for line in lines))


def _change(line: Line) -> tuple[str, ...]:
    effect = f"**{line.effect}**" if line.effect in (Effect.WORSE, Effect.UNKNOWN) else str(line.effect)
    return (effect, cell(line.subject), cell(line.a), cell(line.b), cell(line.note))
