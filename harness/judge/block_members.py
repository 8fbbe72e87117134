"""Which transformer block each node of a graph belongs to, not its products alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode

_NONE = -1  # what lies before the first block


def block_members(view: GraphView) -> Mapping[str, int]:
    """Node name to block index; nodes outside all blocks are not in it, and none is where the blocks do not repeat.

    A node that computes from what a block's products gave belongs to that block, unless all that read it lead into the products of the
    next one, as its LayerNormalization does and the residual sum does not. After the last block's products this goes on for as many
    nodes as follow the first block's.
    """
    if view.irregularity or len(view.blocks) < 2:  # one block repeats nothing, and its ends cannot be told
        return {}
    own = {name: block.index for block in view.blocks for name in block.product_names}
    before = _leading_into(view, own)
    behind = _last_block_upstream(view.graph.nodes, own)
    inside = {node.name: behind[node.name] for node in view.graph.nodes if behind[node.name] != _NONE and node.name not in before}
    return before | _without_head(view, inside, own)


def _leading_into(view: GraphView, own: Mapping[str, int]) -> dict[str, int]:
    """Nodes whose every reader is a product of one and the same block, or leads into one."""
    before: dict[str, int] = {}
    for node in reversed(view.graph.nodes):
        readers = [reader.name for tensor in node.outputs for reader in view.consumers.get(tensor, ())]
        blocks = {before.get(name, own.get(name, _NONE)) for name in readers}
        if len(blocks) == 1 and _NONE not in blocks and node.name not in own:
            before[node.name] = blocks.pop()
    return before


def _last_block_upstream(nodes: Iterable[OnnxNode], own: Mapping[str, int]) -> Mapping[str, int]:
    """Node name to the last block with a product among the node and what it computes from."""
    of_tensor: dict[str, int] = {}
    of_node: dict[str, int] = {}
    for node in nodes:
        upstream = max((of_tensor.get(name, _NONE) for name in node.inputs), default=_NONE)
        of_node[node.name] = max(upstream, own.get(node.name, _NONE))
        of_tensor.update(dict.fromkeys(node.outputs, of_node[node.name]))
    return of_node


def _without_head(view: GraphView, inside: Mapping[str, int], own: Mapping[str, int]) -> dict[str, int]:
    """`inside` without what follows the last block: nodes after its products, beyond as many as follow the first block's."""
    last = len(view.blocks) - 1
    first_tail, last_tail = (_after_products([name for name, block in inside.items() if block == index], own) for index in (0, last))
    head = set(last_tail[len(first_tail) :])
    return {name: block for name, block in inside.items() if name not in head}


def _after_products(names: Sequence[str], own: Mapping[str, int]) -> Sequence[str]:
    return names[max(index for index, name in enumerate(names) if name in own) + 1 :]
