"""What two runs do unlike, as lines that text and Markdown share. Nodes that change alike in every block are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.records.comparison import (
    Aspect,
    Comparison,
    ComparisonFinding,
    Effect,
    EngineComparison,
    FigureChange,
    NodeChange,
    StatusChange,
)
from harness.records.verdict import Severity, Status
from harness.report.words import plain

_WORST_FIRST = (Effect.WORSE, Effect.UNKNOWN, Effect.BETTER, Effect.NEUTRAL)
OUTCOMES = {
    Status.PASS: "B is not worse than A",
    Status.FAIL: "B is worse than A",
    Status.INCONCLUSIVE: "not everything could be compared",
    Status.INVALID: "B was not measured soundly",
}
_DIGITS = re.compile(r"\d+")
_SHOWN_PARTNERS = 3
_DECIMALS = 4
_MOST_DECIMALS = 12
_QDQ = ("QuantizeLinear", "DequantizeLinear")  # with or without the vendor's prefix


@dataclass(frozen=True, slots=True)
class Line:
    """One change: what it means, what changed, from what to what, and what to know about it."""

    effect: Effect
    subject: str
    a: str
    b: str
    note: str = ""


def engine_lines(engine: EngineComparison) -> list[Line]:
    """All changes of one engine, the worst first."""
    lines = [*map(_figure, engine.figures), *_gates(engine.statuses), *_nodes(engine.nodes)]
    return sorted(lines, key=lambda line: _WORST_FIRST.index(line.effect))


def gating_places(record: Comparison) -> list[tuple[str, str]]:
    """Status and engine of what gates, each with the first message of its check and how many more there are."""
    places: dict[tuple[str, str], list[str]] = {}
    for finding in record.findings:
        if finding.severity is Severity.GATE:
            places.setdefault((f"{finding.status} {engine_name(finding)}", finding.check), []).append(plain(finding.message))
    return [
        (place, f"{check} {messages[0]}" + (f" (and {len(messages) - 1} more such places)" if len(messages) > 1 else ""))
        for (place, check), messages in places.items()
    ]


def engine_name(engine: EngineComparison | ComparisonFinding) -> str:
    """`ViT-B-32/image linear tensorrt_rtx/SM89`, or `ViT-B-32/image linear, exported graph`."""
    compiler = "/".join(filter(None, (engine.backend, engine.target)))
    return plain(f"{engine.encoder} {engine.recipe} {compiler}" if compiler else f"{engine.encoder} {engine.recipe}, exported graph")


def versions(engine: EngineComparison) -> str:
    """`1.6.1.120 -> 1.7.1.116`, or the one that both have."""
    return arrow(*(side.backend_version if side else None for side in (engine.a, engine.b)))


def arrow(a: object, b: object) -> str:
    """Both sides of what differs, or what they agree on; `-` for what is not known."""
    first, second = ("-" if side is None else f"{side:,}" if isinstance(side, int) else str(side) for side in (a, b))
    return first if first == second else f"{first} -> {second}"


def count(engine: EngineComparison, effect: Effect) -> int:
    """How many figures, gates and nodes changed so."""
    return sum(change.effect is effect for change in (*engine.figures, *engine.statuses, *engine.nodes))


def _figure(change: FigureChange) -> Line:
    a, b = _numbers(change)
    share = f"{change.b / change.a - 1:+.3%}, " if change.a and change.b is not None and change.unit in ("bytes", "") else ""
    return Line(change.effect, change.metric, a, f"{b} {change.unit}".rstrip(), share + change.reason)


def _numbers(change: FigureChange) -> tuple[str, str]:
    """Both figures, with as many decimals as it takes to see that they differ."""
    whole = all(value is None or float(value).is_integer() for value in (change.a, change.b))
    decimals = 0 if whole or change.unit == "bytes" else _DECIMALS
    while True:
        a, b = ("-" if value is None else f"{value:,.{decimals}f}" for value in (change.a, change.b))
        if a != b or decimals >= _MOST_DECIMALS:
            return a, b
        decimals += 1


def _gates(changes: Iterable[StatusChange]) -> Iterator[Line]:
    """A line for each pair of statuses, with all gates that went that way."""
    groups: dict[tuple[Effect, str, str], list[str]] = {}
    for change in changes:
        a, b = ("not judged" if status is None else str(status) for status in (change.a, change.b))
        groups.setdefault((change.effect, a, b), []).append(change.metric)
    for (effect, a, b), metrics in groups.items():
        yield Line(effect, f"gate{'s' if len(metrics) > 1 else ''} {', '.join(metrics)}", a, b)


# -- nodes -----------------------------------------------------------------------------------------------------------------------


def _nodes(changes: Iterable[NodeChange]) -> Iterator[Line]:
    groups: dict[tuple[object, ...], list[NodeChange]] = {}
    for change in changes:
        if change.aspect is Aspect.FUSION and (change.op_type or "").endswith(_QDQ):
            continue  # the other side of what is said of the nodes around it
        texts = (change.node, change.a, change.b, *change.lost, *change.gained)
        key = (change.aspect, change.effect, len(change.lost), *(_DIGITS.sub("#", text) for text in texts))
        groups.setdefault(key, []).append(change)
    for group in groups.values():
        yield _node_line(group)


def _node_line(group: Sequence[NodeChange]) -> Line:
    first = group[0]
    count = f" ({len(group)} nodes)" if len(group) > 1 else ""
    subject = f"{_common([change.node for change in group])}{count}"
    if first.aspect is not Aspect.FUSION:
        return Line(
            first.effect, f"{subject} {first.aspect}", _common([change.a for change in group]), _common([change.b for change in group])
        )
    folder = _shared_folder([first.node, *first.lost, *first.gained])
    lost = _partners([change.lost for change in group], folder, "no longer with")
    gained = _partners([change.gained for change in group], folder, "now with")
    return Line(first.effect, f"{subject} {first.aspect}", "", "; ".join(filter(None, (gained, lost))))


def _partners(all_names: Sequence[tuple[str, ...]], folder: int, words: str) -> str:
    """The partners' names without the folders that all of them share with the node."""
    if not all_names[0]:
        return ""
    names = ["/".join(_common(list(names)).split("/")[folder:]) for names in zip(*all_names, strict=True)]
    more = f" and {len(names) - _SHOWN_PARTNERS} more" if len(names) > _SHOWN_PARTNERS else ""
    return f"{words} {', '.join(names[:_SHOWN_PARTNERS])}{more}"


def _shared_folder(names: Sequence[str]) -> int:
    """How many leading parts of these paths are the same folders."""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    return next((index for index, parts in enumerate(folders) if len(set(parts)) > 1), min(name.count("/") for name in names))


def _common(texts: Sequence[str]) -> str:
    """One text for several that differ in numbers only: these become `*`."""
    numbers = zip(*(_DIGITS.findall(text) for text in texts), strict=True)
    kept = iter([found[0] if len(set(found)) == 1 else "*" for found in numbers])
    return plain(_DIGITS.sub(lambda _: next(kept), texts[0]))
