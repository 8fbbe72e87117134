"""O14 and the figures of the summary: bytes and work, from shapes alone."""

from __future__ import annotations

from harness.judge.flops import product_flops, products
from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import GraphView
from harness.judge.token_tables import token_tables
from harness.records.graph import OnnxConstant
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


def quantized_flop_share(view: GraphView) -> float | None:
    """Share of the FLOPs of all products that both operands' Q/DQ lets run in FP8; None where shapes are unknown or there is none.

    What an engine makes of it, `engine_flops` says.
    """
    nodes = products(view).values()
    works = [(flops, view.is_quantized(node) == (True, True)) for node in nodes if (flops := product_flops(view, node)) is not None]
    total = sum(flops for flops, _ in works)
    if len(works) < len(nodes) or not total:
        return None
    return sum(flops for flops, is_quantized in works if is_quantized) / total
