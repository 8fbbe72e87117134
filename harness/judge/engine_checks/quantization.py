"""E2 to E6: products run in FP8, attention stays one layer, and no quantization is left over or only acted out."""

from __future__ import annotations

from collections.abc import Iterator

from harness.judge.alike import alike
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_flops import fp8_flop_share
from harness.judge.engine_graph import block_gemms_fp8, fused_attention, fused_attention_fp8, unfused_qdq
from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import DEQUANTIZE, PRODUCTS, QUANTIZE
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding


def products_run_in_fp8(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E2: every block GEMM multiplies FP8 by FP8, and attention reads q, k and v in FP8 where the policy promises it."""
    parts = (block_gemms_fp8, fused_attention_fp8)
    return tuple(found for part in parts for found in part(seen.view, seen.table, policy).findings)


def work_is_fp8(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E3: enough of the FLOPs are of products that E2's operands prove. Of too few, the heaviest that are not come first."""
    return fp8_flop_share(seen.view, seen.table, policy, floor=seen.flop_floor).findings


def attention_is_one_layer(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E4: both MatMuls and the Softmax of a block are one layer."""
    return fused_attention(seen.view, seen.table, policy).findings


def no_quantization_is_left_over(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E5: no more layers than the policy allows do nothing but quantize or de-quantize, beside those that read a graph input."""
    found = unfused_qdq(seen.view, seen.table, policy).findings
    return found if len(found) > policy.unfused_qdq else ()


def no_quantization_is_emulated(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E6: no layer quantizes a tensor and de-quantizes it again without the product that should have read the FP8 between.

    A fused attention rightly holds both nodes of the softmax: it holds the MatMul that reads them, too.
    """
    return tuple(_emulated(seen, policy, quantize, row) for quantize, row in emulations(seen))


def emulations(seen: EngineEvidence) -> Iterator[tuple[OnnxNode, LayerRow]]:
    """QuantizeLinear nodes, each with the layer that also undoes it."""
    for quantizes, undoes in pairs(seen):
        for row in _carrying(seen, quantizes):
            undone = [node for node in undoes if node.name in row.onnx_nodes]
            if undone and not any(_multiplied(seen, node, row) for node in undoes):
                yield next(node for node in quantizes if node.name in row.onnx_nodes), row


def pairs(seen: EngineEvidence) -> Iterator[tuple[tuple[OnnxNode, ...], tuple[OnnxNode, ...]]]:
    """QuantizeLinear nodes that do one thing, with the DequantizeLinear nodes that undo it."""
    for group in alike(seen.view).values():
        if group[0].op_type in QUANTIZE:
            readers = {one.name: one for node in group for one in seen.view.readers(node.outputs[0]) if one.op_type in DEQUANTIZE}
            if readers:
                yield group, tuple(readers.values())


def _carrying(seen: EngineEvidence, nodes: tuple[OnnxNode, ...]) -> list[LayerRow]:
    return list({id(row): row for node in nodes for row in seen.carriers.get(node.name, ())}.values())


def _multiplied(seen: EngineEvidence, dequantize: OnnxNode, row: LayerRow) -> bool:
    """Whether `row` carries a product of what `dequantize` makes."""
    readers = seen.view.readers(dequantize.outputs[0])
    return any(reader.op_type in PRODUCTS and reader.name in row.onnx_nodes for reader in readers)


def _emulated(seen: EngineEvidence, policy: RecipePolicy, node: OnnxNode, row: LayerRow) -> Finding:
    found = f"layer {row.name} quantizes and at once de-quantizes"
    why = "it rounds, and no kernel gains from it; take this pair out, or find out why no FP8 product follows it"
    return finding("E6", policy, seen.view, node, found=found, expected="FP8 up to the product that reads it", why=why)
