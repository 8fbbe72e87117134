"""E1: which ONNX nodes the layer table names. What it does not name was not judged by anything."""

from __future__ import annotations

from dataclasses import dataclass

from harness.judge.alike import Group, alike
from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_rows import holds_fp8
from harness.judge.flops import products
from harness.judge.onnx_checks.finding import Findings, finding
from harness.records.graph import OnnxNode
from harness.records.policy import RecipePolicy

_WHY = "an engine is judged by the nodes that its layers name; build with detailed profiling verbosity, and keep the whole table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of a graph the layers name.

    Attributes:
        products, unseen_products: MatMul, Gemm and Conv nodes with at least one computed operand.
        groups, unseen_groups: Q/DQ nodes; those that quantize one tensor with one scale are one group, as compilers merge them.
    """

    products: tuple[OnnxNode, ...]
    unseen_products: tuple[OnnxNode, ...]
    groups: tuple[Group, ...]
    unseen_groups: tuple[Group, ...]

    @property
    def qdq_share(self) -> float:
        """Share of the groups of Q/DQ nodes that some layer names, 0 to 1; 1 of none."""
        return 1 - len(self.unseen_groups) / len(self.groups) if self.groups else 1.0

    @property
    def looked_at(self) -> int:
        """Number of products and groups."""
        return len(self.products) + len(self.groups)

    def words(self) -> str:
        """`98 of 98 products and 167 of 168 Q/DQ nodes`."""
        seen = [len(self.products) - len(self.unseen_products), len(self.groups) - len(self.unseen_groups)]
        return f"{seen[0]} of {len(self.products)} products and {seen[1]} of {len(self.groups)} Q/DQ nodes"


def coverage(seen: EngineEvidence) -> Coverage:
    """What the layers name of the graph."""
    multiplied = tuple(products(seen.view).values())
    groups = tuple(alike(seen.view).values())
    return Coverage(
        products=multiplied,
        unseen_products=tuple(node for node in multiplied if node.name not in seen.carriers),
        groups=groups,
        unseen_groups=tuple(group for group in groups if not any(node.name in seen.carriers for node in group)),
    )


def nodes_are_named(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E1: every product, and nearly every Q/DQ node, is named by a layer."""
    found = coverage(seen)
    unseen = _unseen_products(seen, found)
    if found.qdq_share < policy.limits.coverage:
        unseen += [group[0] for group in found.unseen_groups]
    expected = f"every product and {policy.limits.coverage:.0%} of the Q/DQ nodes named"
    words = f"no layer names it; the table names {found.words()}"
    return tuple(finding("E1", policy, seen.view, node, found=words, expected=expected, why=_WHY) for node in unseen)


def _unseen_products(seen: EngineEvidence, found: Coverage) -> list[OnnxNode]:
    """Products that have to be named and are not.

    Of an engine without any FP8 these are those of attention alone: the rest is half precision whatever carries it, and
    TensorRT-RTX 1.7 leaves two of RN50's 1x1 convolutions without a name.
    """
    unseen = list(found.unseen_products)
    if found.groups or holds_fp8(seen.table) or len(unseen) == len(found.products):
        return unseen
    attention = {name for _, core in seen.view.attention_blocks for name in core.node_names}
    return [node for node in unseen if node.name in attention]


def why_not_judged(seen: EngineEvidence, policy: RecipePolicy) -> str | None:
    """Why this table can carry no answer, in words; None when it can."""
    if coverage(seen).looked_at == 0:
        return "cannot judge: the graph has no product and no Q/DQ node"
    unseen = nodes_are_named(seen, policy)
    return f"cannot judge: {unseen[0].message} ({len(unseen)} such nodes)" if unseen else None
