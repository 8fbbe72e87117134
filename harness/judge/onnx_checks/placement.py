"""O9, O10: Q/DQ nodes stand where a product can use them, and nowhere that the recipe keeps in FP16."""

from __future__ import annotations

from collections.abc import Iterator

from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import DEQUANTIZE, PRODUCTS, QDQ, QUANTIZE, GraphView
from harness.records.graph import OnnxNode
from harness.records.policy import NodeKind, RecipePolicy
from harness.records.verdict import Finding

_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


def no_idle_quantization(view: GraphView, policy: RecipePolicy) -> Findings:
    """O9: nothing is quantized twice, and every DequantizeLinear feeds only what computes in FP8."""
    return (*_doubles(view, policy), *_idle(view, policy))


def _doubles(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    for node in view.of_types(QUANTIZE):
        before = view.dequantized(node.inputs[0])
        if before is not None:
            why = "a second rounding for nothing, which the engine's table does not even show; keep one pair"
            yield finding(
                "O9", policy, view, node, found=f"it quantizes what {before.name} just de-quantized", expected="one pair", why=why
            )


def _idle(view: GraphView, policy: RecipePolicy) -> Iterator[Finding]:
    for node in view.of_types(DEQUANTIZE):
        readers = view.readers(node.outputs[0])
        wrong = [reader for reader in readers if not _uses_fp8(view, node, reader)]
        if wrong or not readers:
            found = f"it feeds {_named(wrong[0])}" if wrong else "nothing computes with it"
            why = "rounding without an FP8 product to gain from it; remove the pair, or quantize what it was meant for"
            yield finding("O9", policy, view, node, found=found, expected="MatMul, Gemm, Conv or another pair only", why=why)


def _named(node: OnnxNode) -> str:
    if node.op_type == "Add":
        return f"the residual or bias Add {node.name}"
    return f"{'the norm ' if node.op_type in _NORMS else ''}{node.op_type} {node.name}"


def _uses_fp8(view: GraphView, node: OnnxNode, reader: OnnxNode) -> bool:
    is_table = view.constant_behind(node.inputs[0]) is not None
    return reader.op_type in PRODUCTS or reader.op_type in QDQ or (reader.op_type == "Gather" and is_table)


def kept_by_intent(view: GraphView, policy: RecipePolicy) -> Findings:
    """O10: what the policy keeps in FP16 has no Q/DQ; a policy that quantizes nothing keeps everything."""
    seen: dict[str, OnnxNode] = {}
    for node in view.of_types(DEQUANTIZE):
        for reader in view.readers(node.outputs[0]):
            seen.setdefault(reader.name, reader)
    return tuple(found for node in seen.values() if (found := _quantized_unasked(view, policy, node)) is not None)


def _quantized_unasked(view: GraphView, policy: RecipePolicy, node: OnnxNode) -> Finding | None:
    kind = kind_of(view, node)
    reason = policy.reason if not policy.block_gemms_fp8 else policy.why_kept(kind) if kind else None
    if reason is None:
        return None
    word = kind or node.op_type
    why = f"the policy keeps it: {reason[:1].lower()}{reason[1:]}"
    return finding("O10", policy, view, node, found=f"Q/DQ on {node.op_type} ({word})", expected="FP16 by intent", why=why)


def kind_of(view: GraphView, node: OnnxNode) -> NodeKind | None:
    """What a node outside the blocks' weights is to a policy; None for what multiplies those, and for what no policy names."""
    if node.op_type == "Gather":
        return NodeKind.EMBEDDING
    if node.name in view.weight_products and view.block_of(node) is not None:
        return None
    if node.op_type.startswith("Conv"):
        return NodeKind.CONVOLUTION
    if node.name in view.pooling_products:
        return NodeKind.POOLING
    if node.name in view.weight_gemms:
        return NodeKind.PROJECTION
    return NodeKind.ATTENTION if node.op_type in PRODUCTS else None
