"""Two products with names, as an engine of ONNX Runtime that a maker has made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.records.artifacts import EngineArtifact, OnnxArtifact
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe

WIDTH = 48


def write_two_products(path: Path) -> Path:
    """`/first/MatMul` and `/second/MatMul`, in FP16."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH)).astype(np.float16), name) for name in ("one", "two")]
    nodes = [
        helper.make_node("MatMul", ["image", "one"], ["hidden"], name="/first/MatMul"),
        helper.make_node("MatMul", ["hidden", "two"], ["embedding"], name="/second/MatMul"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", WIDTH]) for name in ("image", "embedding")]
    graph = helper.make_graph(nodes, "tiny", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def engine_of(path: Path, recipe: Recipe) -> EngineArtifact:
    """The ONNX file at `path` as an engine, whose source it is too."""
    encoder = EncoderSpec.parse("tiny/image")
    source = OnnxArtifact(encoder=encoder, recipe=recipe, origin="seeded:0", path=path, sha256="", nbytes=1, opset=20)
    spec = EngineSpec(encoder=encoder, recipe=recipe, backend="onnxruntime", batch=BatchProfile(minimum=4, optimum=4, maximum=4))
    return EngineArtifact(spec=spec, source=source, backend_version="any", path=path, sha256=None, plan_bytes=None, build_seconds=0.0)
