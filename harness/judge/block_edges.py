"""The tensors between the blocks of a graph: all that a block hands to the next one goes through one of them.

They are found by how the graph is wired. A tensor is an edge when no way from the block's products to the graph's outputs goes past
it, so that a tower can be cut there and one block be looked at alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.structure import Block, GraphView
from harness.records.graph import OnnxNode

_SHAPES = frozenset({"Shape", "Size"})  # a tensor's shape says nothing about its numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEdges:
    """Where a tower can be cut.

    Attributes:
        tensors: what goes into the first block, then what comes out of each: one more than there are blocks.
    """

    tensors: tuple[str, ...]


def block_edges(view: GraphView) -> BlockEdges | str:
    """The edges of a graph's blocks; where they cannot be told, why not, in words."""
    if view.irregularity or not view.blocks:
        return view.irregularity or "no block repeats in it"
    places = {node.name: place for place, node in enumerate(view.graph.nodes)}
    spans = [_span(block, places) for block in view.blocks]
    inputs = [port.name for port in view.graph.inputs]
    before = [node for place, node in _cuts(view, inputs, _outputs_of(view.blocks[0], view)) if place < spans[0][0]]
    if not before:
        return "no tensor holds all that goes into its first block"
    edges = [before[-1].outputs[0]]
    after_first = 0
    for block, (_, last), (following, _) in zip(view.blocks, spans, [*spans[1:], (None, None)], strict=True):
        cuts = _cuts_behind(view, block, last, until=following)
        if not cuts:
            return f"no tensor holds all that comes out of its block {block.index}"
        # The last block is followed by the head, which has such tensors too: as many belong to the block as to the first.
        after_first = after_first or len(cuts)
        edges.append(cuts[-1 if following is not None else min(after_first, len(cuts)) - 1])
    return BlockEdges(tensors=tuple(edges))


def _cuts_behind(view: GraphView, block: Block, last: int, *, until: int | None) -> list[str]:
    outputs = [port.name for port in view.graph.outputs]
    found = _cuts(view, _outputs_of(block, view), outputs)
    return [node.outputs[0] for place, node in found if place > last and (until is None or place < until)]


def nodes_between(view: GraphView, starts: Collection[str], end: str) -> tuple[OnnxNode, ...]:
    """The nodes that `end` is computed by from the tensors `starts`, in graph order."""
    pending, needed = [end], set[str]()
    seen: set[str] = set(starts)
    while pending:
        tensor = pending.pop()
        node = view.producers.get(tensor)
        if tensor in seen or node is None:
            continue
        seen.add(tensor)
        needed.add(node.name)
        pending.extend(node.inputs)
    return tuple(node for node in view.graph.nodes if node.name in needed)


def _span(block: Block, places: Mapping[str, int]) -> tuple[int, int]:
    own = [places[name] for name in block.product_names]
    return min(own), max(own)


def _outputs_of(block: Block, view: GraphView) -> list[str]:
    own = set(block.product_names)
    return [output for node in view.graph.nodes if node.name in own for output in node.outputs]


def _cuts(view: GraphView, sources: Sequence[str], targets: Sequence[str]) -> list[tuple[int, OnnxNode]]:
    """Nodes, with their places, whose first output every way from `sources` to `targets` goes through.

    In a topological order these are the nodes that no tensor spans: what was made before one is not read behind it.
    """
    ways = [(place, node) for place, node in enumerate(view.graph.nodes) if node.name in _ways(view, sources, targets)]
    last_read = {tensor: place for place, node in ways for tensor in node.inputs} | dict.fromkeys(targets, len(view.graph.nodes))
    open_until = max((last_read.get(tensor, -1) for tensor in sources), default=-1)
    found: list[tuple[int, OnnxNode]] = []
    for place, node in ways:
        if open_until <= place:
            found.append((place, node))
        open_until = max(open_until, *(last_read.get(tensor, -1) for tensor in node.outputs))
    return found


def _ways(view: GraphView, sources: Sequence[str], targets: Sequence[str]) -> frozenset[str]:
    """Names of the nodes on the ways from `sources` to `targets`, but for ways along a tensor's shape alone."""
    reached, leading = set(sources), set(targets)
    for node in view.graph.nodes:
        if node.op_type not in _SHAPES and not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    for node in reversed(view.graph.nodes):
        if node.op_type not in _SHAPES and not leading.isdisjoint(node.outputs):
            leading.update(node.inputs)
    return frozenset(
        node.name
        for node in view.graph.nodes
        if node.op_type not in _SHAPES and not leading.isdisjoint(node.outputs) and not reached.isdisjoint(node.inputs)
    )
