"""Judges how much of an encoder's arithmetic an engine really does in FP8: by operations, not by nodes or bytes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from harness.judge.engine_graph import attention_not_fp8, cannot_judge, carriers_of
from harness.judge.engine_rows import convolution_not_fp8, multiplies_fp8_activations, why_not_fp8
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTable
from harness.records.policy import RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Status

METRIC = "fp8_flop_share"

_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_OPERATIONS = 2  # a multiplication and an addition


def fp8_flop_share(view: GraphView, table: LayerTable, policy: RecipePolicy, *, floor: float) -> Judgement:
    """Share of the FLOPs of all matrix products and convolutions that the engine provably computes in FP8.

    A recipe that misses a small layer loses little here and one that misses the MLP loses a third, which counts of nodes do not tell.

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
    return _judged(view, {name: count or 0 for name, count in flops.items()}, table, policy, floor)


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


def _judged(view: GraphView, flops: Mapping[str, int], table: LayerTable, policy: RecipePolicy, floor: float) -> Judgement:
    carriers = carriers_of(table)
    wide = {name: words for name in flops if (words := _why_not(view, name, carriers, table.lists_constants))}
    total = sum(flops.values())
    share = 1 - sum(flops[name] for name in wide) / total
    if share >= floor:
        return _share(Status.PASS, share, floor, len(flops), policy)
    heaviest = sorted(wide, key=lambda name: -flops[name])
    findings = tuple(_finding(view, name, flops[name] / total, wide[name], policy) for name in heaviest)
    return _share(Status.FAIL, share, floor, len(flops), policy, f"{findings[0].message} ({len(findings)} such nodes)", findings)


def _why_not(view: GraphView, name: str, carriers: Mapping[str, list[LayerRow]], lists_constants: bool) -> str | None:
    rows = carriers[name]
    if name in view.weight_gemms:
        return why_not_fp8(rows, lists_constants=lists_constants)
    if products(view)[name].op_type == "Conv":
        return convolution_not_fp8(rows, lists_constants=lists_constants)
    core = next((core for core in view.cores if name in core.node_names), None)
    words = attention_not_fp8(core, carriers) if core is not None else "it belongs to no attention"
    return None if words is None or multiplies_fp8_activations(rows) else words


def _finding(view: GraphView, name: str, share: float, words: str, policy: RecipePolicy) -> Finding:
    blocks = {gemm.node.name: block.index for block in view.blocks for gemm in block.gemms}
    blocks |= {part: block.index for block in view.blocks for part in block.core.node_names}
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
