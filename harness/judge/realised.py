"""What became of each ONNX node in an engine: the layers that carry it, the type they compute in, and what is fused with it.

It needs a layer table alone, so two builds can be compared where neither ONNX file nor compiler is at hand.

A node's layers are those that name it in their metadata. Where a matrix product or a convolution is among them, that one computes the
node, and the others only prepare or finish it: pad its input, widen its weights, move its bias. So the type and the partners of a node are
those of its products where it has any; its stored weights are looked for in all of its layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from harness.judge.engine_rows import (
    CONVOLUTION_KINDS,
    carriers_of,
    convolution_not_fp8,
    is_fp8,
    is_product,
    multiplies_fp8_activations,
    tensor_bytes,
    why_not_fp8,
)
from harness.records.engine_nodes import RealisedType
from harness.records.observations import LayerRow, LayerTable, LayerTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """One ONNX node in one engine.

    Attributes:
        carriers: the layers that name it, in the table's order.
        fused_with: the other nodes of the layers that compute it.
        weights: the largest constant that its layers read, as stored; None where they read none beyond single numbers, or where the
            table lists no constants.
    """

    type: RealisedType
    carriers: tuple[LayerRow, ...]
    fused_with: frozenset[str]
    weights: LayerTensor | None


UNSEEN = Realised(type=RealisedType.UNSEEN, carriers=(), fused_with=frozenset(), weights=None)

_NO_NUMBER = re.compile(r"\b(INT\d*|BOOL)\b", re.IGNORECASE)  # token ids and shapes say nothing about the type that is computed in


def realised_nodes(table: LayerTable) -> Mapping[str, Realised]:
    """ONNX node name to what became of it, for every node that some layer names, in the table's order."""
    types = {id(row): type_of(row, lists_constants=table.lists_constants) for row in table.rows}
    return {name: _realised(name, rows, [types[id(row)] for row in computing(rows)]) for name, rows in carriers_of(table).items()}


def computing(rows: Iterable[LayerRow]) -> tuple[LayerRow, ...]:
    """Those of a node's layers that compute it: its products where there are any, else all."""
    rows = tuple(rows)
    return tuple(filter(is_product, rows)) or rows


def _realised(name: str, rows: list[LayerRow], types: list[RealisedType]) -> Realised:
    partners = {partner for row in computing(rows) for partner in row.onnx_nodes}
    constants = [tensor for row in rows for tensor in row.constants if prod(tensor.shape) > 1]
    return Realised(
        type=types[0] if len(set(types)) == 1 else RealisedType.MIXED,
        carriers=tuple(rows),
        fused_with=frozenset(partners - {name}),
        weights=max(constants, key=tensor_bytes, default=None),
    )


def type_of(row: LayerRow, *, lists_constants: bool) -> RealisedType:
    """What one layer computes in."""
    return _product_type(row, lists_constants) if is_product(row) else _other_type(row)


def _product_type(row: LayerRow, lists_constants: bool) -> RealisedType:
    why_not = convolution_not_fp8 if row.kind in CONVOLUTION_KINDS else why_not_fp8
    if why_not([row], lists_constants=lists_constants) is None or multiplies_fp8_activations([row]):
        return RealisedType.FP8
    return RealisedType.MIXED if any(map(is_fp8, (*row.inputs, *row.constants))) else RealisedType.HALF


def _other_type(row: LayerRow) -> RealisedType:
    """By its inputs; by its constants where no input is a number, as in kernels that widen weights or look up tokens."""
    read = [tensor for tensor in row.inputs if _is_number(tensor)]
    read = read or [tensor for tensor in row.constants if _is_number(tensor) and prod(tensor.shape) > 1]
    narrow = [is_fp8(tensor) for tensor in read]
    if not any(narrow):
        return RealisedType.HALF
    return RealisedType.FP8 if all(narrow) else RealisedType.MIXED


def _is_number(tensor: LayerTensor) -> bool:
    return _NO_NUMBER.search(tensor.datatype) is None
