"""Real engines as evidence: the layer tables, memory and graphs of ViT-B-32 in tests/helpers/engines, or of any build."""

from __future__ import annotations

import gzip
import tempfile
from functools import cache
from pathlib import Path

from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_checks.moves import moving_rows
from harness.judge.structure import GraphView
from harness.measure.layers import read_layer_table
from harness.measure.memory import read_build_memory
from harness.measure.onnx_graph import read_onnx_graph
from harness.records.policy import RecipePolicy
from harness.store.gatefile import read_gate_file
from tests.helpers.gates import REPOSITORY
from tests.helpers.real_exports import ENGINES, real_export

FLOORS = {"fp16": 0.0, "linear": 0.95, "attention": 0.97}  # of the FLOPs in FP8, as gate.toml has them


@cache
def promise(recipe: str) -> RecipePolicy:
    """What the packaged gate.toml says of a recipe."""
    return read_gate_file(REPOSITORY / "gate.toml").policy(recipe)


@cache
def stored_engine(tower: str, recipe: str) -> EngineEvidence:
    """A clean engine of tests/helpers/engines, approved as it is; not to be changed."""
    with tempfile.TemporaryDirectory() as folder:
        reference = None if recipe == "fp16" else _unpacked(Path(folder), f"ViT-B-32-{tower}-fp16-SM89.log")
        onnx = real_export(f"{tower}-{recipe}", Path(folder))
        return engine_evidence(onnx, _unpacked(Path(folder), f"ViT-B-32-{tower}-{recipe}-SM89.log"), recipe, reference)


def engine_evidence(onnx: Path, log: Path, recipe: str, reference: Path | None) -> EngineEvidence:
    """A build as evidence, with as many moving layers approved as it has."""
    seen = EngineEvidence(view=GraphView(read_onnx_graph(onnx)), table=read_layer_table(log))
    return EngineEvidence(
        view=seen.view,
        table=seen.table,
        flop_floor=FLOORS[recipe],
        reference=read_layer_table(reference) if reference else None,
        memory=read_build_memory(log, 1),
        approved_moves=len(moving_rows(seen)),
    )


def _unpacked(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.decompress((ENGINES / f"{name}.gz").read_bytes()))
    return path
