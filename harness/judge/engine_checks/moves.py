"""E7: layers that only move, copy or retype numbers, which cost bandwidth and launches and compute nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from harness.judge.engine_checks.evidence import EngineEvidence
from harness.judge.engine_rows import is_product, tensor_bytes
from harness.judge.onnx_checks.finding import Findings, finding
from harness.judge.structure import DEQUANTIZE, MOVES, PRODUCTS
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow
from harness.records.policy import RecipePolicy
from harness.records.verdict import Finding

# Kinds of layers that say themselves what they are (TensorRT 10.6: the copies around a convolution, of empty metadata).
_MOVING_KINDS = frozenset({"cast", "copy", "reformat", "reshape", "shuffle"})
# What moves without being named in MOVES, which lists what a walk along one tensor may pass.
_MOVING = MOVES | {"Concat", "Expand", "Pad", "Slice", "Split"}


def moves_no_more(seen: EngineEvidence, policy: RecipePolicy) -> Findings:
    """E7: no more layers than in the approved engine only move numbers. Without one, nothing is found, and nothing passes."""
    rows = moving_rows(seen)
    if seen.approved_moves is None or len(rows) <= seen.approved_moves:
        return ()
    return tuple(_moved(seen, policy, row, len(rows)) for row in rows)


def _moved(seen: EngineEvidence, policy: RecipePolicy, row: LayerRow, count: int) -> Finding:
    found = f"layer {row.name} only moves {bytes_moved([row]):,} bytes a row, one of {count} such layers"
    why = "something new between two kernels keeps them from sharing a layout or a type; look at what this one joins"
    expected = f"{seen.approved_moves:g} such layers, as approved"
    return finding("E7", policy, seen.view, seen.place_of(row), found=found, expected=expected, why=why)


def moving_rows(seen: EngineEvidence) -> list[LayerRow]:
    """Layers that compute nothing: reformats by their kind, copies that name no node, and those of nodes that only move.

    A layer that repeats a product which another one computes, such as the padding before a convolution, only moves as well, unless
    it reads constants: then it finishes that product.
    """
    return [row for row in seen.table.rows if row.inputs and row.outputs and _only_moves(seen, row)]


def _only_moves(seen: EngineEvidence, row: LayerRow) -> bool:
    if row.kind.lower() in _MOVING_KINDS or not row.onnx_nodes:
        return not is_product(row)
    if is_product(row) or (seen.table.lists_constants and row.constants):
        return False
    nodes = seen.nodes_of(row)
    return bool(nodes) and all(node.op_type in _MOVING or _repeated(seen, node) for node in nodes)


def _repeated(seen: EngineEvidence, node: OnnxNode) -> bool:
    """Whether a product, or the DequantizeLinear before one, is computed by another layer that is a product's."""
    others = map(is_product, seen.carriers[node.name])
    return node.op_type in PRODUCTS | DEQUANTIZE and any(others)


def bytes_moved(rows: list[LayerRow]) -> int:
    """Bytes that layers read and write, with every dynamic axis counted as 1."""
    return sum(tensor_bytes(tensor) for row in rows for tensor in (*row.inputs, *row.outputs))


def moves_by_block(seen: EngineEvidence) -> Mapping[int | None, tuple[int, int]]:
    """Block index, or None for what lies outside, to the number of moving layers and the bytes that they move."""
    counts: Counter[int | None] = Counter()
    sizes: defaultdict[int | None, int] = defaultdict(int)
    for row in moving_rows(seen):
        place = seen.place_of(row)
        block = seen.view.block_of(place) if place is not None else None
        counts[block] += 1
        sizes[block] += bytes_moved([row])
    return {block: (count, sizes[block]) for block, count in counts.items()}
