"""Which transformer block each node of a graph belongs to, not its products alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode

_NONE = -1  # what lies before the first block


def block_members(view: GraphView) -> Mapping[str, int]:
    """Node name to block index; nodes outside all blocks are not in it, and none is where the blocks do not repeat.

    A node that computes from what a block's products gave belongs to that block, unless all that read it lead into the products of the
    next one, as its LayerNormalization does and the residual sum does not. After the last block this goes on only as far as the nodes
    are those that follow the products of the first.
    """
    if view.irregularity or not view.blocks:
        return {}
    own = {name: block.index for block in view.blocks for name in (*(gemm.node.name for gemm in block.gemms), *block.core.node_names)}
    behind = _last_block_upstream(view.graph.nodes, own)
    before = _leading_into(view, own, behind)
    inside = {node.name: behind[node.name] for node in view.graph.nodes if behind[node.name] != _NONE and node.name not in before}
    return before | _without_head(view, inside, own)


def _last_block_upstream(nodes: Iterable[OnnxNode], own: Mapping[str, int]) -> Mapping[str, int]:
    """Node name to the last block with a product among the node and what it computes from."""
    of_tensor: dict[str, int] = {}
    of_node: dict[str, int] = {}
    for node in nodes:
        upstream = max((of_tensor.get(name, _NONE) for name in node.inputs), default=_NONE)
        of_node[node.name] = max(upstream, own.get(node.name, _NONE))
        of_tensor.update(dict.fromkeys(node.outputs, of_node[node.name]))
    return of_node


def _leading_into(view: GraphView, own: Mapping[str, int], behind: Mapping[str, int]) -> dict[str, int]:
    """Nodes whose every reader is a product of one later block or leads into one."""
    before: dict[str, int] = {}
    for node in reversed(view.graph.nodes):
        readers = [reader.name for tensor in node.outputs for reader in view.consumers.get(tensor, ())]
        blocks = {before.get(name, own.get(name, _NONE)) for name in readers}
        if len(blocks) == 1 and _NONE not in blocks and node.name not in own:
            (block,) = blocks
            if behind[node.name] < block:
                before[node.name] = block
    return before


def _without_head(view: GraphView, inside: Mapping[str, int], own: Mapping[str, int]) -> dict[str, int]:
    """`inside` without what follows the last block: nodes beyond those that the first block has, in its order."""
    last = len(view.blocks) - 1
    if last == 0:
        return dict(inside)
    model = [view.op_types[name] for name, block in inside.items() if block == 0]
    tail = [name for name, block in inside.items() if block == last]
    kept = [name for name, op_type in zip(tail, model, strict=False) if view.op_types[name] == op_type or name in own]
    return {name: block for name, block in inside.items() if block != last or name in set(kept)}
