"""Judges how much of an encoder's arithmetic an engine really does in FP8: by operations, not by nodes or bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import prod

from harness.judge.engine_graph import GEMM_KINDS, attention_not_fp8, cannot_judge, carriers_of, is_fp8, why_not_fp8
from harness.judge.onnx_checks.placement import kind_of
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTable
from harness.records.policy import NodeKind, RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Status

METRIC = "fp8_flop_share"

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_CONVOLUTION_KINDS = frozenset({"correlation"})  # TensorRT-RTX's word for a convolution
_OPERATIONS = 2  # a multiplication and an addition
_ROUNDING = 1e-9  # of shares, which are sums of fractions


def fp8_flop_share(view: GraphView, table: LayerTable, policy: RecipePolicy, *, floor: float) -> Judgement:
    """Share of the FLOPs of all matrix products and convolutions that the engine provably computes in FP8.

    A recipe that misses a small layer loses little here and one that misses the MLP loses a third, which counts of nodes do not tell.
    Where the policy keeps so much in FP16 that its promise is less than `floor`, all that it promises must be FP8, and the reason
    says how much is kept.

    Args:
        floor: between 0 and 1.
    """
    flops = {name: gemm_flops(view, node) for name, node in products(view).items()}
    carriers = carriers_of(table)
    unseen = [name for name in flops if name not in carriers]
    if unseen:
        return cannot_judge(METRIC, unseen, len(flops))
    unknown = [name for name, count in flops.items() if count is None]
    if unknown or not flops:
        words = (
            f"the shapes around {unknown[0]} do not follow from the graph ({len(unknown)} such nodes)" if unknown else "no matrix product"
        )
        return _share(Status.INVALID, None, floor, len(flops), policy, f"cannot judge: {words}; export the graph with static sizes")
    return _judged(view, {name: count or 0 for name, count in flops.items()}, carriers, policy, floor)


def products(view: GraphView) -> Mapping[str, OnnxNode]:
    """Node name to every product of an activation with weights or with another activation, in graph order."""
    nodes = (node for node in view.graph.nodes if node.op_type in _PRODUCTS)
    return {node.name: node for node in nodes if any(view.constant_behind(name) is None for name in node.inputs[:2])}


def gemm_flops(view: GraphView, node: OnnxNode) -> int | None:
    """FLOPs of one product for one row of the batch; None where a shape is unknown."""
    output, first, second = (_shape(view, name) for name in (node.outputs[0], *node.inputs[:2]))
    if not output or not first or not second:
        return None
    if node.op_type == "Conv":
        terms = prod(second[1:])  # [output channels, input channels a group, height, width]
    elif node.op_type == "Gemm":
        terms = prod(first) // output[0]  # whether it is transposed or not
    else:
        terms = first[-1]
    return _OPERATIONS * prod(output) * terms


def _shape(view: GraphView, tensor: str) -> tuple[int, ...] | None:
    constant = view.graph.constants.get(tensor)
    if constant is not None:
        return constant.shape
    port = view.graph.tensors.get(tensor)
    sizes = tuple(size for size in port.shape if isinstance(size, int)) if port is not None else ()
    return sizes if port is not None and len(sizes) == len(port.shape) else None


def _judged(
    view: GraphView, flops: Mapping[str, int], carriers: Mapping[str, list[LayerRow]], policy: RecipePolicy, floor: float
) -> Judgement:
    wide = {name: words for name in flops if (words := _why_not(view, name, carriers))}
    kept = _kept_shares(view, flops, policy)
    promised = 1 - sum(kept.values())
    words = _words_on_kept(kept) if promised < floor else ""
    floor = min(floor, promised)
    total = sum(flops.values())
    share = 1 - sum(flops[name] for name in wide) / total
    if share >= floor - _ROUNDING:
        return _share(Status.PASS, share, floor, len(flops), policy, words)
    nodes = products(view)
    heaviest = sorted(wide, key=lambda name: (_kept_kind(view, nodes[name], policy) is not None, -flops[name]))
    findings = tuple(_finding(view, name, flops[name] / total, wide[name], policy) for name in heaviest)
    reason = f"{findings[0].message} ({len(findings)} such nodes)"
    return _share(Status.FAIL, share, floor, len(flops), policy, f"{reason}; {words}" if words else reason, findings)


def _kept_shares(view: GraphView, flops: Mapping[str, int], policy: RecipePolicy) -> Mapping[NodeKind, float]:
    """The share of the FLOPs that the policy leaves in FP16 by intent, by kind of node."""
    shares: defaultdict[NodeKind, float] = defaultdict(float)
    nodes, total = products(view), sum(flops.values())
    for name, count in flops.items():
        kind = _kept_kind(view, nodes[name], policy)
        if kind is not None:
            shares[kind] += count / total
    return shares


def _kept_kind(view: GraphView, node: OnnxNode, policy: RecipePolicy) -> NodeKind | None:
    kind = kind_of(view, node)
    return kind if kind is not None and policy.why_kept(kind) is not None else None


def _words_on_kept(shares: Mapping[NodeKind, float]) -> str:
    parts = ", ".join(f"{kind} {share:.1%}" for kind, share in sorted(shares.items(), key=lambda item: -item[1]))
    return f"the policy keeps {sum(shares.values()):.1%} of the FLOPs in FP16 ({parts}), so all the rest must be FP8"


def _why_not(view: GraphView, name: str, carriers: Mapping[str, list[LayerRow]]) -> str | None:
    rows = carriers[name]
    if name in view.weight_gemms:
        return why_not_fp8(rows)
    if products(view)[name].op_type == "Conv":
        return _convolution_not_fp8(rows)
    core = next((core for core in view.cores if name in core.node_names), None)
    words = attention_not_fp8(core, carriers) if core is not None else "it belongs to no attention"
    return None if words is None or _multiplies_fp8_activations(rows) else words


def _convolution_not_fp8(rows: list[LayerRow]) -> str | None:
    layers = [row for row in rows if row.kind in _CONVOLUTION_KINDS | GEMM_KINDS]
    if layers and all(any(map(is_fp8, row.inputs)) and any(map(is_fp8, row.constants)) for row in layers):
        return None
    return "its convolution reads no FP8" if layers else f"no convolution carries it, only {', '.join(sorted({row.kind for row in rows}))}"


def _multiplies_fp8_activations(rows: list[LayerRow]) -> bool:
    """Whether the products among `rows` multiply two activations, both FP8: attention that was not fused."""
    layers = [row for row in rows if row.kind in GEMM_KINDS]
    return bool(layers) and all(len(row.inputs) > 1 and all(map(is_fp8, row.inputs)) for row in layers)


def _finding(view: GraphView, name: str, share: float, words: str, policy: RecipePolicy) -> Finding:
    blocks = {gemm.node.name: block.index for block in view.blocks for gemm in block.gemms}
    blocks |= {part: block.index for block, core in view.attention_blocks for part in core.node_names}
    return Finding(
        check="E3",
        severity=policy.severity,
        node=name,
        block=blocks.get(name),
        found=words,
        expected="a product of FP8 operands",
        message=f"{name}, {share:.1%} of all FLOPs: {words}",
    )


def _share(
    status: Status,
    observed: float | None,
    floor: float,
    n: int,
    policy: RecipePolicy,
    reason: str = "",
    findings: tuple[Finding, ...] = (),
) -> Judgement:
    return Judgement(
        metric=METRIC,
        status=status,
        observed=observed,
        bound=floor,
        unit="",
        direction=Direction.FLOOR,
        n=n,
        reason=reason,
        severity=policy.severity,
        findings=findings,
    )
