"""Casts to FP32 in front of weight GEMMs of an FP16 graph, where nothing asks for FP32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.prepare.onnx_edit import Wiring, inferred_types, read_instead, remove_nodes_making, remove_unread_initializers
from harness.prepare.repair.originals import Originals
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_FLOAT, _HALF = 1, 10  # of TensorProto.DataType
_GEMMS = frozenset({"MatMul", "Gemm"})
# What moves numbers of its first input without computing new ones.
_MOVES = frozenset({"Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def float_casts(model: ModelProto, _: Originals) -> Repair | None:
    """A cast from FP16 to FP32, then only Q/DQ and weight GEMMs with their biases, then a cast back, or a type that contradicts.

    Such a GEMM runs in FP32 beside FP16 neighbours, or TensorRT refuses it. The casts are removed, and the scales, weights and
    biases between them become FP16. A cast that anything else reads, such as a norm, a softmax or a sum of two activations, is
    taken as meant, and so is every FP32 of a graph that declares FP32 itself.
    """
    graph = model.graph
    types = _types(model)
    if _FLOAT in {port.type.tensor_type.elem_type for port in (*graph.input, *graph.output)}:
        return None
    wiring = Wiring(graph)
    islands = [island for node in graph.node if (island := _island(node, wiring, types)) is not None]
    if not islands:
        return None
    for island in islands:
        _lower(graph, island)
    remove_nodes_making(graph, [cast.output[0] for island in islands for cast in (island.entry, *island.exits)])
    _remove_unread_casts(graph)
    remove_unread_initializers(graph)
    detail = f"{len(islands)} casts to FP32 stood before nothing but weight GEMMs of an FP16 graph; the GEMMs are FP16 again"
    return Repair(name="float_casts", count=len(islands), detail=detail)


@dataclass(slots=True)
class _Island:
    """What lies between one cast to FP32 and the casts back.

    Attributes:
        constants: FP32 constants of its nodes, as (node, index of the input, initializer).
        widened: constant operands behind a cast to FP32, as (node, index of the input, tensor before the cast).
        has_gemm: whether a weight GEMM is inside, or right behind a DequantizeLinear at its end.
    """

    entry: NodeProto
    exits: list[NodeProto] = field(default_factory=list)
    constants: list[tuple[NodeProto, int, TensorProto]] = field(default_factory=list)
    widened: list[tuple[NodeProto, int, str]] = field(default_factory=list)
    has_gemm: bool = False


def _types(model: ModelProto) -> dict[str, int]:
    """Tensor to element type, of inputs, initializers and whatever follows from the nodes."""
    ports = {port.name: port.type.tensor_type.elem_type for port in model.graph.input}
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return ports | constants | {name: info.type.tensor_type.elem_type for name, info in inferred_types(model).items()}


def _island(entry: NodeProto, wiring: Wiring, types: dict[str, int]) -> _Island | None:
    """The island behind a cast; None for what is no cast from FP16 to FP32, and for one that is meant."""
    if not _casts_to(entry, _FLOAT) or types.get(entry.input[0]) != _HALF:
        return None
    island = _Island(entry)
    pending = [entry.output[0]]
    while pending:
        tensor = pending.pop()
        for reader in wiring.readers[tensor]:
            follows = _enter(island, reader, tensor, wiring)
            if follows is None:
                return None
            pending += follows
    return island if island.has_gemm and all(_fits_half(tensor) for *_, tensor in island.constants) else None


def _enter(island: _Island, node: NodeProto, tensor: str, wiring: Wiring) -> list[str] | None:
    """Take a reader of an FP32 tensor into the island: its FP32 outputs, or None when FP32 is meant there."""
    if _casts_to(node, _HALF):
        island.exits.append(node)
        return []
    if node.op_type == "Shape":
        return []
    if node.op_type in _MOVES and node.input[0] == tensor:
        return list(node.output)
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and node.input[0] == tensor:
        return _enter_pair(island, node, wiring)
    if node.op_type in _GEMMS or node.op_type == "Add":
        return _enter_product(island, node, tensor, wiring)
    return None


def _enter_pair(island: _Island, node: NodeProto, wiring: Wiring) -> list[str] | None:
    scale = _constant(node.input[1], wiring)
    if scale is None:
        return None
    if scale.data_type == _FLOAT:
        island.constants.append((node, 1, scale))
    elif node.op_type == "DequantizeLinear":  # its output has the scale's type: FP16 already
        island.has_gemm |= any(reader.op_type in _GEMMS for reader in wiring.readers[node.output[0]])
        return []
    return [node.output[0]]


def _enter_product(island: _Island, node: NodeProto, tensor: str, wiring: Wiring) -> list[str] | None:
    """A GEMM or Add whose other operands are constants."""
    island.has_gemm |= node.op_type in _GEMMS
    is_float = True
    for index, name in enumerate(node.input):
        if name == tensor or not name:
            continue
        cast = wiring.made_by(name, "Cast")
        widened = cast.input[0] if cast is not None and _casts_to(cast, _FLOAT) else None
        place = _place_of_type(node, index, widened or name, wiring)
        if place is None:
            return None
        island.constants += [place] if place[2].data_type == _FLOAT else []
        island.widened += [(node, index, widened)] if widened else []
        is_float &= widened is not None or place[2].data_type == _FLOAT
    return list(node.output) if is_float else []  # beside an FP16 constant the output was never FP32


def _place_of_type(node: NodeProto, index: int, name: str, wiring: Wiring) -> tuple[NodeProto, int, TensorProto] | None:
    """Where the type of a constant operand is set: at its initializer, or at the scale of its DequantizeLinear."""
    dequantize = wiring.made_by(name, "DequantizeLinear")
    if dequantize is None:
        constant = _constant(name, wiring)
        return None if constant is None else (node, index, constant)
    scale = _constant(dequantize.input[1], wiring)
    is_weight = _constant(dequantize.input[0], wiring) is not None
    return (dequantize, 1, scale) if scale is not None and is_weight else None


def _constant(tensor: str, wiring: Wiring) -> TensorProto | None:
    """The initializer behind a tensor, through the Identity nodes that exporters hang on shared ones."""
    node = wiring.made_by(tensor, "Identity")
    while node is not None:
        tensor = node.input[0]
        node = wiring.made_by(tensor, "Identity")
    return wiring.initializer.get(tensor)


def _casts_to(node: NodeProto, elem_type: int) -> bool:
    return node.op_type == "Cast" and any(attribute.name == "to" and attribute.i == elem_type for attribute in node.attribute)


def _fits_half(tensor: TensorProto) -> bool:
    import onnx

    return bool(np.abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0) <= np.finfo(np.float16).max)


def _lower(graph: GraphProto, island: _Island) -> None:
    import onnx

    for node, index, before in island.widened:
        node.input[index] = before
    known = {tensor.name for tensor in graph.initializer}
    for node, index, tensor in island.constants:
        name = f"{tensor.name}/float16"
        if name not in known:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            graph.initializer.append(onnx.numpy_helper.from_array(half, name))
            known.add(name)
        node.input[index] = name
    for cast in (island.entry, *island.exits):
        _skip(graph, cast)


def _skip(graph: GraphProto, cast: NodeProto) -> None:
    """Let everything around a cast do without it; a graph output keeps its name."""
    before, after = cast.input[0], cast.output[0]
    if after not in {output.name for output in graph.output}:
        read_instead(graph.node, after, before)
        return
    maker = next(node for node in graph.node if before in node.output)
    read_instead(graph.node, before, after)
    maker.output[list(maker.output).index(before)] = after
    cast.output[0] = before  # which nothing reads any more


def _remove_unread_casts(graph: GraphProto) -> None:
    read = Wiring(graph).readers.keys() | {output.name for output in graph.output}
    remove_nodes_making(graph, [node.output[0] for node in graph.node if node.op_type == "Cast" and node.output[0] not in read])
