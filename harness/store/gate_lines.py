"""The lines of gate.toml: `[[bound]]`, `[[margin]]` and `[[waiver]]`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, cast

from harness.errors import BadGateFile, UsageError
from harness.records.gate_lines import BOUNDED, MARGINS, MAY_BE_LEFT_OUT, TIMED, WAIVABLE, Bound, Margin, Waiver
from harness.records.spec import Recipe
from harness.records.verdict import Direction
from harness.store.gate_table import GateTable, meant, one_of

_MARGINS = ("relative", "absolute")
_UNGATED = "gated"
_BYTES, _SAME_GRAPH = "_bytes", "same_graph"
_TIMING = ("session_spread", "processes", "quartets")
_LINE = ("metric", "encoders", "recipes", "backends", "reason")
_WAIVER = ("ceiling", "owner", "expires")
_EVERYWHERE = ("*",)
Line = TypeVar("Line", Bound, Margin, Waiver)


def lines_of(kind: str, file: GateTable, path: Path, text: str) -> Iterable[GateTable]:
    """The `[[bound]]`, `[[margin]]` or `[[waiver]]` tables, each with its line, so that one of forty can be found."""
    values = file.tables(kind)
    headers = re.finditer(rf"^\s*\[\[\s*{kind}\s*\]\]", text, re.MULTILINE)
    lines = [text.count("\n", 0, header.end()) + 1 for header in headers]
    if len(lines) != len(values):  # written inline, or quoted in a text: then the number alone says which
        lines = []
    for index, value in enumerate(values):
        place = f"{path}:{lines[index]}: {kind} {index + 1}" if lines else f"{path}: {kind} {index + 1}"
        if not isinstance(value, dict):
            raise BadGateFile(f"{place} is {value!r}; expected a [[{kind}]] table")
        table = cast("dict[str, Any]", value)
        yield GateTable(f"{place} ({table.get('metric', 'no metric')})", table)


def bound(table: GateTable) -> Bound:
    """The line as a record, or BadGateFile with its place; likewise the next two."""
    direction = Direction(_only_one(table, list(Direction)))
    return _record(table, Bound, direction=direction, limit=table.number(direction), **_line(table, BOUNDED))


def margin(table: GateTable) -> Margin:
    metric = table.values.get("metric")
    sizes = (*_MARGINS, _UNGATED) if metric in MAY_BE_LEFT_OUT else _MARGINS
    of_bytes = isinstance(metric, str) and metric.endswith(_BYTES)
    kind = _only_one(table, sizes, also=("machine_classes", *(_TIMING if metric in TIMED else ()), *((_SAME_GRAPH,) if of_bytes else ())))
    size = {_UNGATED: table.flag(_UNGATED)} if kind == _UNGATED else {kind: table.number(kind)}
    if size.get(_UNGATED) is True:
        table.refuse("says gated = true, which every line is; expected relative = ..., or gated = false")
    classes = _patterns(table, "machine_classes")
    given = {**size, **_timing(table), **({_SAME_GRAPH: table.flag(_SAME_GRAPH)} if _SAME_GRAPH in table.values else {})}
    return _record(table, Margin, machine_classes=classes, **given, **_line(table, MARGINS))


def waiver(table: GateTable) -> Waiver:
    table.allow((*_LINE, *_WAIVER))
    return _record(
        table, Waiver, ceiling=table.number("ceiling"), owner=table.text("owner"), expires=table.day("expires"), **_line(table, WAIVABLE)
    )


def _timing(table: GateTable) -> dict[str, Any]:
    """How a line says that its metric is timed, without what it leaves to the defaults."""
    given: dict[str, Any] = {key: table.whole(key, minimum=1) for key in ("processes", "quartets") if key in table.values}
    return given | ({"session_spread": table.number("session_spread")} if "session_spread" in table.values else {})


def _only_one(table: GateTable, keys: Collection[str], also: Collection[str] = ()) -> str:
    table.allow((*_LINE, *keys, *also))
    given = [key for key in keys if key in table.values]
    if len(given) != 1:
        found = " and ".join(given) or "no number"
        table.refuse(f"has {found}; expected exactly one of {', '.join(keys)}; keep one, or write two tables")
    return given[0]


def _line(table: GateTable, metrics: Collection[str]) -> dict[str, Any]:
    """What all lines have in common."""
    metric = table.text("metric")
    if metric not in metrics:  # nothing would ever read it, and a misspelt bound must not look like one that holds
        table.refuse(f"metric {metric!r} is unknown here; expected {one_of(sorted(metrics))}{meant(metric, metrics)}")
    patterns = {key: _patterns(table, key) for key in ("encoders", "recipes", "backends")}
    for pattern in patterns["recipes"]:
        if not any(fnmatchcase(recipe, pattern) for recipe in Recipe):
            table.refuse(f"recipes holds {pattern!r}, which matches none of {', '.join(Recipe)}{meant(pattern, Recipe)}")
    return {"metric": metric, "reason": table.text("reason"), **patterns}


def _patterns(table: GateTable, key: str) -> tuple[str, ...]:
    given = table.texts(key, _EVERYWHERE)
    return given or table.refuse(f"{key} is empty, so that no engine is meant; expected at least one pattern; leave {key} out to mean all")


def _record(table: GateTable, kind: type[Line], **values: Any) -> Line:
    try:
        return kind(**values)
    except UsageError as error:
        table.refuse(str(error), error)
