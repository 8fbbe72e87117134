"""Faults of placement: Q/DQ where no product gains from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.prepare.onnx_edit import Wiring, read_instead, remove_nodes_making, remove_unread_initializers
from harness.prepare.repair.originals import Originals, original_of
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def softmax_without_v(model: ModelProto, _: Originals) -> Repair | None:
    """Q/DQ on a softmax whose other factor, V, is not quantized: it costs the fused attention and wins no FP8 product."""
    graph = model.graph
    wiring = Wiring(graph)
    pairs = list(_softmax_pairs(graph, wiring))
    if not pairs:
        return None
    for q, dq in pairs:
        read_instead(wiring.readers[dq.output[0]], dq.output[0], q.input[0])
    remove_nodes_making(graph, [node.output[0] for pair in pairs for node in pair])
    remove_unread_initializers(graph)
    detail = f"{len(pairs)} softmax outputs had Q/DQ while V is not quantized, which breaks TensorRT's fused attention; removed"
    return Repair(name="softmax_without_v", count=len(pairs), detail=detail)


def weight_only_convolution(model: ModelProto, originals: Originals) -> Repair | None:
    """A convolution with FP8 weights and a float input: rounded weights, and a kernel that unpacks them, for nothing."""
    graph = model.graph
    wiring = Wiring(graph)
    found = list(_weight_only_convolutions(graph, wiring))
    if not found:
        return None
    for conv, dq in found:
        conv.input[1] = _put_back(graph, conv, dq, wiring, originals)
    remove_nodes_making(graph, [dq.output[0] for _, dq in found])
    remove_unread_initializers(graph)
    detail = f"{len(found)} convolutions had FP8 weights and a float input; the original weights were put back"
    return Repair(name="weight_only_convolution", count=len(found), detail=detail)


def _softmax_pairs(graph: GraphProto, wiring: Wiring) -> Iterator[tuple[NodeProto, NodeProto]]:
    for q in graph.node:
        if q.op_type != "QuantizeLinear" or not wiring.made_by(q.input[0], "Softmax"):
            continue
        readers = wiring.readers[q.output[0]]
        if len(readers) == 1 and readers[0].op_type == "DequantizeLinear" and _multiplies_plain_v(readers[0], wiring):
            yield q, readers[0]


def _multiplies_plain_v(dq: NodeProto, wiring: Wiring) -> bool:
    products = wiring.readers[dq.output[0]]
    return bool(products) and all(
        node.op_type == "MatMul" and node.input[0] == dq.output[0] and not _is_quantized(node.input[1], wiring) for node in products
    )


def _is_quantized(tensor: str, wiring: Wiring) -> bool:
    """Whether Q/DQ precedes `tensor`, looking through nodes that only move elements."""
    node = wiring.maker.get(tensor)
    while node is not None and node.op_type in {"Transpose", "Reshape", "Squeeze", "Unsqueeze"}:
        node = wiring.maker.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _weight_only_convolutions(graph: GraphProto, wiring: Wiring) -> Iterator[tuple[NodeProto, NodeProto]]:
    for conv in graph.node:
        if conv.op_type != "Conv":
            continue
        dq = wiring.made_by(conv.input[1], "DequantizeLinear")
        if dq is not None and dq.input[0] in wiring.initializer and not wiring.made_by(conv.input[0], "DequantizeLinear"):
            yield conv, dq


def _put_back(graph: GraphProto, conv: NodeProto, dq: NodeProto, wiring: Wiring, originals: Originals) -> str:
    import onnx

    name, original = original_of(conv, originals, shape=tuple(wiring.initializer[dq.input[0]].dims))
    if name not in wiring.initializer:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(original), name))
    return name
