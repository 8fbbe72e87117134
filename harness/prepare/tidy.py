"""A readable graph: constants as initializers, every weight under its own name, every node with a name of its own.

Nothing here is an exporter fault; the graph computes the same before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.prepare.onnx_edit import Wiring, remove_nodes_making, remove_unread_initializers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto


def tidy(model: ModelProto, *, dim: int) -> None:
    """Tidy in place, and note the output's shape as [batch, dim]."""
    graph = model.graph
    lift_constants(graph)
    give_copies_their_own_weights(graph)
    remove_unread_initializers(graph)
    name_nodes(graph)
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    _set_size(graph.output[0], dim)


def lift_constants(graph: GraphProto) -> None:
    """Turn Constant nodes into initializers of the same name."""
    lifted = []
    for node in graph.node:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            lifted.append(node.output[0])
    remove_nodes_making(graph, lifted)


def give_copies_their_own_weights(graph: GraphProto) -> None:
    """Replace Identity nodes on initializers by initializers.

    The exporter keeps one of several equal weights and hangs Identity nodes on it, so that eleven blocks seem to use the
    first one's bias. A graph output keeps its Identity.
    """
    wiring = Wiring(graph)
    returned = {output.name for output in graph.output}
    copies = [
        node for node in graph.node if node.op_type == "Identity" and node.input[0] in wiring.initializer and node.output[0] not in returned
    ]
    for node in copies:
        tensor = graph.initializer.add()
        tensor.CopyFrom(wiring.initializer[node.input[0]])
        tensor.name = node.output[0]
    remove_nodes_making(graph, [node.output[0] for node in copies])


def name_nodes(graph: GraphProto) -> None:
    """Give each node a name that no earlier one has: its own, or its operator's, with a number where that is taken."""
    taken: set[str] = set()
    for node in graph.node:
        wanted = name = node.name or node.op_type
        number = 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        node.name = name


def _set_size(output: ValueInfoProto, dim: int) -> None:
    output.type.tensor_type.shape.dim[1].dim_value = dim
