"""O14 and the figures of the summary: bytes and work, from shapes alone."""

from __future__ import annotations

import math

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import PRODUCTS, GraphView
from harness.judge.token_tables import token_tables
from harness.records.graph import OnnxConstant, OnnxNode
from harness.records.policy import RecipePolicy

TOLERANCE = 0.02
NODE_BYTES = 1024  # the most a node with its names takes in a file; exports of CLIP take 200 to 400
_FLOATS = frozenset({"BFLOAT16", "DOUBLE", "FLOAT", "FLOAT16"})


def bytes_as_predicted(view: GraphView, policy: RecipePolicy) -> Findings:
    """O14: the file is as large as its shapes say: one byte an element of what the policy stores in FP8, two of any other float."""
    if not view.graph.file_bytes or not view.blocks:
        return ()
    predicted = predicted_bytes(view, policy)
    observed = view.graph.file_bytes
    ceiling = round(predicted * (1 + TOLERANCE)) + NODE_BYTES * len(view.graph.nodes)
    floor = round(predicted * (1 - TOLERANCE))
    if floor <= observed <= ceiling:
        return ()
    why = "weights are missing, kept twice, or stored in another type than the policy says; list the largest initializers"
    return (finding("O14", policy, view, None, found=f"{observed} bytes", expected=f"{floor} to {ceiling} bytes", why=why),)


def predicted_bytes(view: GraphView, policy: RecipePolicy) -> int:
    """Bytes of all constants that nodes read: one an element of a block's weight where FP8 is promised, two of any other float."""
    read = {name for node in view.graph.nodes for name in node.inputs}
    widths = {gemm.constant.name: 1 if policy.block_gemms_fp8 else 2 for block in view.blocks for gemm in block.gemms}
    widths |= {table.constant.name: 1 if policy.embedding_fp8 else 2 for table in token_tables(view).values()}
    return sum(_bytes(constant, widths.get(name)) for name, constant in view.graph.constants.items() if name in read)


def _bytes(constant: OnnxConstant, width: int | None) -> int:
    if width is not None:
        return constant.elements * width
    return constant.elements * 2 if constant.dtype in _FLOATS else constant.nbytes


def fp8_flop_share(view: GraphView) -> float | None:
    """Share of the work of all products that both operands' Q/DQ lets run in FP8; None where shapes are unknown or there is none."""
    works = [(_flops(view, node), view.is_quantized(node) == (True, True)) for node in view.of_types(PRODUCTS) if len(node.inputs) > 1]
    known = [(flops, is_fp8) for flops, is_fp8 in works if flops is not None]
    total = sum(flops for flops, _ in known)
    if len(known) < len(works) or not total:
        return None
    return sum(flops for flops, is_fp8 in known if is_fp8) / total


def _flops(view: GraphView, node: OnnxNode) -> int | None:
    """Multiplications and additions for one row; None when a shape is unknown."""
    first, second = (_shape(view, tensor) for tensor in node.inputs[:2])
    out = _shape(view, node.outputs[0])
    if not second or out is None:
        return None
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(first) * math.prod(second[1:]) if first else None
    if node.op_type == "Conv":
        return 2 * math.prod(out) * math.prod(second[1:])
    summed = second[-1] if node.attributes.get("transB", 0) == 1 else second[-2 if len(second) > 1 else -1]
    return 2 * math.prod(out) * summed


def _shape(view: GraphView, tensor: str) -> tuple[int, ...] | None:
    constant = view.graph.constants.get(tensor)
    if constant is not None:
        return constant.shape
    port = view.graph.tensors.get(tensor)
    if port is None:
        return None
    return tuple(axis for axis in port.shape if isinstance(axis, int))
