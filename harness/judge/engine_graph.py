"""Judges a built engine by its layer table, one ONNX node at a time.

Nodes are found through the metadata that the compiler keeps, never through layer names or layer counts: both change with every
compiler version and target. A node that no layer carries cannot be judged, and what cannot be judged does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.judge.engine_rows import carriers_of, convolution_not_fp8, holds_fp8, is_fp8, why_not_fp8
from harness.judge.onnx_checks.finding import finding
from harness.judge.onnx_graph import unjudged_blocks
from harness.judge.structure import QDQ, AttentionCore, GraphView, WeightGemm
from harness.records.observations import LayerRow, LayerTable
from harness.records.policy import NodeKind, RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Status

_ATTENTION_OPERANDS = 3  # q, k and v


def block_gemms_fp8(view: GraphView, table: LayerTable, policy: RecipePolicy) -> Judgement:
    """How many block GEMMs run with FP8 activations and FP8 weights.

    Half the weight bytes do not prove this: weights stored in FP8 and widened inside a half-precision kernel need as little.
    """
    carriers = carriers_of(table)
    gemms = [gemm for block in view.blocks for gemm in block.gemms]
    unseen = [gemm.node.name for gemm in gemms if gemm.node.name not in carriers]
    if not gemms or view.irregularity:
        return unjudged_blocks("block_gemms_fp8", view)
    if unseen and (policy.block_gemms_fp8 or holds_fp8(table)):  # without FP8 anywhere, no GEMM runs in it, named or not
        return cannot_judge("block_gemms_fp8", unseen, len(gemms))
    defects = [(gemm, words) for gemm in gemms if (words := _why_not(gemm, table, carriers))]
    good = len(gemms) - len(defects)
    expected = len(gemms) if policy.block_gemms_fp8 else 0
    findings = tuple(_gemm_finding(view, policy, gemm, words) for gemm, words in defects) if policy.block_gemms_fp8 else ()
    return _judgement("block_gemms_fp8", good, expected, Direction.EQUAL, len(gemms), policy, findings)


def fused_attention(view: GraphView, table: LayerTable, policy: RecipePolicy) -> Judgement:
    """How many blocks have both attention MatMuls and the Softmax in one engine layer."""
    blocks = view.attention_blocks
    if not blocks or view.irregularity:
        return unjudged_blocks("fused_attention", view)
    carriers = carriers_of(table)
    unseen = [name for _, core in blocks for name in _matmuls(core) if name not in carriers]
    if unseen:
        return cannot_judge("fused_attention", unseen, len(blocks))
    broken = [core for _, core in blocks if not _is_fused(core, table)]
    findings = tuple(_attention_finding(view, policy, core, carriers) for core in broken) if policy.fused_attention else ()
    expected = len(blocks) if policy.fused_attention else 0
    good = len(blocks) - len(broken)
    return _judgement("fused_attention", good, expected, Direction.FLOOR, len(blocks), policy, findings)


def fused_attention_fp8(view: GraphView, table: LayerTable, policy: RecipePolicy) -> Judgement:
    """How many blocks have one engine layer for their attention that reads q, k and v in FP8.

    That attention is fused does not prove this: the compiler also fuses it in half precision, behind Q/DQ that win nothing.
    """
    metric = "fused_attention_fp8"
    blocks = view.attention_blocks
    if not blocks or view.irregularity:
        return unjudged_blocks(metric, view)
    carriers = carriers_of(table)
    unseen = [name for _, core in blocks for name in _matmuls(core) if name not in carriers]
    if unseen:
        return cannot_judge(metric, unseen, len(blocks))
    defects = [(core, words) for _, core in blocks if (words := attention_not_fp8(core, carriers))]
    good = len(blocks) - len(defects)
    expected = len(blocks) if policy.attention_fp8 else 0
    findings = tuple(_attention_fp8_finding(view, policy, *defect) for defect in defects) if policy.attention_fp8 else ()
    return _judgement(metric, good, expected, Direction.EQUAL, len(blocks), policy, findings)


def without_attention(view: GraphView) -> str | None:
    """Why nothing can be said about the attention of this tower's blocks, in words; None when they have one, or are unknown."""
    if not view.blocks or view.attention_blocks:
        return None
    pools = "; its one attention pools what the last block gives" if view.pooling is not None else ""
    return f"the tower's {len(view.blocks)} blocks are convolutions and have no attention{pools}"


def unfused_qdq(view: GraphView, table: LayerTable, policy: RecipePolicy) -> Judgement:
    """How many engine layers do nothing but quantize or de-quantize, beside those that read an input of the graph.

    Layers that the policy lets stand alone, by what they quantize for, are not counted; the reason says how many there are.
    """
    pairs = [name for name, op_type in view.op_types.items() if op_type in QDQ]
    named = {name for row in table.rows for name in row.onnx_nodes}
    if pairs and not named & set(pairs):
        return cannot_judge("unfused_qdq", pairs, len(table.rows))
    graph_inputs = {port.name for port in view.graph.inputs}
    alone = [row for row in table.rows if _is_only_qdq(row, view) and not graph_inputs & {tensor.name for tensor in row.inputs}]
    allowed = [row for row in alone if policy.why_alone(_quantized_for(row, view)) is not None]
    findings = tuple(_qdq_finding(view, policy, row) for row in alone if row not in allowed)
    judged = _judgement("unfused_qdq", len(findings), policy.unfused_qdq, Direction.CEILING, len(table.rows), policy, findings)
    if not allowed:
        return judged
    why = policy.why_alone(NodeKind.CONVOLUTION) or ""
    words = f"{len(allowed)} more stand alone before convolutions, as the policy says: {why.rstrip('.')}"
    return replace(judged, reason=f"{judged.reason}; {words}" if judged.reason else words)


def _why_not(gemm: WeightGemm, table: LayerTable, carriers: Mapping[str, list[LayerRow]]) -> str | None:
    why_not = convolution_not_fp8 if gemm.node.op_type == "Conv" else why_not_fp8
    return why_not(carriers[gemm.node.name], lists_constants=table.lists_constants)


def _matmuls(core: AttentionCore) -> tuple[str, str]:
    return core.scores.name, core.context.name


def _is_fused(core: AttentionCore, table: LayerTable) -> bool:
    return any(core.node_names <= set(row.onnx_nodes) for row in table.rows)


def attention_not_fp8(core: AttentionCore, carriers: Mapping[str, list[LayerRow]]) -> str | None:
    """None when one layer carries the whole attention and reads q, k and v in FP8; else what does not."""
    row = next((row for row in carriers[core.scores.name] if core.node_names <= set(row.onnx_nodes)), None)
    if row is None:
        return "attention is not fused"
    types = [tensor.datatype for tensor in row.inputs]  # a mask is a constant, and not among them
    if len(types) >= _ATTENTION_OPERANDS and all(map(is_fp8, row.inputs)):
        return None
    return f"layer {row.name} reads {', '.join(types) or 'nothing'}"


def _is_only_qdq(row: LayerRow, view: GraphView) -> bool:
    return bool(row.onnx_nodes) and all(view.op_types.get(name) in QDQ for name in row.onnx_nodes)


def _quantized_for(row: LayerRow, view: GraphView) -> NodeKind | None:
    """What reads the values that a Q/DQ layer makes, where that is convolutions alone."""
    nodes = [node for node in view.of_types(QDQ) if node.name in row.onnx_nodes]
    pending = [reader for node in nodes for reader in view.readers(node.outputs[0])]
    readers = [reader for node in pending for reader in (view.readers(node.outputs[0]) if node.op_type in QDQ else (node,))]
    return NodeKind.CONVOLUTION if readers and all(reader.op_type == "Conv" for reader in readers) else None


def _judgement(
    metric: str,
    observed: int,
    bound: int,
    direction: Direction,
    n: int,
    policy: RecipePolicy,
    findings: tuple[Finding, ...],
) -> Judgement:
    good = {Direction.EQUAL: observed == bound, Direction.FLOOR: observed >= bound, Direction.CEILING: observed <= bound}[direction]
    return Judgement(
        metric=metric,
        status=Status.PASS if good else Status.FAIL,
        observed=observed,
        bound=bound,
        unit="layers" if metric == "unfused_qdq" else "blocks" if metric.startswith("fused_attention") else "nodes",
        direction=direction,
        n=n,
        reason="" if good else _first_of(findings, observed, bound),
        severity=policy.severity,
        findings=findings,
    )


def _first_of(findings: tuple[Finding, ...], observed: int, bound: int) -> str:
    if not findings:
        return f"found {observed}, expected {bound}"
    first, *others = findings
    return f"{first.message} ({len(findings)} such places)" if others else first.message


def cannot_judge(metric: str, unseen: list[str], n: int) -> Judgement:
    """The answer when no layer names a node that has to be judged."""
    return Judgement(
        metric=metric,
        status=Status.INVALID,
        observed=None,
        bound=None,
        unit="nodes",
        direction=Direction.EQUAL,
        n=n,
        reason=f"cannot judge: no engine layer names {unseen[0]} ({len(unseen)} such nodes); build with detailed profiling verbosity",
    )


def _gemm_finding(view: GraphView, policy: RecipePolicy, gemm: WeightGemm, words: str) -> Finding:
    expected = "a matrix product of FP8 activations and FP8 weights"
    why = "a file of half the size does not prove FP8 compute; look at what stands between its Q/DQ nodes and the product"
    return finding("E2", policy, view, gemm.node, found=words, expected=expected, why=why)


def _attention_finding(view: GraphView, policy: RecipePolicy, core: AttentionCore, carriers: Mapping[str, list[LayerRow]]) -> Finding:
    layers = list(dict.fromkeys(row.name for name in _matmuls(core) for row in carriers[name]))
    found = f"attention is split over {', '.join(layers)}"
    expected = "one layer that carries both MatMuls and the Softmax"
    why = "every piece writes the scores to memory and reads them back; quantize q, k, v and the softmax together, or none of them"
    return finding("E4", policy, view, core.softmax, found=found, expected=expected, why=why)


def _attention_fp8_finding(view: GraphView, policy: RecipePolicy, core: AttentionCore, words: str) -> Finding:
    expected = "one fused attention layer that reads q, k and v in FP8"
    why = "fused attention in half precision gains nothing from its Q/DQ; put them after the scaling of q, and on all of q, k and v"
    return finding("E2", policy, view, core.softmax, found=words, expected=expected, why=why)


def _qdq_finding(view: GraphView, policy: RecipePolicy, row: LayerRow) -> Finding:
    node = next(node for node in view.graph.nodes if node.name == row.onnx_nodes[0])
    found = f"layer {row.name} does nothing but {', '.join(row.onnx_nodes)}"
    why = "a kernel that only rounds reads and writes a whole tensor; find what keeps it from the kernel before or after it"
    return finding("E5", policy, view, node, found=found, expected="every Q/DQ node fused into a layer beside it", why=why)
