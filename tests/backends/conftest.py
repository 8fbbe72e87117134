"""Tiny graphs that real compilers take, and specs to build them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.records.artifacts import EngineArtifact
from harness.records.spec import BatchProfile, EncoderSpec, EngineSpec, Recipe

MakeSpec = Callable[..., EngineSpec]
SIDE = 4  # pictures of 3 x 4 x 4: 48 values a row
FEATURES = 3 * SIDE * SIDE
DIM = 32


@pytest.fixture
def make_spec() -> MakeSpec:
    """Makes an `EngineSpec` for a tower of ViT-B-32, batch 1/2/4."""

    def make(backend: str, recipe: str = "linear", target: str | None = None, tower: str = "image") -> EngineSpec:
        return EngineSpec(
            encoder=EncoderSpec.parse(f"ViT-B-32/{tower}"),
            recipe=Recipe(recipe),
            backend=backend,
            target=target,
            batch=BatchProfile(minimum=1, optimum=2, maximum=4),
        )

    return make


@pytest.fixture
def make_engine(make_spec: MakeSpec) -> Callable[..., EngineArtifact]:
    """Makes an `EngineArtifact` around an engine file that needs no provenance."""

    def make(backend: str, path: Path | None, **spec: str) -> EngineArtifact:
        return EngineArtifact(
            spec=make_spec(backend, **spec),
            source=None,
            backend_version="any",
            path=path,
            sha256=None,
            plan_bytes=None,
            build_seconds=0.0,
        )

    return make


@pytest.fixture
def fp8_onnx(tmp_path: Path) -> Path:
    """One Linear layer over flat pictures, activations and weights in FP8."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(-400, 400, (FEATURES, DIM)).astype(ml_dtypes.float8_e4m3fn)
    constants = [
        numpy_helper.from_array(np.array(0.02, np.float16), "in_scale"),
        numpy_helper.from_array(np.array(0.001, np.float16), "weight_scale"),
        helper.make_tensor("weights", TensorProto.FLOAT8E4M3FN, [FEATURES, DIM], weights.tobytes(), raw=True),
        helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["flat", "in_scale", "zero"], ["q"], name="/fc/quantize"),
        helper.make_node("DequantizeLinear", ["q", "in_scale", "zero"], ["dq"], name="/fc/dequantize"),
        helper.make_node("DequantizeLinear", ["weights", "weight_scale", "zero"], ["wide"], name="/fc/weights"),
        helper.make_node("MatMul", ["dq", "wide"], ["embedding"], name="/fc/MatMul"),
    ]
    return _saved(tmp_path / "fp8.onnx", nodes, constants)


@pytest.fixture
def fp16_onnx(tmp_path: Path) -> Path:
    """One Linear layer over flat pictures, in FP16."""
    weights = np.random.default_rng(0).uniform(-0.1, 0.1, (FEATURES, DIM)).astype(np.float16)
    nodes = [helper.make_node("MatMul", ["flat", "weights"], ["embedding"], name="/fc/MatMul")]
    return _saved(tmp_path / "fp16.onnx", nodes, [numpy_helper.from_array(weights, "weights")])


@pytest.fixture
def vendor_onnx(fp8_onnx: Path, tmp_path: Path) -> Path:
    """The FP8 graph as Model Optimizer's exporter leaves it: quantization nodes in a domain of its own."""
    model = onnx.load(fp8_onnx)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain, node.op_type = "trt", f"TRT_FP8{node.op_type}"
            del node.input[2:]
    model.opset_import.append(helper.make_opsetid("trt", 1))
    path = tmp_path / "vendor.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def pictures() -> np.ndarray:
    """float16 [3, 3, 4, 4]."""
    return np.random.default_rng(1).standard_normal((3, 3, SIDE, SIDE)).astype(np.float16)


def _saved(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> Path:
    shape = numpy_helper.from_array(np.array([-1, FEATURES]), "flat_shape")
    flatten = helper.make_node("Reshape", ["image", "flat_shape"], ["flat"], name="/flatten")
    graph = helper.make_graph(
        [flatten, *nodes],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT16, ["batch", DIM])],
        [shape, *constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
