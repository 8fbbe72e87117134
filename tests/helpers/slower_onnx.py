"""Makes an engine slower by a known amount of work: a chain of MatMul nodes that depends on the output and adds to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 128  # a product of [8 * batch, 128] by [128, 128] takes some microseconds, so that a chain can be cut to size
COPIES = 8
WEIGHT = 2.0**-12  # of what the chain adds: too much to be dropped as zero, too little to change an embedding's direction


def slower_onnx(source: Path, target: Path, *, products: int, seed: int = 0) -> None:
    """Write `source` with so many more matrix products before its only output, which keeps its name and shape.

    Nothing in it can be computed ahead of time, since it starts from the output; and nothing left out, since it ends there.
    """
    model = onnx.load(source)
    graph = model.graph
    output = graph.output[0]
    width = output.type.tensor_type.shape.dim[1].dim_value
    inner = f"{output.name}_before_the_chain"
    for node in graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    rng = np.random.default_rng(seed)
    square = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)  # orthogonal: a long chain neither grows nor fades
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones((COPIES, 1, 1), np.float32), "slow_copies"),
            numpy_helper.from_array(rng.standard_normal((width, WIDTH)).astype(np.float32) / np.float32(width) ** 0.5, "slow_in"),
            numpy_helper.from_array(rng.standard_normal((WIDTH, width)).astype(np.float32) / np.float32(WIDTH) ** 0.5, "slow_out"),
            numpy_helper.from_array(square, "slow_square"),
            numpy_helper.from_array(np.float32(WEIGHT), "slow_weight"),
            numpy_helper.from_array(np.array([0], np.int64), "slow_axis"),
        ]
    )
    last = f"slow_{products}"
    kind = output.type.tensor_type.elem_type
    graph.node.extend(
        [
            helper.make_node("Cast", [inner], ["slow_start"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["slow_start", "slow_copies"], ["slow_many"]),
            helper.make_node("MatMul", ["slow_many", "slow_in"], ["slow_0"]),
            *(helper.make_node("MatMul", [f"slow_{step}", "slow_square"], [f"slow_{step + 1}"]) for step in range(products)),
            helper.make_node("ReduceMean", [last, "slow_axis"], ["slow_mean"], keepdims=0),
            helper.make_node("MatMul", ["slow_mean", "slow_out"], ["slow_wide"]),
            helper.make_node("Mul", ["slow_wide", "slow_weight"], ["slow_little"]),
            helper.make_node("Cast", ["slow_little"], ["slow_added"], to=kind),
            helper.make_node("Add", [inner, "slow_added"], [output.name]),
        ]
    )
    onnx.save(model, target)
