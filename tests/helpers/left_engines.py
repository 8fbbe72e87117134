"""Engine files as `enginegate build --out` leaves them, without building any."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from harness.records.artifacts import EngineArtifact
from harness.records.run import EngineRow
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.store.codec import to_json
from harness.store.left_engine import EngineRecord

BATCH = BatchProfile(minimum=1, optimum=2, maximum=4)


def fake_engine(*, tower: str = "image", backend: str = "fake", recipe: Recipe = Recipe.FP16) -> EngineArtifact:
    spec = EngineSpec(encoder=EncoderSpec.parse(f"tiny/{tower}"), recipe=recipe, backend=backend, batch=BATCH)
    return EngineArtifact(
        spec=spec, source=None, backend_version="1", path=Path("nowhere.onnx"), sha256="0" * 64, plan_bytes=1, build_seconds=0.0
    )


def leave(folder: Path, name: str = "engine", *, content: bytes = b"an engine", **fields: object) -> Path:
    """An engine file of the fake backend with its record beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    row = EngineRow(
        encoder="tiny/image",
        recipe="fp16",
        backend="fake",
        backend_version="1",
        target=None,
        batch=str(BATCH),
        weights="seeded:0",
        weights_bytes=None,
        plan_bytes=len(content),
        activation_bytes=None,
        onnx_bytes=None,
        onnx_sha256=None,
        build_seconds=0.0,
        cache="miss",
        layer_table=None,
    )
    record = EngineRecord(file=path.name, sha256=hashlib.sha256(content).hexdigest(), engine=replace(row, **fields))
    path.with_suffix(".json").write_bytes(to_json(record))
    return path
