"""Planted regressions: each makes of a clean exported graph one that is broken in one way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def leave_block_unquantized(model: Any) -> None:
    """The GEMMs of the first block read their float activation, and float weights made of the FP8 ones."""
    for node in _block_gemms(model)[:6]:
        quantize = _producer(model, _producer(model, node.input[0]).input[0])
        node.input[0] = quantize.input[0]
        node.input[1] = _float_weight(model, _producer(model, node.input[1]))


def leave_weight_unfolded(model: Any) -> None:
    """One weight is stored in float16 and quantized when the engine is built."""
    import onnx

    dequantize = _producer(model, _block_gemms(model)[4].input[1])
    quantized, zero = f"{dequantize.name}/unfolded", f"{dequantize.name}/zero"
    model.graph.initializer.append(onnx.helper.make_tensor(zero, onnx.TensorProto.FLOAT8E4M3FN, [], [0.0]))
    node = onnx.helper.make_node(
        "QuantizeLinear", [_float_weight(model, dequantize), dequantize.input[1], zero], [quantized], name=f"{dequantize.name}/Q"
    )
    dequantize.input[0] = quantized
    model.graph.node.insert(list(model.graph.node).index(dequantize), node)


def quarter_activation_scale(model: Any) -> None:
    """The activation of one GEMM saturates at a quarter of what calibration saw."""
    from onnx import numpy_helper

    dequantize = _producer(model, _block_gemms(model)[5].input[0])
    scale = _initializer(model, dequantize.input[1])
    smaller = numpy_helper.to_array(scale) / np.float16(4)
    scale.CopyFrom(numpy_helper.from_array(smaller.astype(np.float16), scale.name))


def _block_gemms(model: Any) -> list[Any]:
    """MatMuls whose weight is de-quantized from an initializer, in graph order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    found = []
    for node in model.graph.node:
        weight = made_by.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants:
            found.append(node)
    return found


def _float_weight(model: Any, dequantize: Any) -> str:
    from onnx import numpy_helper

    stored = numpy_helper.to_array(_initializer(model, dequantize.input[0])).astype(np.float32)
    scale = numpy_helper.to_array(_initializer(model, dequantize.input[1])).astype(np.float32)
    name = f"{dequantize.name}/float"
    model.graph.initializer.append(numpy_helper.from_array((stored * scale).astype(np.float16), name))
    return name


def _producer(model: Any, tensor: str) -> Any:
    return next(node for node in model.graph.node if tensor in node.output)


def _initializer(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


PLANTS: dict[str, Callable[[Any], None]] = {
    "block": leave_block_unquantized,
    "weight": leave_weight_unfolded,
    "scale": quarter_activation_scale,
}


def gate_with(plant: str, arguments: list[str]) -> int:
    """Run the command in this process, with a regression planted in every quantized graph it makes."""
    import onnx

    from harness.cli import main
    from harness.prepare import encoder_onnx

    clean = encoder_onnx.make_onnx

    def broken(spec: Any, recipe: Any, calibration: Any, folder: Path) -> Any:
        facts = clean(spec, recipe, calibration, folder)
        if recipe.is_quantized:
            model = onnx.load(folder / encoder_onnx.ONNX_FILE)
            PLANTS[plant](model)
            onnx.save(model, folder / encoder_onnx.ONNX_FILE)
        return facts

    encoder_onnx.make_onnx = broken
    try:
        return main(["gate", *arguments])
    finally:
        encoder_onnx.make_onnx = clean


def main(arguments: list[str]) -> None:
    """Gate once with each regression, in one process; caches and run directories are named after it."""
    for plant in PLANTS:
        own = ["--cache-dir", f"{plant}-cache", "--run-dir", plant]
        print(f"{plant}: exit code {gate_with(plant, [*arguments, *own])}")  # noqa: T201 (the caller reads it)


if __name__ == "__main__":
    main(sys.argv[1:])
