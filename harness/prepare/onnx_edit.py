"""Small edits of an ONNX graph that repairs and tidying share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_SMALL = 1024  # elements; larger constants hold weights, which no shape is computed from


class Wiring:
    """Who makes and who reads each tensor, as the graph was when this was made."""

    def __init__(self, graph: GraphProto) -> None:
        self.maker: dict[str, NodeProto] = {output: node for node in graph.node for output in node.output}
        self.initializer: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def made_by(self, tensor: str, op_type: str) -> NodeProto | None:
        """The node that makes `tensor`, if it is of this type."""
        node = self.maker.get(tensor)
        return node if node is not None and node.op_type == op_type else None


def read_instead(readers: Collection[NodeProto], old: str, new: str) -> None:
    """Make `readers` read tensor `new` wherever they read `old`."""
    for node in readers:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def remove_nodes_making(graph: GraphProto, tensors: Collection[str]) -> None:
    """Remove the nodes whose first output is one of `tensors`."""
    gone = set(tensors)
    kept = [node for node in graph.node if not (node.output and node.output[0] in gone)]
    del graph.node[:]
    graph.node.extend(kept)


def remove_unread_initializers(graph: GraphProto) -> None:
    """Remove initializers that neither a node reads nor the graph returns."""
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def inferred_types(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Types and shapes that follow from the nodes alone, by tensor. Weights count as inputs, so that inference does not copy them."""
    import onnx

    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node, input=model.graph.input, output=model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    return {info.name: info for info in onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.value_info}
