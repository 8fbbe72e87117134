"""Where each ONNX node went in an engine: the layer that carries it, the types of that layer, and what is fused with it.

Of the layers that name a node, one carries it: a matrix product or a convolution where there is one, else the layer that names the most
nodes. The others prepare or finish what it does, such as the kernel that lays out the result of a fused attention.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import prod

from harness.judge.alike import alike
from harness.judge.block_members import block_members
from harness.judge.engine_rows import is_fp8, is_product
from harness.judge.realised import computing, type_of
from harness.judge.structure import QUANTIZE, GraphView
from harness.records.engine_nodes import EngineNode, OperandTypes, RealisedType
from harness.records.observations import LayerRow, LayerTable


def engine_nodes(table: LayerTable, view: GraphView | None = None) -> tuple[EngineNode, ...]:
    """Every node of the graph, in its order, and those that layers name beyond it; without the graph, those that layers name.

    Args:
        table: the engine's layers.
        view: the graph it was built from; without it operators and blocks are unknown.
    """
    return _Nodes(table, view).all()


class _Nodes:
    def __init__(self, table: LayerTable, view: GraphView | None) -> None:
        self._table = table
        self._op_types: Mapping[str, str] = view.op_types if view else {}
        self._blocks: Mapping[str, int] = block_members(view) if view else {}
        self._named: defaultdict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(table.rows):
            for name in row.onnx_nodes:
                self._named[name].append(index)
        self._merged: Mapping[str, str] = _merged_into(view, frozenset(self._named)) if view else {}
        self._names = tuple(dict.fromkeys((*self._op_types, *self._named)))
        self._carrier = {name: self._carrying(self._layers(name)) for name in self._names if self._layers(name)}
        self._carried: defaultdict[int, list[str]] = defaultdict(list)
        for name, index in self._carrier.items():
            self._carried[index].append(name)

    def all(self) -> tuple[EngineNode, ...]:
        return tuple(self._node(name) for name in self._names)

    def _layers(self, name: str) -> list[int]:
        return self._named.get(self._merged.get(name, name), [])

    def _carrying(self, layers: list[int]) -> int:
        rows = self._table.rows
        compute = {id(row) for row in computing(rows[index] for index in layers)}
        return max((index for index in layers if id(rows[index]) in compute), key=lambda index: len(rows[index].onnx_nodes))

    def _node(self, name: str) -> EngineNode:
        index, layers = self._carrier.get(name), self._layers(name)
        row = None if index is None else self._table.rows[index]
        return EngineNode(
            node=name,
            op_type=self._op_types.get(name),
            block=self._blocks.get(name),
            realised=self._realised(name, row, layers),
            layer=index,
            kernel=row.name if row else None,
            kind=row.kind if row else None,
            operands=_operands(row) if row else None,
            layers=tuple(layers),
            fused_with=() if index is None else tuple(other for other in self._carried[index] if other != name),
            merged_into=self._merged.get(name),
        )

    def _realised(self, name: str, carrier: LayerRow | None, layers: list[int]) -> RealisedType:
        if carrier is None:
            return RealisedType.UNSEEN
        rows = [self._table.rows[index] for index in layers]
        if self._op_types.get(name) in QUANTIZE:
            writes_fp8 = any(is_fp8(tensor) for row in rows for tensor in row.outputs)
            return RealisedType.FP8 if writes_fp8 else RealisedType.HALF
        # A product that was split into several is what all of them are; of other layers, only the carrier computes.
        deciding = computing(rows) if is_product(carrier) else (carrier,)
        types = {type_of(row, lists_constants=self._table.lists_constants) for row in deciding}
        return types.pop() if len(types) == 1 else RealisedType.MIXED


def _operands(row: LayerRow) -> OperandTypes:
    multiplied = [tensor for tensor in row.constants if len(tensor.shape) > 1 or tensor.name == "Weights"] if is_product(row) else []
    weights = max(multiplied, key=lambda tensor: prod(tensor.shape), default=None)
    return OperandTypes(
        inputs=tuple(tensor.datatype for tensor in row.inputs),
        constants=tuple(tensor.datatype for tensor in row.constants),
        outputs=tuple(tensor.datatype for tensor in row.outputs),
        weights=weights.datatype if weights else None,
    )


def _merged_into(view: GraphView, named: frozenset[str]) -> Mapping[str, str]:
    """Q/DQ nodes that no layer names, to the named one that does the same to the same tensor with the same scale."""
    groups = ([node.name for node in group] for group in alike(view).values())
    return dict(pair for names in groups for pair in _pairs(names, named))


def _pairs(names: list[str], named: frozenset[str]) -> Iterable[tuple[str, str]]:
    kept = next((name for name in names if name in named), None)
    return ((name, kept) for name in names if name not in named) if kept is not None else ()
