"""What Model Optimizer's exporter gets wrong, mended one named fault at a time.

Each repair changes the model in place and says what it did, or returns None when there is nothing to mend. Seen with Model
Optimizer 0.47; a repair that no longer fires with a later version can go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import BuildFailed
from harness.prepare.onnx_edit import Wiring, read_instead, remove_nodes_making, remove_unread_initializers
from harness.records.artifacts import Repair

if TYPE_CHECKING:
    import onnx
    from onnx import GraphProto, ModelProto, NodeProto

Originals = Mapping[str, NDArray[np.generic]]  # the encoder's float16 weights by parameter name

_VENDOR_DOMAIN = "trt"
_SMALL = 1024  # elements; larger constants hold weights, which no shape is computed from


def repair(model: ModelProto, originals: Originals) -> tuple[Repair, ...]:
    """Apply every repair of `REPAIRS`, in order, in place; returns those that found something.

    Args:
        originals: the encoder's weights before quantization, by parameter name, for what the exporter quantized unasked.
    Raises:
        BuildFailed: a weight to put back is not among `originals`.
    """
    done = (step(model, originals) for step in REPAIRS)
    return tuple(mended for mended in done if mended is not None)


def standard_domain(model: ModelProto, _: Originals) -> Repair | None:
    """QuantizeLinear and DequantizeLinear left in the exporter's own domain `trt`, where only TensorRT finds them."""
    strays = [node for node in model.graph.node if node.domain == _VENDOR_DOMAIN and node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    if not strays:
        return None
    for node in strays:
        node.domain = ""
    _drop_unused_opset(model, _VENDOR_DOMAIN)
    detail = f"{len(strays)} Q/DQ nodes were in domain 'trt', which ONNX does not define; moved to ai.onnx"
    return Repair(name="standard_domain", count=len(strays), detail=detail)


def scalar_zero_point(model: ModelProto, _: Originals) -> Repair | None:
    """Zero points of shape [1] beside scales of shape []; ONNX wants one shape for both."""
    wiring = Wiring(model.graph)
    wrong = {node.input[2]: node for node in model.graph.node if _zero_point_outgrows_scale(node, wiring)}
    if not wrong:
        return None
    for name in wrong:
        wiring.initializer[name].ClearField("dims")
    detail = f"{len(wrong)} zero points had shape [1] beside a scalar scale; made scalar"
    return Repair(name="scalar_zero_point", count=len(wrong), detail=detail)


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


def stale_types(model: ModelProto, _: Originals) -> Repair | None:
    """Element types noted for tensors before the exporter changed what makes them; ONNX Runtime refuses the contradiction."""
    inferred = {info.name: info for info in _inferred(model)}
    noted = list(model.graph.value_info)
    stale = [info.name for info in noted if info.name in inferred and _elem(info) not in (0, _elem(inferred[info.name]))]
    if not stale:
        return None
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred[info.name] for info in noted if info.name in inferred)
    detail = f"{len(stale)} of {len(noted)} noted tensor types contradicted the nodes that make them; inferred again"
    return Repair(name="stale_types", count=len(stale), detail=detail)


REPAIRS: tuple[Callable[[ModelProto, Originals], Repair | None], ...] = (
    standard_domain,
    scalar_zero_point,
    softmax_without_v,
    weight_only_convolution,
    stale_types,  # last, since it infers types through the nodes that the others mended
)


def _drop_unused_opset(model: ModelProto, domain: str) -> None:
    if any(node.domain == domain for node in model.graph.node):
        return
    kept = [opset for opset in model.opset_import if opset.domain != domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _zero_point_outgrows_scale(node: NodeProto, wiring: Wiring) -> bool:
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} or len(node.input) < 3:
        return False
    scale, zero_point = (wiring.initializer.get(name) for name in node.input[1:3])
    return scale is not None and zero_point is not None and not scale.dims and list(zero_point.dims) == [1]


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

    # The exporter names a node after the module that made it: /tower/conv1/Conv is the module tower.conv1.
    name = conv.name.strip("/").rpartition("/")[0].replace("/", ".") + ".weight"
    shape = tuple(wiring.initializer[dq.input[0]].dims)
    if name not in originals or originals[name].shape != shape:
        found = f"shape {originals[name].shape}" if name in originals else "nothing"
        raise BuildFailed(
            f"convolution {conv.name!r} was quantized unasked, and its original weight {name!r} is not to be had: "
            f"found {found}, expected shape {shape}; the exporter names its nodes differently than Model Optimizer 0.47 does"
        )
    if name not in wiring.initializer:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(originals[name]), name))
    return name


def _inferred(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """Types and shapes that follow from the nodes alone. Weights count as inputs, so that inference does not copy them."""
    import onnx

    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node, input=model.graph.input, output=model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    return list(onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.value_info)


def _elem(info: onnx.ValueInfoProto) -> int:
    return info.type.tensor_type.elem_type
