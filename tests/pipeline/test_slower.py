"""A latency gate that failed names the layers that got slower, and nothing on the way can change its verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.pipeline import slower
from harness.pipeline.slower import with_slower_layers
from harness.records.artifacts import EngineArtifact, OnnxArtifact
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe
from harness.records.verdict import Direction, Judgement, Status
from tests.helpers.left_engines import fake_engine
from tests.helpers.slower_onnx import slower_onnx

FAILED = Judgement(
    metric="latency_ratio", observed=2.0, bound=1.0, unit="", direction=Direction.CEILING, n=4, status=Status.FAIL, reason="slower"
)
WIDTH = 48


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """Two products, of which the first has a name that people know."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH)).astype(np.float16), name) for name in ("one", "two")]
    nodes = [
        helper.make_node("MatMul", ["image", "one"], ["hidden"], name="/first/MatMul"),
        helper.make_node("MatMul", ["hidden", "two"], ["embedding"], name="/second/MatMul"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", WIDTH]) for name in ("image", "embedding")]
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", ports[:1], ports[1:], weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "encoder.onnx")
    return tmp_path / "encoder.onnx"


def engine_of(path: Path, recipe: Recipe) -> EngineArtifact:
    batch = BatchProfile(minimum=4, optimum=4, maximum=4)
    encoder = EncoderSpec.parse("tiny/image")
    source = OnnxArtifact(encoder=encoder, recipe=recipe, origin="seeded:0", path=path, sha256="", nbytes=1, opset=20)
    spec = EngineSpec(encoder=encoder, recipe=recipe, backend="onnxruntime", batch=batch)
    return EngineArtifact(spec=spec, source=source, backend_version="any", path=path, sha256=None, plan_bytes=None, build_seconds=0.0)


def test_the_layers_of_a_real_slow_down_are_named(encoder: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.onnx"
    slower_onnx(encoder, slow, products=200)
    pair = (engine_of(encoder, Recipe.FP16), engine_of(slow, Recipe.LINEAR))
    judged = with_slower_layers(FAILED, pair, rows=4, threads=1)
    assert judged.status is Status.FAIL
    told = judged.reason.removeprefix("slower; next to tiny/image-fp16-onnxruntime it takes longer in ")
    assert told != judged.reason
    assert told.count(" -> ") == 3
    # The chain and what leads into it; ONNX Runtime may merge the last product with the scaling behind it.
    count = int(re.match(r"MatMul_# \(x(\d+)\): ", told)[1])
    assert 200 <= count <= 202
    assert "a profiling run of its own, ONNX Runtime's profiler" in told


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.FAIL])
def test_only_a_failure_is_looked_into(status: Status, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slower, "profile_engines", lambda *_: pytest.fail("profiled"))
    judgement = replace(FAILED, status=status)
    assert with_slower_layers(judgement, (engine_of(encoder, Recipe.FP16),) * 2, rows=4, threads=1) is judgement


def test_a_backend_without_layer_times_has_nothing_to_add() -> None:
    assert with_slower_layers(FAILED, (fake_engine(), fake_engine()), rows=2, threads=1) is FAILED


def test_what_breaks_on_the_way_is_told_and_changes_no_status(encoder: Path, tmp_path: Path) -> None:
    pair = (engine_of(encoder, Recipe.FP16), engine_of(tmp_path / "gone.onnx", Recipe.LINEAR))
    judged = with_slower_layers(FAILED, pair, rows=4, threads=1)
    assert judged.status is Status.FAIL
    assert "which layers got slower could not be found" in judged.reason
