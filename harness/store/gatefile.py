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
[[margin]]                   # metric, one of relative | absolute, reason; encoders, recipes, backends, machine_classes
                             # of latency_ratio also: session_spread, processes, quartets; or gated = false in place of the number
                             # of bytes also: same_graph = true: the margin holds for the very graph that was approved, too
[blobs]                      # folder: where engines lie that latency baselines name, from here if it is relative
[[waiver]]                   # metric, ceiling, reason, owner, expires (a day, its last); encoders, recipes, backends
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness.errors import BadGateFile, UsageError
from harness.records.policy import (
    CheckLimits,
    Defaults,
    EvaluationRows,
    GatePolicy,
    Kept,
    KeptWide,
    NodeKind,
    RecipePolicy,
)
from harness.records.spec import EncoderSpec, Recipe, normalized_target
from harness.records.verdict import Severity
from harness.store.gate_lines import bound, lines_of, margin, waiver
from harness.store.gate_table import GateTable
from harness.store.packaged import packaged

GATE_SCHEMA = "enginegate/gate/1"

_DEFAULTS = ("encoders", "recipes", "backends", "targets", "weights")
_OF_ALL_RECIPES = ("kept_fp32", "limits")  # parts of a recipe's policy that the file says once
_TABLES = ("schema", "defaults", "evaluation", "policy", "checks", "kept_fp32", "blobs", "bound", "margin", "waiver")


def read_gate_file(path: Path, base: GatePolicy | None = None) -> GatePolicy:
    """Read a gate file.

    Args:
        path: the file.
        base: what holds where the file says nothing. Its bounds, margins and waivers come first, so that the file's refine them; a
            `[policy.NAME]` table replaces the base's of that recipe whole; a key of `[defaults]` replaces the base's of that name.

    Raises:
        BadGateFile: the file is absent, no TOML, or says something that cannot be meant; the message names file, table and key.
    """
    text = _text(path)
    file = GateTable(str(path), _parsed(path, text))
    file.allow(_TABLES)
    if (schema := file.text("schema")) != GATE_SCHEMA:
        file.refuse(f"schema is {schema!r}; expected {GATE_SCHEMA!r}; upgrade enginegate if the file is newer, else correct it")
    bounds = [bound(table) for table in lines_of("bound", file, path, text)]
    margins = [margin(table) for table in lines_of("margin", file, path, text)]
    waivers = [waiver(table) for table in lines_of("waiver", file, path, text)]
    return GatePolicy(
        defaults=_defaults(file, base.defaults if base else None),
        evaluation_rows=_evaluation_rows(file, base.evaluation_rows if base else None),
        policies={**(base.policies if base else {}), **_policies(file.table("policy"))},
        bounds=(*(base.bounds if base else ()), *bounds),
        margins=(*(base.margins if base else ()), *margins),
        checks=_checks(file.table("checks"), base.checks if base else CheckLimits()),
        kept_fp32=_kept_wide(file.table("kept_fp32"), base.kept_fp32 if base else ()),
        waivers=(*(base.waivers if base else ()), *waivers),
        blobs=_blobs(file.table("blobs"), path) or (base.blobs if base else None),
    )


def default_gate_file(base: Path) -> Path:
    """`gate.toml` in the folder `base` where it is present, else the one that comes with the distribution."""
    local = base / "gate.toml"
    return local if local.is_file() else packaged("gate.toml")


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


def _defaults(file: GateTable, base: Defaults | None) -> Defaults:
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


def _each(table: GateTable, key: str, names: Iterable[str], parse: Callable[[str], Any]) -> list[Any]:
    try:
        return [parse(name) for name in names]
    except UsageError as error:
        table.refuse(f"{key}: {error}", error)


def _evaluation_rows(file: GateTable, base: EvaluationRows | None) -> EvaluationRows:
    if "evaluation" not in file.values and base is not None:
        return base
    table = file.table("evaluation")
    table.allow(("rows", "trained_rows", "reason"))
    rows = table.whole("rows", minimum=1)
    table.text("reason")
    return EvaluationRows(seeded=rows, trained=table.whole("trained_rows", minimum=1, default=rows))


def _policies(tables: GateTable) -> dict[str, RecipePolicy]:
    tables.allow(list(Recipe))
    return {name: _policy(GateTable(f"{tables.place[:-1]}.{name}]", tables.table(name).values)) for name in tables.values}


def _policy(table: GateTable) -> RecipePolicy:
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


def _kept(policy: GateTable, key: str, kinds: list[NodeKind]) -> tuple[Kept, ...]:
    table = GateTable(f"{policy.place[:-1]}.{key}]", policy.table(key).values)
    table.allow(kinds)
    return tuple(Kept(kind=kind, reason=table.text(kind)) for kind in kinds if kind in table.values)


def _kept_wide(table: GateTable, base: tuple[KeptWide, ...]) -> tuple[KeptWide, ...]:
    """The base's operators, and those that the file adds."""
    return (*base, *(KeptWide(op_type=op_type, reason=table.text(op_type)) for op_type in table.values))


def _blobs(table: GateTable, path: Path) -> Path | None:
    """The folder, from the gate file's own if it is relative: who runs the gate may stand anywhere."""
    table.allow(("folder",))
    return path.parent / Path(table.text("folder")).expanduser() if table.values else None


def _checks(table: GateTable, base: CheckLimits) -> CheckLimits:
    """The base's limits, with those that the file gives in their place."""
    table.allow([field.name for field in fields(CheckLimits)])
    given: dict[str, float] = {}
    for name in table.values:
        line = GateTable(f"{table.place[:-1]}.{name}]", table.table(name).values)
        line.allow(("limit", "reason"))
        line.text("reason")
        given[name] = line.number("limit")
        if given[name] < 0:
            line.refuse(f"limit is {given[name]:g}; expected at least 0")
    return replace(base, **given)
