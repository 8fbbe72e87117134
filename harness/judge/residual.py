"""Finds the residual blocks of a convolutional trunk, such as a ResNet's, by how its sums rejoin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records.graph import OnnxNode

_FEWEST = 2  # convolutions of a block, and blocks of a trunk; less repeats nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock:
    """What lies between a tensor and the sum in which its two ways meet again."""

    convolutions: tuple[OnnxNode, ...]
    sum: OnnxNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The residual blocks of convolutions, in graph order.

    Attributes:
        strays: convolutions after the first block that are in none; a trunk has none.
    """

    blocks: tuple[ResidualBlock, ...]
    strays: tuple[OnnxNode, ...]


def find_trunk(nodes: Sequence[OnnxNode], producers: Mapping[str, OnnxNode]) -> Trunk | None:
    """The convolutional trunk of a graph; None when it has none: a patch embedding and a stem are no blocks.

    Args:
        nodes: in topological order.
    """
    if sum(node.op_type == "Conv" for node in nodes) < _FEWEST * _FEWEST:
        return None
    upstream = _Upstream(nodes, producers)
    blocks: list[ResidualBlock] = []
    placed: set[int] = set()
    for node in nodes:
        inside = upstream.between_fork_and(node) if node.op_type == "Add" else []
        convolutions = [index for index in inside if nodes[index].op_type == "Conv" and index not in placed]
        if len(convolutions) >= _FEWEST:
            placed.update(convolutions)
            blocks.append(ResidualBlock(convolutions=tuple(nodes[index] for index in convolutions), sum=node))
    if len(blocks) < _FEWEST:
        return None
    strays = (node for index, node in enumerate(nodes) if node.op_type == "Conv" and index not in placed)
    return Trunk(blocks=tuple(blocks), strays=tuple(node for node in strays if upstream.reads(node, blocks[0].sum)))


class _Upstream:
    """For each node, the set of nodes that it is computed from, as the bits of one number."""

    def __init__(self, nodes: Sequence[OnnxNode], producers: Mapping[str, OnnxNode]) -> None:
        self._producers = producers
        self._index = {id(node): index for index, node in enumerate(nodes)}
        self._sets: list[int] = []
        for node in nodes:
            found = 0
            for name in node.inputs:
                found |= self._through(name)
            self._sets.append(found)

    def between_fork_and(self, node: OnnxNode) -> list[int]:
        """Indexes of the nodes on both ways from the last tensor that both operands of `node` come from; none without such a tensor."""
        ways = [self._through(name) for name in node.inputs[:2]]
        common = ways[0] & ways[1] if len(ways) > 1 else 0
        if not common:
            return []
        fork = common.bit_length() - 1
        return _bits((ways[0] | ways[1]) & ~(self._sets[fork] | 1 << fork))

    def reads(self, node: OnnxNode, other: OnnxNode) -> bool:
        """Whether `node` is computed from `other`."""
        return bool(self._sets[self._index[id(node)]] >> self._index[id(other)] & 1)

    def _through(self, tensor: str) -> int:
        index = self._index.get(id(self._producers.get(tensor)))
        # A node that stands after its reader is a torn graph, which another check names.
        return 0 if index is None or index >= len(self._sets) else self._sets[index] | 1 << index


def _bits(number: int) -> list[int]:
    return [index for index in range(number.bit_length()) if number >> index & 1]
