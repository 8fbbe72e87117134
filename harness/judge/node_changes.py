"""E11: what two builds of one graph do unlike, one ONNX node at a time.

Nodes are matched by name, never layers: their names and numbers change with every compiler version. Worse is what was FP8 and is no longer,
in arithmetic or in storage; attention that was one layer; and a Q/DQ node that was fused and now has a layer of its own. Other partners
in a layer are shown and mean nothing by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.judge.engine_rows import is_fp8, tensor_bytes
from harness.judge.realised import UNSEEN, Realised, realised_nodes
from harness.judge.structure import PRODUCTS, QDQ
from harness.records.comparison import Aspect, Effect, NodeChange
from harness.records.engine_nodes import RealisedType
from harness.records.graph import GraphRoles, NodeRole
from harness.records.observations import LayerRow, LayerTable, LayerTensor
from harness.records.verdict import Finding, Severity

CHECK = "E11"

_STORED = PRODUCTS | {"Gather"}  # what reads weights or tables worth storing in FP8
_EXPECTED = {
    Aspect.TYPE: "FP8, as in A",
    Aspect.WEIGHTS: "weights stored in FP8, as in A",
    Aspect.ATTENTION: "one layer for the whole attention, as in A",
    Aspect.QDQ: "fused with the layer before or after it, as in A",
    Aspect.FUSION: "the partners of A",
}


class EngineNodes:
    """One engine, asked by ONNX node.

    Args:
        table: its layers.
        roles: what the nodes of its graph are.
    """

    def __init__(self, table: LayerTable, roles: GraphRoles) -> None:
        self.table = table
        self.roles = roles
        self._realised = realised_nodes(table)

    def __getitem__(self, node: str) -> Realised:
        return self._realised.get(node, UNSEEN)

    @cached_property
    def nodes(self) -> Mapping[str, NodeRole]:
        """Node name to what it is, in graph order."""
        return {role.name: role for role in self.roles.nodes}

    @cached_property
    def alone(self) -> Mapping[str, LayerRow]:
        """Q/DQ nodes in layers that carry nothing else, beside those that read an input of the graph."""
        qdq = {role.name for role in self.roles.nodes if role.op_type in QDQ}
        rows = (row for row in self.table.rows if row.onnx_nodes and qdq.issuperset(row.onnx_nodes))
        apart = [row for row in rows if not {tensor.name for tensor in row.inputs} & set(self.roles.inputs)]
        return {name: row for row in apart for name in row.onnx_nodes}

    def products_beyond(self, other: EngineNodes) -> tuple[str, ...]:
        """Products and softmaxes of attentions that `other`'s graph has not, by name, so that nothing can be said of them there."""
        products = (role.name for role in self.roles.nodes if role.op_type in PRODUCTS and role.name not in other.nodes)
        softmaxes = (parts[1] for parts in self.roles.attentions if parts not in other.roles.attentions)
        return (*products, *softmaxes)

    def attention_layers(self, parts: tuple[str, str, str]) -> int:
        """How many layers carry one attention; 0 when a part of it is in none."""
        carriers = [self[part].carriers for part in parts]
        if not all(carriers):
            return 0
        if any(set(parts) <= set(row.onnx_nodes) for row in carriers[0]):
            return 1
        return len({row.name for rows in carriers for row in rows})


def regressions(a: EngineNodes, b: EngineNodes, severity: Severity) -> tuple[Finding, ...]:
    """The nodes that are worse in `b` than in `a`, in graph order. Nodes that `b` does not name are not among them."""
    return tuple(finding_of(change, severity) for change in node_changes(a, b) if change.effect is Effect.WORSE)


def finding_of(change: NodeChange, severity: Severity) -> Finding:
    """A change for the worse, as a finding."""
    return Finding(
        check=CHECK,
        severity=severity,
        node=change.node,
        block=change.block,
        found=change.b,
        expected=_EXPECTED[change.aspect],
        message=f"{change.node}: {change.aspect} was {change.a}, is {change.b}",
    )


def node_changes(a: EngineNodes, b: EngineNodes) -> tuple[NodeChange, ...]:
    """Every node of both graphs that the two engines treat unlike, in the order of `a`'s graph."""
    return tuple(change for role in a.nodes.values() if role.name in b.nodes for change in _changes(role, a, b))


@dataclass(frozen=True, slots=True)
class _Words:
    """Both sides of one change, in words, and what the change means."""

    a: str
    b: str
    effect: Effect


def _changes(role: NodeRole, a: EngineNodes, b: EngineNodes) -> Iterator[NodeChange]:
    before, after = a[role.name], b[role.name]
    found = {
        Aspect.TYPE: _type_change(role, before, after),
        Aspect.WEIGHTS: _weights_change(role, before, after),
        Aspect.ATTENTION: _attention_change(role, a, b),
        Aspect.QDQ: _qdq_change(role, a, b),
    }
    for aspect, words in found.items():
        if words is not None:
            yield NodeChange(
                node=role.name, op_type=role.op_type, block=role.block, aspect=aspect, effect=words.effect, a=words.a, b=words.b
            )
    lost, gained = before.fused_with - after.fused_with, after.fused_with - before.fused_with
    if (lost or gained) and before.carriers and after.carriers:
        yield NodeChange(
            node=role.name,
            op_type=role.op_type,
            block=role.block,
            aspect=Aspect.FUSION,
            effect=Effect.NEUTRAL,
            a=_partners(before),
            b=_partners(after),
            lost=tuple(sorted(lost)),
            gained=tuple(sorted(gained)),
        )


def _type_change(role: NodeRole, before: Realised, after: Realised) -> _Words | None:
    if before.type == after.type:
        return None
    return _Words(before.type, after.type, _effect_of_type(role, before.type, after.type))


def _effect_of_type(role: NodeRole, before: RealisedType, after: RealisedType) -> Effect:
    """Only products gain from FP8; what a LayerNorm or a Q/DQ node reads follows from its neighbours."""
    if role.op_type not in PRODUCTS:
        return Effect.NEUTRAL
    if after is RealisedType.UNSEEN:
        return Effect.UNKNOWN
    if before is RealisedType.UNSEEN:
        return Effect.NEUTRAL
    if RealisedType.FP8 in (before, after):
        return Effect.BETTER if after is RealisedType.FP8 else Effect.WORSE
    return Effect.NEUTRAL


def _weights_change(role: NodeRole, before: Realised, after: Realised) -> _Words | None:
    first, second = before.weights, after.weights
    if role.op_type not in _STORED or first is None or second is None or is_fp8(first) == is_fp8(second):
        return None
    return _Words(_storage(first), _storage(second), Effect.BETTER if is_fp8(second) else Effect.WORSE)


def _storage(tensor: LayerTensor) -> str:
    return f"{tensor.datatype} {'x'.join(map(str, tensor.shape))} ({tensor_bytes(tensor):,} bytes)"


def _attention_change(role: NodeRole, a: EngineNodes, b: EngineNodes) -> _Words | None:
    """Told of the Softmax, for an attention that both graphs have."""
    parts = next((parts for parts in a.roles.attentions if parts[1] == role.name), None)
    if parts is None or parts not in b.roles.attentions:
        return None
    first, second = a.attention_layers(parts), b.attention_layers(parts)
    if not first or (first == 1) == (second == 1):
        return None
    if not second:  # split is split; of one layer, nobody knows
        return _Words(_layers(first), _layers(second), Effect.UNKNOWN) if first == 1 else None
    return _Words(_layers(first), _layers(second), Effect.BETTER if second == 1 else Effect.WORSE)


def _layers(count: int) -> str:
    if not count:
        return "named in part"
    return "one fused layer" if count == 1 else f"split over {count} layers"


def _qdq_change(role: NodeRole, a: EngineNodes, b: EngineNodes) -> _Words | None:
    first, second = a.alone.get(role.name), b.alone.get(role.name)
    if (first is None) == (second is None):
        return None
    effect = Effect.WORSE if second is not None else Effect.BETTER
    return _Words(_place(role.name, first, a), _place(role.name, second, b), effect)


def _place(node: str, alone: LayerRow | None, engine: EngineNodes) -> str:
    if alone is not None:
        return f"unfused, in layer {alone.name}"
    return "fused" if engine[node].carriers else "merged away"


def _partners(realised: Realised) -> str:
    count = len(realised.fused_with)
    return f"fused with {count} nodes" if count != 1 else "fused with 1 node"
