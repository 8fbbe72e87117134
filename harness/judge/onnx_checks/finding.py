"""How every check of an ONNX graph spells what it found."""

from __future__ import annotations

from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding, Severity

Findings = tuple[Finding, ...]


def finding(
    check: str,
    severity: Severity | RecipePolicy,
    view: GraphView,
    node: OnnxNode | None,
    *,
    found: str,
    expected: str,
    why: str,
) -> Finding:
    """One finding.

    Args:
        check: its id, such as `O5`.
        severity: or the policy whose severity it takes.
        view: the graph, which knows the node's block.
        node: where; None when it concerns the whole graph.
        found, expected: as short phrases.
        why: why it matters and what to do, as the end of the message.
    """
    block = view.block_of(node) if node is not None else None
    place = "" if block is None else f"block {block}: "
    name = "" if node is None else f"{node.name}: "
    return Finding(
        check=check,
        severity=severity.severity if isinstance(severity, RecipePolicy) else severity,
        node=None if node is None else node.name,
        block=block,
        found=found,
        expected=expected,
        message=f"{place}{name}{found}; expected {expected}; {why}",
    )


def quantizes(view: GraphView, policy: RecipePolicy) -> bool:
    """Whether FP8 is promised or present, so that its rules apply."""
    return policy.block_gemms_fp8 or any(
        op_type.endswith("QuantizeLinear") or op_type.endswith("DequantizeLinear") for op_type in view.of_type
    )
