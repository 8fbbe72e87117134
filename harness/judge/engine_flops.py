"""Judges how much of an encoder's arithmetic an engine really does in FP8: by operations, not by nodes or bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from harness.judge.engine_graph import attention_not_fp8, cannot_judge
from harness.judge.engine_rows import carriers_of, convolution_not_fp8, multiplies_fp8_activations, why_not_fp8
from harness.judge.flops import product_flops, products
from harness.judge.onnx_checks.finding import finding
from harness.judge.onnx_checks.placement import kind_of
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTable
from harness.records.policy import NodeKind, RecipePolicy
from harness.records.verdict import Direction, Finding, Judgement, Status

METRIC = "fp8_flop_share"

_ROUNDING = 1e-9  # of shares, which are sums of fractions


def fp8_flop_share(view: GraphView, table: LayerTable, policy: RecipePolicy, *, floor: float) -> Judgement:
    """Share of the FLOPs of all matrix products and convolutions that the engine provably computes in FP8.

    A recipe that misses a small layer loses little here and one that misses the MLP loses a third, which counts of nodes do not tell.
    Where the policy keeps so much in FP16 that its promise is less than `floor`, all that it promises must be FP8, and the reason
    says how much is kept.

    Args:
        floor: between 0 and 1.
    """
    flops = {name: product_flops(view, node) for name, node in products(view).items()}
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


def _judged(view: GraphView, flops: Mapping[str, int], table: LayerTable, policy: RecipePolicy, floor: float) -> Judgement:
    carriers = carriers_of(table)
    wide = {name: words for name in flops if (words := _why_not(view, name, carriers, table.lists_constants))}
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
    findings = tuple(_finding(view, nodes[name], flops[name] / total, wide[name], policy) for name in heaviest)
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


def _why_not(view: GraphView, name: str, carriers: Mapping[str, list[LayerRow]], lists_constants: bool) -> str | None:
    rows = carriers[name]
    if name in view.weight_gemms:
        return why_not_fp8(rows, lists_constants=lists_constants)
    if products(view)[name].op_type == "Conv":
        return convolution_not_fp8(rows, lists_constants=lists_constants)
    core = next((core for core in view.cores if name in core.node_names), None)
    words = attention_not_fp8(core, carriers) if core is not None else "it belongs to no attention"
    return None if words is None or multiplies_fp8_activations(rows) else words


def _finding(view: GraphView, node: OnnxNode, share: float, words: str, policy: RecipePolicy) -> Finding:
    found = f"{share:.1%} of all FLOPs not in FP8: {words}"
    why = "FP8 wins time where the arithmetic is; quantize both operands of the heaviest products first"
    return finding("E3", policy, view, node, found=found, expected="a product of FP8 operands", why=why)


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
