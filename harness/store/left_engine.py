"""Reads what `enginegate build --out DIR` leaves: an engine file, and beside it the record that says what it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UnusableEngine
from harness.records.artifacts import EngineArtifact
from harness.records.run import EngineRow
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.store.codec import from_plain, read_json, require_schema

ENGINE_SCHEMA = "enginegate/engine/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """The record beside an engine file: its name, its sha256, and the engine as run records list it."""

    file: str
    sha256: str
    engine: EngineRow
    schema: Literal["enginegate/engine/1"] = "enginegate/engine/1"


def read_left_engine(path: Path) -> EngineArtifact:
    """The engine at `path`, once its content is known to be what its record says.

    Raises:
        UnusableEngine: the file or its record is missing or unreadable, or the file's digest is another one.
    """
    record_path = path.with_suffix(".json")
    record = _record(path, record_path)
    digest = _sha256(path)
    if digest != record.sha256:
        raise UnusableEngine(
            f"{path} has sha256 {digest[:16]}…; {record_path.name} says {record.sha256[:16]}…; it was altered: build it again"
        )
    row = record.engine
    spec = EngineSpec(
        encoder=EncoderSpec.parse(row.encoder, weights=row.weights),
        recipe=_recipe(row.recipe, record_path),
        backend=row.backend,
        target=row.target,
        batch=BatchProfile.parse(row.batch),
        options=row.options,
    )
    return EngineArtifact(
        spec=spec,
        source=None,
        backend_version=row.backend_version,
        path=path.absolute(),
        sha256=record.sha256,
        plan_bytes=row.plan_bytes,
        build_seconds=row.build_seconds or 0.0,
        device=row.device,
    )


def left_graph_sha256(path: Path) -> str | None:
    """What the record beside an engine says of the ONNX file that it was built from.

    Raises:
        UnusableEngine: the file or its record is missing or unreadable.
    """
    return _record(path, path.with_suffix(".json")).engine.onnx_sha256


def _recipe(name: str, record_path: Path) -> Recipe:
    try:
        return Recipe(name)
    except ValueError as error:
        raise UnusableEngine(f"{record_path}: recipe {name!r} is unknown; expected one of {', '.join(Recipe)}") from error


def _record(path: Path, record_path: Path) -> EngineRecord:
    if not path.is_file():
        raise UnusableEngine(f"{path} is no file; expected an engine that `enginegate build --out DIR` left")
    if path == record_path:
        raise UnusableEngine(f"{path} is a record; name the engine file beside it, which ends in .onnx or .engine")
    try:
        data = record_path.read_bytes()
    except OSError as error:
        raise UnusableEngine(
            f"{path.name} has no record beside it: cannot read {record_path} ({error.strerror}); "
            "expected what `enginegate build --out DIR` left; keep the two files together"
        ) from error
    plain = read_json(data, origin=str(record_path), refuse=UnusableEngine)
    require_schema(plain, ENGINE_SCHEMA, origin=str(record_path), refuse=UnusableEngine)
    return from_plain(EngineRecord, plain, origin=str(record_path), refuse=UnusableEngine)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
