"""What each layer of a profiled engine costs, what it does, where it belongs, and what its time bought.

Layers are told by name; a name that is told twice is taken in order. Where a layer belongs is said by the ONNX nodes that it carries, or,
where it carries none, by those that it names, since it prepares or finishes them. The block of a product decides for its layer. Of other
layers with nodes of two neighbouring blocks, such as the sum at the end of one and the normalization that begins the next, either block has
half the time; a layer with nodes of more than two is its own place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.judge.engine_rows import is_product, tensor_bytes
from harness.judge.realised import type_of
from harness.judge.structure import MOVES, PRODUCTS, QDQ
from harness.records.engine_nodes import EngineNode, RealisedType
from harness.records.explanation import Work
from harness.records.observations import LayerRow
from harness.records.profile import EngineProfile

BEFORE, AFTER, SEVERAL, NOWHERE = "before the blocks", "after the blocks", "several blocks at once", "no node of the graph"
EVERYWHERE = "the whole tower"  # where blocks are unknown
_MOST_BLOCKS = 2  # that a layer's time is shared between

_MOVING = MOVES | {"Concat", "Expand", "Pad", "Slice", "Split"}
_MOVING_KINDS = frozenset({"cast", "concat", "copy", "expand", "identity", "reformat", "reshape", "shuffle", "slice", "split", "transpose"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
# What compilers and runtimes call an attention that they fused, where the graph does not tell.
_ATTENTION = ("mha", "attention", "fmha")
# Layers that synchronise, or compute shapes on the host.
_NO_WORK = frozenset({"shape_call", "signal", "wait", "constant"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One layer of one launch.

    Attributes:
        ms: median of its launches.
        row: of the layer table; None where the table has no such layer.
        nodes: ONNX nodes that it carries.
        places: where it belongs, with its share of the time; the shares add up to 1.
        flops: operations of the ONNX products that it carries, a launch; 0 where it carries none or they are unknown.
        nbytes: of its operands as the table lists them, a launch; None without a row or with a dynamic axis.
    """

    name: str
    ms: float
    row: LayerRow | None
    work: Work
    nodes: tuple[str, ...] = ()
    places: Mapping[str, float] = field(default_factory=dict[str, float])
    flops: int = 0
    nbytes: int | None = None


def layer_costs(profile: EngineProfile) -> tuple[LayerCost, ...]:
    """Every layer that the profiler told, in its order; none is dropped."""
    return _Costs(profile).all()


def place_order(place: str) -> tuple[int, int]:
    """Sort key of places: as a tower computes them."""
    if place.startswith("block "):
        return 1, int(place.removeprefix("block "))
    return {BEFORE: 0, SEVERAL: 2, AFTER: 3, EVERYWHERE: 4, NOWHERE: 5}[place], 0


class _Costs:
    def __init__(self, profile: EngineProfile) -> None:
        self._profile = profile
        self._by_name: Mapping[str, EngineNode] = {node.node: node for node in profile.nodes}
        self._carried: defaultdict[int, list[EngineNode]] = defaultdict(list)
        for node in profile.nodes:
            if node.layer is not None:
                self._carried[node.layer].append(node)
        self._has_graph = any(node.op_type is not None for node in profile.nodes)
        # Products alone: what widens the weights of a block may run before everything else.
        products = [node.layer for node in profile.nodes if node.block is not None and node.op_type in PRODUCTS and node.layer is not None]
        self._first = min(products, default=None)

    def all(self) -> tuple[LayerCost, ...]:
        waiting: defaultdict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(self._profile.layers):
            waiting[row.name].append(index)
        found: list[LayerCost] = []
        for layer in self._profile.times.layers:
            index = waiting[layer.name].pop(0) if waiting[layer.name] else None
            found.append(self._cost(layer.name, layer.median_ms, index))
        return tuple(found)

    def _cost(self, name: str, ms: float, index: int | None) -> LayerCost:
        if index is None:
            work = Work.REFORMAT if name.startswith("Reformatting") else Work.OTHER
            return LayerCost(name=name, ms=ms, row=None, work=work, places={NOWHERE: 1.0})
        row = self._profile.layers[index]
        carried = self._carried[index]
        named = [self._by_name[node] for node in row.onnx_nodes if node in self._by_name]
        rows = self._profile.times.rows
        return LayerCost(
            name=name,
            ms=ms,
            row=row,
            work=self._work(row, carried, named),
            nodes=tuple(node.node for node in carried),
            places=self._places(index, carried or named),
            flops=rows * sum(self._profile.flops.get(node.node, 0) for node in carried),
            nbytes=_bytes(row),
        )

    def _work(self, row: LayerRow, carried: Sequence[EngineNode], named: Sequence[EngineNode]) -> Work:
        op_types = [node.op_type for node in named if node.op_type is not None]
        if _is_attention(row, op_types):
            return Work.ATTENTION
        if is_product(row) or row.kind in PRODUCTS or (row.kind.endswith("MatMul") and row.inputs):
            is_fp8 = type_of(row, lists_constants=self._profile.lists_constants) is RealisedType.FP8
            return Work.FP8_GEMM if is_product(row) and is_fp8 else Work.FP16_GEMM
        done = {node.op_type for node in (carried or named) if node.op_type is not None} or {row.kind}
        if done & _SOFTMAX or (not op_types and row.kind in _SOFTMAX):
            return Work.SOFTMAX
        return _lesser_work(row, done, repeats_only=not carried and bool(named))

    def _places(self, index: int, nodes: Sequence[EngineNode]) -> Mapping[str, float]:
        if self._has_graph:  # a runtime may add nodes of its own, and nobody knows where they belong
            nodes = [node for node in nodes if node.op_type is not None]
        if self._first is None:
            return {EVERYWHERE if nodes else NOWHERE: 1.0}
        if not nodes:
            return {NOWHERE: 1.0}
        products = [node for node in nodes if node.op_type in PRODUCTS]
        blocks = {node.block for node in (products or nodes)}
        places = sorted({self._outside(index) if block is None else f"block {block}" for block in blocks})
        if len(places) > _MOST_BLOCKS:
            return {SEVERAL: 1.0}
        return dict.fromkeys(places, 1 / len(places))

    def _outside(self, index: int) -> str:
        return BEFORE if index < (self._first or 0) else AFTER


def _is_attention(row: LayerRow, op_types: Sequence[str]) -> bool:
    products = sum(op_type in PRODUCTS for op_type in op_types)
    if op_types:
        return products > 1 and not _SOFTMAX.isdisjoint(op_types)
    return any(word in text.lower() for word in _ATTENTION for text in (row.name, row.kind, row.tactic))


def _lesser_work(row: LayerRow, done: Iterable[str | None], *, repeats_only: bool) -> Work:
    """What a layer does that is neither product nor Softmax.

    Args:
        repeats_only: whether another layer carries all nodes that it names. Without constants it then only moves what that one reads.
    """
    done = set(done)
    if row.kind.lower() in _NO_WORK:
        return Work.OTHER
    if row.kind.lower() in _MOVING_KINDS or not row.onnx_nodes or done <= _MOVING:
        return Work.REFORMAT
    if done <= _MOVING | QDQ:
        return Work.QUANTIZE
    if repeats_only and not row.constants and done <= _MOVING | QDQ | PRODUCTS:
        return Work.REFORMAT
    return Work.ELEMENTWISE


def _bytes(row: LayerRow) -> int | None:
    tensors = (*row.inputs, *row.constants, *row.outputs)
    if not tensors or any(length < 0 for tensor in tensors for length in tensor.shape):
        return None
    return sum(map(tensor_bytes, tensors))
