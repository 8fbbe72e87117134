"""What the nodes of a graph are, in the few words that a comparison of two engines needs of them."""

from __future__ import annotations

from harness.judge.structure import GraphView
from harness.records.graph import GraphRoles, NodeRole


def roles_of(view: GraphView) -> GraphRoles:
    """Operator and block of every node, the graph's inputs, and its attentions."""
    return GraphRoles(
        nodes=tuple(NodeRole(name=node.name, op_type=node.op_type, block=view.block_of(node)) for node in view.graph.nodes),
        inputs=tuple(port.name for port in view.graph.inputs),
        attentions=tuple((core.scores.name, core.softmax.name, core.context.name) for core in view.cores),
    )
