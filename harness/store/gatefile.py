"""gate.toml: what is gated, every bound with its reason.

schema = "enginegate/gate/1"
[defaults]                   # encoders, recipes, backends, targets, weights (of one configuration each: ARCH=WEIGHTS)
[evaluation]                 # rows; trained_rows (default: rows), for weights that have learnt something; reason
[policy.linear]              # severity, block_gemms_fp8, fused_attention, unfused_qdq, reason; attention_fp8, embedding_fp8 (default false)
[policy.linear.kept_fp16]    # convolution, embedding, attention, projection, pooling: why each stays in FP16
[policy.linear.quantized_alone]    # convolution: why its input may be quantized by an engine layer of its own
[checks]                     # name of a limit = {limit, reason}
[kept_fp32]                  # ONNX operator = why an engine may keep its numbers in FP32
[[bound]]                    # metric, one of floor | ceiling | equal, reason; encoders, recipes, backends
[[margin]]                   # metric, one of relative | absolute, reason; encoders, recipes, backends
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from harness.errors import BadGateFile, UsageError
from harness.records.policy import (
    BOUNDED,
    MARGINS,
    Bound,
    CheckLimits,
    Defaults,
    EvaluationRows,
    GatePolicy,
    Kept,
    KeptWide,
    Margin,
    NodeKind,
    RecipePolicy,
)
from harness.records.spec import EncoderSpec, Recipe, normalized_target
from harness.records.verdict import Direction, Severity
from harness.store.packaged import packaged

GATE_SCHEMA = "enginegate/gate/1"

_DEFAULTS = ("encoders", "recipes", "backends", "targets", "weights")
_OF_ALL_RECIPES = ("kept_fp32", "limits")  # parts of a recipe's policy that the file says once
_MARGINS = ("relative", "absolute")
_LINE = ("metric", "encoders", "recipes", "backends", "reason")
_EVERYWHERE = ("*",)
Choice = TypeVar("Choice", bound=StrEnum)
Line = TypeVar("Line", Bound, Margin)


def read_gate_file(path: Path, base: GatePolicy | None = None) -> GatePolicy:
    """Read a gate file.

    Args:
        path: the file.
        base: what holds where the file says nothing. Its bounds and margins come first, so that the file's refine them; a
            `[policy.NAME]` table replaces the base's of that recipe whole; a key of `[defaults]` replaces the base's of that name.

    Raises:
        BadGateFile: the file is absent, no TOML, or says something that cannot be meant; the message names file, table and key.
    """
    text = _text(path)
    file = _Table(str(path), _parsed(path, text))
    file.allow(("schema", "defaults", "evaluation", "policy", "checks", "kept_fp32", "bound", "margin"))
    if (schema := file.text("schema")) != GATE_SCHEMA:
        file.refuse(f"schema is {schema!r}; expected {GATE_SCHEMA!r}; upgrade enginegate if the file is newer, else correct it")
    bounds = [_bound(table) for table in _lines_of("bound", file, path, text)]
    margins = [_margin(table) for table in _lines_of("margin", file, path, text)]
    return GatePolicy(
        defaults=_defaults(file, base.defaults if base else None),
        evaluation_rows=_evaluation_rows(file, base.evaluation_rows if base else None),
        policies={**(base.policies if base else {}), **_policies(file.table("policy"))},
        bounds=(*(base.bounds if base else ()), *bounds),
        margins=(*(base.margins if base else ()), *margins),
        checks=_checks(file.table("checks"), base.checks if base else CheckLimits()),
        kept_fp32=_kept_wide(file.table("kept_fp32"), base.kept_fp32 if base else ()),
    )


def default_gate_file(base: Path) -> Path:
    """`gate.toml` in the folder `base` where it is present, else the one that comes with the distribution."""
    local = base / "gate.toml"
    return local if local.is_file() else packaged("gate.toml")


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of the file, with the place that errors name."""

    place: str
    values: Mapping[str, Any]

    def refuse(self, message: str, cause: Exception | None = None) -> NoReturn:
        raise BadGateFile(f"{self.place}: {message}") from cause

    def allow(self, keys: Collection[str]) -> None:
        for key in self.values:
            if key not in keys:
                self.refuse(f"has the unknown key {key!r}; expected {_one_of(keys)}{_meant(key, keys)}")

    def table(self, key: str) -> _Table:
        return _Table(f"{self.place}: [{key}]", self._typed(key, dict, "a table", {}))

    def tables(self, key: str) -> list[Any]:
        return self._typed(key, list, f"[[{key}]] tables", [])

    def text(self, key: str) -> str:
        text = self._typed(key, str, "a text in quotes")
        return text if text.strip() else self.refuse(f"{key} is empty; expected a text")

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        texts = self._typed(key, list, "a list of texts", None if default is None else list(default))
        for item in texts:
            if not isinstance(item, str) or not item.strip():
                self.refuse(f"{key} holds {item!r}; expected a list of texts in quotes")
        return tuple(texts)

    def whole(self, key: str, *, minimum: int, default: int | None = None) -> int:
        number = self._typed(key, int, "a whole number", default)
        return number if number >= minimum else self.refuse(f"{key} is {number}; expected a whole number of at least {minimum}")

    def number(self, key: str, default: float | None = None) -> float:
        number = float(self._typed(key, (int, float), "a number", default))
        if not math.isfinite(number):
            self.refuse(f"{key} is {number}; expected a finite number, since every comparison with NaN passes")
        return number

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        return self._typed(key, bool, "true or false", default)

    def choice(self, key: str, kind: type[Choice]) -> Choice:
        return self.member(key, self.text(key), kind)

    def member(self, key: str, name: str, kind: type[Choice]) -> Choice:
        if name not in set(kind):
            self.refuse(f"{key} names {name!r}; expected {_one_of(kind)}{_meant(name, kind)}")
        return kind(name)

    def _typed(self, key: str, kind: type | tuple[type, ...], wanted: str, default: Any = None) -> Any:
        if key not in self.values and default is not None:
            return default
        if key not in self.values:
            self.refuse(f"has no {key}; expected {wanted}; add {key} = ...")
        value = self.values[key]
        # In Python true is a number as well.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(f"{key} is {value!r}; expected {wanted}")
        return value


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadGateFile(f"{path}: cannot be read ({error.strerror}); expected a gate file; name one with --gate-file") from error
    except UnicodeDecodeError as error:
        raise BadGateFile(f"{path}: is no UTF-8 (byte {error.start}); expected TOML; save the file as UTF-8") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        # TOML allows CR LF; the parser wants it as the text files of Python give it.
        return tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        line = int(place.group(1)) if place else text.count("\n") + 1  # it says "at end of document" there
        raise BadGateFile(f"{path}:{line}: is no TOML ({error}); correct the line") from error


def _defaults(file: _Table, base: Defaults | None) -> Defaults:
    table = file.table("defaults")
    table.allow(_DEFAULTS)
    names = {key: table.texts(key, getattr(base, key, () if key == "weights" else None)) for key in _DEFAULTS}
    for key in ("encoders", "recipes", "backends"):
        if not names[key]:
            table.refuse(f"{key} is empty; expected at least one, since a gate that checks nothing passes")
    for recipe in names["recipes"]:
        table.member("recipes", recipe, Recipe)
    _each(table, "encoders", names["encoders"], EncoderSpec.parse)
    targets = _each(table, "targets", names["targets"], normalized_target)
    for weights in names["weights"]:
        if not all(weights.partition("=")):
            table.refuse(f"weights holds {weights!r}; expected ARCH=WEIGHTS, such as emoji-clip=noto")
    return Defaults(**{**names, "targets": tuple(targets)})


def _each(table: _Table, key: str, names: Iterable[str], parse: Callable[[str], Choice | Any]) -> list[Any]:
    try:
        return [parse(name) for name in names]
    except UsageError as error:
        table.refuse(f"{key}: {error}", error)


def _evaluation_rows(file: _Table, base: EvaluationRows | None) -> EvaluationRows:
    if "evaluation" not in file.values and base is not None:
        return base
    table = file.table("evaluation")
    table.allow(("rows", "trained_rows", "reason"))
    rows = table.whole("rows", minimum=1)
    table.text("reason")
    return EvaluationRows(seeded=rows, trained=table.whole("trained_rows", minimum=1, default=rows))


def _policies(tables: _Table) -> dict[str, RecipePolicy]:
    tables.allow(list(Recipe))
    return {name: _policy(_Table(f"{tables.place[:-1]}.{name}]", tables.table(name).values)) for name in tables.values}


def _policy(table: _Table) -> RecipePolicy:
    table.allow([field.name for field in fields(RecipePolicy) if field.name not in _OF_ALL_RECIPES])
    return RecipePolicy(
        severity=table.choice("severity", Severity),
        block_gemms_fp8=table.flag("block_gemms_fp8"),
        fused_attention=table.flag("fused_attention"),
        unfused_qdq=table.whole("unfused_qdq", minimum=0),
        reason=table.text("reason"),
        attention_fp8=table.flag("attention_fp8", default=False),  # files older than these keys promised none
        embedding_fp8=table.flag("embedding_fp8", default=False),
        kept_fp16=_kept(table, "kept_fp16", list(NodeKind)),
        quantized_alone=_kept(table, "quantized_alone", [NodeKind.CONVOLUTION]),
    )


def _kept(policy: _Table, key: str, kinds: list[NodeKind]) -> tuple[Kept, ...]:
    table = _Table(f"{policy.place[:-1]}.{key}]", policy.table(key).values)
    table.allow(kinds)
    return tuple(Kept(kind=kind, reason=table.text(kind)) for kind in kinds if kind in table.values)


def _kept_wide(table: _Table, base: tuple[KeptWide, ...]) -> tuple[KeptWide, ...]:
    """The base's operators, and those that the file adds."""
    return (*base, *(KeptWide(op_type=op_type, reason=table.text(op_type)) for op_type in table.values))


def _checks(table: _Table, base: CheckLimits) -> CheckLimits:
    """The base's limits, with those that the file gives in their place."""
    table.allow([field.name for field in fields(CheckLimits)])
    given: dict[str, float] = {}
    for name in table.values:
        line = _Table(f"{table.place[:-1]}.{name}]", table.table(name).values)
        line.allow(("limit", "reason"))
        line.text("reason")
        given[name] = line.number("limit")
        if given[name] < 0:
            line.refuse(f"limit is {given[name]:g}; expected at least 0")
    return replace(base, **given)


def _lines_of(kind: str, file: _Table, path: Path, text: str) -> Iterable[_Table]:
    """The `[[bound]]` or `[[margin]]` tables, each with its line, so that one of forty can be found."""
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
        yield _Table(f"{place} ({table.get('metric', 'no metric')})", table)


def _bound(table: _Table) -> Bound:
    direction = Direction(_only_one(table, list(Direction)))
    return _record(table, Bound, direction=direction, limit=table.number(direction), **_line(table, BOUNDED))


def _margin(table: _Table) -> Margin:
    kind = _only_one(table, _MARGINS)
    return _record(table, Margin, **{kind: table.number(kind)}, **_line(table, MARGINS))


def _only_one(table: _Table, keys: Collection[str]) -> str:
    table.allow((*_LINE, *keys))
    given = [key for key in keys if key in table.values]
    if len(given) != 1:
        found = " and ".join(given) or "no number"
        table.refuse(f"has {found}; expected exactly one of {', '.join(keys)}; keep one, or write two tables")
    return given[0]


def _line(table: _Table, metrics: Collection[str]) -> dict[str, Any]:
    """What bounds and margins have in common."""
    metric = table.text("metric")
    if metric not in metrics:  # nothing would ever read it, and a misspelt bound must not look like one that holds
        table.refuse(f"metric {metric!r} is unknown here; expected {_one_of(sorted(metrics))}{_meant(metric, metrics)}")
    patterns = {key: table.texts(key, _EVERYWHERE) for key in ("encoders", "recipes", "backends")}
    for key, given in patterns.items():
        if not given:
            table.refuse(f"{key} is empty, so that no engine is meant; expected at least one pattern; leave {key} out to mean all")
    for pattern in patterns["recipes"]:
        if not any(fnmatchcase(recipe, pattern) for recipe in Recipe):
            table.refuse(f"recipes holds {pattern!r}, which matches none of {', '.join(Recipe)}{_meant(pattern, Recipe)}")
    return {"metric": metric, "reason": table.text("reason"), **patterns}


def _record(table: _Table, kind: type[Line], **values: Any) -> Line:
    try:
        return kind(**values)
    except UsageError as error:
        table.refuse(str(error), error)


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(map(str, names)), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
