"""What the checks of an engine look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.judge.engine_rows import carriers_of
from harness.judge.structure import GraphView
from harness.records.graph import OnnxNode
from harness.records.observations import LayerRow, LayerTable, MemoryReading


@dataclass(frozen=True, kw_only=True)
class EngineEvidence:
    """What was measured of one engine.

    Attributes:
        view: the graph that it was built from.
        flop_floor: least share of the FLOPs in FP8, 0 to 1, that E3 asks for.
        reference: layers of the same encoder's FP16 engine, where it was built.
        memory: what the engine needs; None where its builder does not say.
        approved_moves: layers that only move, of the approved engine; None without a baseline.
    """

    view: GraphView
    table: LayerTable
    flop_floor: float = 0.0
    reference: LayerTable | None = None
    memory: MemoryReading | None = None
    approved_moves: float | None = None

    @cached_property
    def carriers(self) -> Mapping[str, list[LayerRow]]:
        """ONNX node name to the layers that name it."""
        return carriers_of(self.table)

    @cached_property
    def nodes(self) -> Mapping[str, OnnxNode]:
        """ONNX node by name."""
        return {node.name: node for node in self.view.graph.nodes}

    def nodes_of(self, row: LayerRow) -> list[OnnxNode]:
        """The graph's nodes that a layer names; compilers name some that are none of the file's."""
        return [self.nodes[name] for name in row.onnx_nodes if name in self.nodes]

    def place_of(self, row: LayerRow) -> OnnxNode | None:
        """The node that a finding about a layer names: the first that belongs to a block, else the first; None without any."""
        nodes = self.nodes_of(row)
        return next((node for node in nodes if self.view.block_of(node) is not None), next(iter(nodes), None))
