"""Measures how fast TensorRT multiplies two large matrices on the GPU that is here: the rate that no product of an encoder can pass.

The graph is one MatMul, built as encoders are. Its time is its own layer's, by the profiler, so that rounding the activations to FP8 before
it does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from harness.backends._cuda_session import TensorRtSession
from harness.backends._nvinfer import build_plan
from harness.need import need
from harness.records.spec import BatchProfile

SIDE = 8192
_LAUNCHES = 20
_LARGEST_CODE = 0x58  # of E4M3: 16; the products of so many terms stay below the largest half


def product_tflops(trt: ModuleType, folder: Path, load: Callable[[Path], Any], device_uuid: str, *, fp8: bool, side: int = SIDE) -> float:
    """10^12 operations a second of the fastest of 20 launches.

    Args:
        trt: the vendor's module.
        folder: for the graph, the log and the plan.
        load: makes an engine of a plan file.
        fp8: E4M3 by E4M3, written in half precision; else FP16 by FP16.
        side: rows and columns of both matrices.

    Raises:
        BuildFailed, OutOfDeviceMemory, InvalidMeasurement: what builds and launches of encoders raise.
    """
    batch = BatchProfile(minimum=side, optimum=side, maximum=side)
    kind = "fp8" if fp8 else "fp16"
    source, plan = folder / f"product-{kind}.onnx", folder / f"product-{kind}.engine"
    write_product(source, side, fp8=fp8)
    with plan.open("wb") as file:
        file.write(build_plan(trt, source, batch, folder / f"product-{kind}.log", lambda config: None).content)
    session = TensorRtSession(trt, load(plan), batch, device_uuid)
    try:
        rows = np.random.default_rng(0).standard_normal((side, side), np.float32).astype(np.float16)
        told = session.profile(session.upload({"rows": rows}), 2 * _LAUNCHES).launches[_LAUNCHES:]
    finally:
        session.close()
    return 2 * side**3 / min(max(ms for _, ms in launch) for launch in told) / 1e9


def write_product(path: Path, side: int, *, fp8: bool) -> None:
    """Write an ONNX file of one product of its input, [side, side], with weights."""
    onnx = need("onnx", extra=None, to="measure how fast matrices are multiplied")
    helper, types = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    half = helper.make_tensor_value_info("rows", types.FLOAT16, [side, side])
    out = helper.make_tensor_value_info("product", types.FLOAT16, [side, side])
    if fp8:
        codes = rng.integers(0, _LARGEST_CODE, (side, side), np.uint8)
        constants = [
            helper.make_tensor("scale", types.FLOAT16, [], np.float16(0.02).tobytes(), raw=True),
            helper.make_tensor("zero", types.FLOAT8E4M3FN, [], b"\0", raw=True),
            helper.make_tensor("weights", types.FLOAT8E4M3FN, [side, side], codes.tobytes(), raw=True),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["rows", "scale", "zero"], ["narrow"], name="quantize"),
            helper.make_node("DequantizeLinear", ["narrow", "scale", "zero"], ["wide"], name="dequantize"),
            helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["wide_weights"], name="widen"),
            helper.make_node("MatMul", ["wide", "wide_weights"], ["product"], name="product"),
        ]
    else:
        numbers = rng.uniform(-0.1, 0.1, (side, side)).astype(np.float16)
        constants = [helper.make_tensor("weights", types.FLOAT16, [side, side], numbers.tobytes(), raw=True)]
        nodes = [helper.make_node("MatMul", ["rows", "weights"], ["product"], name="product")]
    graph = helper.make_graph(nodes, "product", [half], [out], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10), path)
